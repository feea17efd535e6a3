"""A folder of pictures as a container, with all its subfolders."""

import io
import os
from pathlib import Path
from typing import Any

from score_sde.data.containers import Container, Entry, Listing, is_image, pieces
from score_sde.data.split_names import SPLITS
from score_sde.errors import UsageError


class Directory(Container):
    """A folder on the disk. Raises `UsageError` for one that cannot be listed."""

    def __init__(self, root: Path):
        self.root, self.listing = root, _listing(root)

    def open(self, place: str) -> io.BufferedIOBase:
        return (self.root / place).open("rb")

    def content(self, entry: Entry) -> Any:
        return self.root / entry.place

    def read(self, place: str) -> bytes:
        return (self.root / place).read_bytes()

    def identity(self, place: str) -> tuple[int, int]:
        with self.open(place) as file:
            return pieces(file)

    def part(self, folder: str) -> str:
        return f"from {folder}" if folder else ""


def _listing(root: Path) -> Listing:
    images, others, inside, seen, hidden = [], [], set(), set(), 0
    try:
        for folder, folders, names in os.walk(root, onerror=_cannot_list, followlinks=True):
            relative = Path(folder).relative_to(root)
            split = next((top for top in relative.parts[:1] if top.lower() in SPLITS), "")
            here = split, os.path.realpath(folder)  # one split may be a link to the other
            if here in seen or ("", here[1]) in seen:  # a link that leads back
                folders.clear()
                continue
            hidden += sum(name.startswith(".") for name in (*folders, *filter(is_image, names)))
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside |= {(relative / name).as_posix() for name in folders}
            seen.add(here)
            for name in names:
                if not name.startswith("."):
                    (images if is_image(name) else others).append((relative / name).as_posix())
    except OSError as error:
        raise UsageError(f"Cannot list {error.filename} ({error.strerror}); make it readable.") from error
    entries = [Entry(path, path) for path in sorted(images, key=os.fsencode)]
    return Listing(entries, {path: path for path in others}, inside, hidden)


def _cannot_list(error: OSError) -> None:
    raise error
