"""Original archives of data sets, read member by member.

The content of an archive is data only: nothing in it is run, and no name in it becomes a path.
"""

import gzip
import posixpath
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in a tar in their order, one at a time in memory."""
    with tarfile.open(path, encoding="utf-8") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # else it remembers each of millions
            name = _visible(member.name)
            if member.isreg() and name:
                yield name, archive.extractfile(member).read()


def zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in a zip in their order, one at a time in memory."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _visible(member.filename)
            if not member.is_dir() and name:
                yield name, archive.read(member)


def _visible(name: str) -> str | None:
    """The normal form of a member's name, as TFDS has it; None for hidden files, such as macOS adds."""
    name = posixpath.normpath(name)
    hidden = name.startswith((".", "/")) or name.endswith("~") or posixpath.basename(name).startswith(".")
    return None if hidden else name


def idx(path: Path) -> np.ndarray:
    """The uint8 array of a gzipped IDX file, MNIST's format: two zeros, type 8, dimensions, sizes, bytes."""
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError("no IDX file of bytes")
    start = 4 + 4 * content[3]
    return np.frombuffer(content, np.uint8, offset=start).reshape(struct.unpack(f">{content[3]}I", content[4:start]))
