"""Files from the network, whole and the right ones, or none."""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from score_sde.errors import UsageError
from score_sde.files import replace
from score_sde.progress import bar

CHUNK = 2**20
SECONDS = 30.0  # without an answer


def sha256(path: Path) -> str:
    """Of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, path: Path, digest: str, advice: str) -> None:
    """Writes the file at `url` to `path` if its SHA-256 is `digest`.

    Raises `UsageError`, which ends with `advice`, if it cannot be had or is another file.
    """
    found = hashlib.sha256()

    def write(file) -> None:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            with bar(f"downloading {path.name}", size / CHUNK, "MiB") as progress:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    found.update(chunk)
                    progress.update(len(chunk) / CHUNK)
        if found.hexdigest() != digest:
            raise UsageError(f"{url} is not the file it was: its SHA-256 is {found.hexdigest()}; {advice}.")

    try:
        replace(path, write)
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"Cannot download {url} ({reason}); {advice}.") from error
