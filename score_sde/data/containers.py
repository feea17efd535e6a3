"""Containers: named pictures and other files, as a folder, an archive or a table holds them.

The content of a container is data only: no name in it becomes a path, and no more is read than a picture may take.
"""

import abc
import io
import os
import posixpath
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.data import decoding
from score_sde.data.split_report import counted
from score_sde.errors import UsageError, shown

Label = int | str
KINDS = ", ".join(decoding.FORMATS)
SUFFIXES = tuple(suffix for suffixes in decoding.SUFFIXES.values() for suffix in suffixes)
MAX_BYTES = 4 * decoding.MAX_PIXELS  # of one file in a container; the pixels of the largest picture take as many
PIECE = 2**14  # bytes that a file's checksum covers at each of three places
CAPTION_COLUMNS = ("text", "caption")  # of which the first counts
NO_CAPTIONS = "config.data.captions=none"
POINTER = b"version https://git-lfs"  # begin of a small text that a clone without Git LFS has in place of a file
SYSTEM = "__MACOSX"  # folder that macOS adds to archives


class Entry(NamedTuple):
    """A picture of a container.

    path: name, relative to the container; folders in it are splits and classes. place: where the container finds it.
    label, caption: those that are stored beside the picture, not in a file for all.
    """

    path: str
    place: Any
    label: Label | None = None
    caption: str | None = None


class Listing(NamedTuple):
    """Files in a container, by names relative to it.

    images: sorted by path. others: other files, and their places. folders: all of them, also empty ones. hidden: number
    of images and folders whose names begin with a dot, which are left out. labelled: where labels of the images
    come from that are stored beside them; "" where there are none. unpaired: names of such labels without an image.
    class_names: names that are stored with such labels. captioned: as `labelled`, for captions. unread: other things
    that are left out, in words.
    """

    images: list[Entry]
    others: dict[str, Any]
    folders: set[str]
    hidden: int = 0
    labelled: str = ""
    unpaired: Sequence[str] = ()
    class_names: Sequence[str] | None = None
    captioned: str = ""
    unread: Sequence[str] = ()


class Shard(NamedTuple):
    """One file of a container. folder: the split that its name says, as a folder ("train/"); "" for none."""

    path: Path
    folder: str


class Container(abc.ABC):
    """Named pictures in one place, root, which is a folder, a file, or a pattern of files.

    classes_are_folders: whether folders in the names of pictures can be classes.
    """

    classes_are_folders = True
    root: Path
    listing: Listing

    @abc.abstractmethod
    def open(self, place: Any) -> io.BufferedIOBase:
        """A picture or other file, to be closed. Threads may have different ones open."""

    @abc.abstractmethod
    def identity(self, place: Any) -> tuple[int, int]:
        """Size and checksum of a picture."""

    @abc.abstractmethod
    def part(self, folder: str) -> str:
        """The words "from ..." for the pictures of one split, or of all, "": for messages."""

    def name(self, entry: Entry) -> str:
        """Name of a picture, for messages."""
        return shown(self.root / entry.path)

    def content(self, entry: Entry) -> Any:
        """The picture as `Stored` has it: a path, or a function that reads it."""
        return lambda: self.read(entry.place)

    def read(self, place: Any) -> bytes:
        """A whole picture or other file. Raises `ValueError` for one of more than `MAX_BYTES`."""
        with self.open(place) as file:
            content = file.read(MAX_BYTES + 1)
        check_size(len(content))
        return content

    def close(self) -> None:  # noqa: B027
        """Closes the files."""


class Archive(Container):
    """A container of one or several archives, in each of which files have names.

    labels, captions: whether those that are stored beside each picture are read.
    """

    kind: str

    def __init__(self, root: Path, shards: Sequence[Shard], *, labels: bool = True, captions: bool = True):
        self.root, self.shards = root, shards

    def part(self, folder: str) -> str:
        shards = [shard for shard in self.shards if shard.folder == folder] or self.shards
        inside = f"{shown(folder)} of " if folder and not any(shard.folder for shard in self.shards) else ""
        if len(shards) == 1:
            return f"from {inside}{shown(shards[0].path.name)}"
        return f"from {inside}{len(shards):,} {self.kind} files"

    def name(self, entry: Entry) -> str:
        if len(self.shards) == 1:
            return super().name(entry)
        return shown(self._path(entry.place) / entry.path.removeprefix(self._folder(entry.place)))

    def split_folders(self) -> set[str]:
        """The folders that stand for splits."""
        return {shard.folder.rstrip("/") for shard in self.shards} - {""}

    @abc.abstractmethod
    def _number(self, place: Any) -> int:
        """Number of the archive that holds a file."""

    def _path(self, place: Any) -> Path:
        return self.shards[self._number(place)].path

    def _folder(self, place: Any) -> str:
        return self.shards[self._number(place)].folder


def unreadable(path: Path, error: Exception) -> UsageError:
    """The error for a file that its library cannot read."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            return UsageError(f"{shown(path)} is a pointer of Git LFS, not the file; get the file by git lfs pull.")
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UsageError(f"Cannot read {shown(path)} ({reason}); put an undamaged one in its place.")


def text_of(content: bytes, name: str) -> str:
    """The text of a file, without white space at its ends. Raises `UsageError` unless it is UTF-8."""
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise not_utf8(name, error) from error


def not_utf8(name: str, error: UnicodeDecodeError) -> UsageError:
    """The error for a file of captions of another encoding."""
    return UsageError(f"{name} is not UTF-8 ({error.reason}); save it as UTF-8, or set {NO_CAPTIONS}.")


def check_size(size: int) -> None:
    """Raises `ValueError` for a file of more bytes than any picture takes."""
    if size > MAX_BYTES:
        raise ValueError(f"its {size:,} bytes or more are over the limit of {MAX_BYTES:,}")


def is_image(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, is hidden."""
    return any(part.startswith(".") or part == SYSTEM for part in name.split("/"))


def member_name(archive: Path, name: str) -> str:
    """The normal form of a member's name. Raises `UsageError` for one that leads out of the archive."""
    normal = posixpath.normpath(name)
    if normal.startswith("/") or normal.split("/")[0] == ".." or "\0" in name:
        raise UsageError(
            f"{shown(archive)} has a member {shown(name)}, which lies outside of it; make it again with names relative "
            "to its folder."
        )
    return normal


def parents(names: Iterable[str]) -> Iterator[str]:
    """The folders above these names, some several times."""
    for name in names:
        while name := posixpath.dirname(name):
            yield name


def beneath(listing: Listing, folder: str) -> Listing:
    """The part of a listing below a folder, "FOLDER/", by names relative to that."""
    n = len(folder)
    return listing._replace(
        images=[entry._replace(path=entry.path[n:]) for entry in listing.images if entry.path.startswith(folder)],
        others={name[n:]: place for name, place in listing.others.items() if name.startswith(folder)},
        folders={name[n:] for name in listing.folders if name.startswith(folder)},
    )


def check_images(root: Path, listing: Listing) -> None:
    """Raises `UsageError` for a container without images."""
    if not listing.images:
        but = f", but {counted(suffixes(listing.others))}" if listing.others else ""
        raise UsageError(
            f"No images in {shown(root)} ({KINDS}){but}; give the folder or file that holds them as config.data.path."
        )


def suffixes(names: Iterable[str]) -> Counter[str]:
    """Number of names with each suffix."""
    return Counter(shown(Path(name).suffix.lower()) or "without a suffix" for name in names)


def pieces(file: io.BufferedIOBase) -> tuple[int, int]:
    """A file's size, and a checksum of its begin, middle and end, which is all of a small file.

    Compression lets most changes of a picture show there; reading all of every file takes as long as an epoch.
    """
    size, checksum = file.seek(0, os.SEEK_END), 0
    for start in (0, (size - PIECE) // 2, size - PIECE):
        file.seek(max(0, start))
        checksum = zlib.crc32(file.read(PIECE), checksum)
    return size, checksum


class Window(io.RawIOBase):
    """A part of a file, opened for itself, so that threads do not share a position."""

    def __init__(self, path: Path, offset: int, size: int):
        self._file, self._offset, self._size, self._position = path.open("rb", buffering=0), offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        n = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        content = self._file.read(n)
        if n and not content:
            raise ValueError("the file ends within it")
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
