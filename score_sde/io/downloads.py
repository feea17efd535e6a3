"""Downloads: files that are found in a folder or downloaded, and verified."""

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from score_sde.errors import UsageError
from score_sde.runtime.progress import Bar, Lines, bar

# Not pooch, which (1.9) replaces a file of other contents by a download, where here the user is asked; stores downloads
# that only their owner can read, whatever the umask; receives without a bound; and reads the file again for its hash.

CHUNK = 2**20  # bytes
MEGABYTE = 10**6
TIMEOUT = 60.0  # seconds without a byte


class Download(NamedTuple):
    """A file as its publisher made it: name, address, size and SHA-256."""

    name: str
    url: str
    size: int  # bytes
    sha256: str


def fetch(download: Download, folder: Path, setting: str) -> Path:
    """The verified file in `folder`, downloaded if it is missing. setting: the folder's config key, for messages.

    Raises `UsageError` when the file there or the download differs, there is no network, or no space.
    """
    path = folder / download.name
    if not path.exists():
        _download(
            download, path, f"put {download.name} in {folder} yourself, or set {setting} to the folder that holds it"
        )
    elif fault := _fault(download, path):
        raise UsageError(
            f"{path} is not the file from {download.url} ({fault}): remove it to have it downloaded, or put the right "
            f"{download.name} in {folder} ({setting})."
        )
    return path


def _fault(download: Download, path: Path) -> str | None:
    """The first difference between a file and the download; None if there is none."""
    try:
        size, digest = path.stat().st_size, hashlib.sha256()
        if size != download.size:
            return f"{size:,} bytes, not {download.size:,}"
        with path.open("rb") as file, _bar("verifying", download) as progress:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                progress.update(len(chunk) / MEGABYTE)
    except OSError as error:
        return str(error)
    return _another(download, digest.hexdigest())


def _another(download: Download, sha256: str) -> str | None:
    return None if sha256 == download.sha256 else f"its SHA-256 is {sha256}, not {download.sha256}"


def _download(download: Download, path: Path, by_hand: str) -> None:
    """Downloads and verifies the file before it gets its name.

    A kill leaves NAME.HOST.PROCESS.part, which nothing reads.
    """
    partial = path.with_name(f"{download.name}.{socket.gethostname()}.{os.getpid()}.part")
    size, digest = 0, hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(path.parent).free) < download.size:
            raise OSError(f"{free:,} bytes are free, {download.size:,} needed")
        with partial.open("wb") as file, _bar("downloading", download) as progress:
            for chunk in _received(download, by_hand):
                size += len(chunk)
                if size > download.size:
                    break
                digest.update(chunk)
                file.write(chunk)
                progress.update(len(chunk) / MEGABYTE)
        sizes = None if size == download.size else f"{'more than ' if size > download.size else ''}{size:,} bytes"
        if fault := sizes or _another(download, digest.hexdigest()):
            recorded = f"the recorded {download.name} of {download.size:,} bytes"
            raise UsageError(f"The download from {download.url} is not {recorded} ({fault}); {by_hand}.")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"Cannot write {path} from {download.url} ({error}); free space, or {by_hand}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _received(download: Download, by_hand: str) -> Iterator[bytes]:
    try:
        request = urllib.request.Request(_direct(download.url), headers={"User-Agent": "score_sde"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(f"Cannot download {download.url} ({error}); {by_hand}.") from error


def _direct(url: str) -> str:
    """An address of Google Drive without its question about large files; others unchanged."""
    drive = "https://drive.google.com/uc?"
    return url.replace(drive, "https://drive.usercontent.google.com/download?confirm=t&") if drive in url else url


def _bar(verb: str, download: Download) -> Bar | Lines:
    return bar(f"{verb} {download.name}", download.size / MEGABYTE, "MB", delay=1.0)
