"""Original archives of data sets: found in a folder or downloaded, verified, and read member by member.

What is in an archive is data: nothing in it is run, and no name in it becomes a path.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import posixpath
import shutil
import socket
import struct
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from score_sde.errors import UsageError

CHUNK = 2**20  # bytes
TIMEOUT = 60.0  # seconds without a byte


class Archive(NamedTuple):
    """A file as its publisher made it."""

    name: str
    url: str
    size: int  # bytes
    sha256: str


def fetch(archive: Archive, folder: Path) -> Path:
    """The verified file in `folder`, downloaded if it is not there.

    Raises `UsageError` when what is there or comes is another file, there is no network, or no space.
    """
    path = folder / archive.name
    if not path.exists():
        _download(archive, path)
    elif fault := _fault(archive, path):
        raise UsageError(
            f"{path} is not the file from {archive.url} ({fault}): remove it to have it downloaded, or put the right "
            f"{archive.name} in {folder} (config.data.archives)."
        )
    return path


def _fault(archive: Archive, path: Path) -> str | None:
    """What a file has that the archive has not."""
    try:
        size, digest = path.stat().st_size, hashlib.sha256()
        if size != archive.size:
            return f"{size:,} bytes, not {archive.size:,}"
        with path.open("rb") as file, _bar("verifying", archive) as bar:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                bar.update(len(chunk))
    except OSError as error:
        return str(error)
    return _another(archive, digest.hexdigest())


def _another(archive: Archive, sha256: str) -> str | None:
    return None if sha256 == archive.sha256 else f"its SHA-256 is {sha256}, not {archive.sha256}"


def _download(archive: Archive, path: Path) -> None:
    """Writes the file once it is whole and verified. A kill leaves NAME.HOST.PROCESS.part, which nothing reads."""
    by_hand = f"put {archive.name} in {path.parent} yourself, or set config.data.archives to the folder that holds it"
    partial = path.with_name(f"{archive.name}.{socket.gethostname()}.{os.getpid()}.part")
    size, digest = 0, hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(path.parent).free) < archive.size:
            raise OSError(f"{free:,} bytes are free, {archive.size:,} needed")
        with partial.open("wb") as file, _bar("downloading", archive) as bar:
            for chunk in _received(archive, by_hand):
                size += len(chunk)
                if size > archive.size:
                    break
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
        sizes = None if size == archive.size else f"{'more than ' if size > archive.size else ''}{size:,} bytes"
        if fault := sizes or _another(archive, digest.hexdigest()):
            wanted = f"the recorded {archive.name} of {archive.size:,} bytes"
            raise UsageError(f"What {archive.url} sends is not {wanted} ({fault}); {by_hand}.")
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"Cannot write {path} from {archive.url} ({error}); free space, or {by_hand}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _received(archive: Archive, by_hand: str) -> Iterator[bytes]:
    try:
        request = urllib.request.Request(_direct(archive.url), headers={"User-Agent": "score_sde"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(f"Cannot download {archive.url} ({error}); {by_hand}.") from error


def _direct(url: str) -> str:
    """Google Drive asks a person before it sends a large file; this address does not."""
    drive = "https://drive.google.com/uc?"
    return url.replace(drive, "https://drive.usercontent.google.com/download?confirm=t&") if drive in url else url


def _bar(verb: str, archive: Archive) -> tqdm:
    return tqdm(total=archive.size, desc=f"{verb} {archive.name}", unit="B", unit_scale=True, delay=1.0)


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in a tar in their order, one at a time in memory."""
    with tarfile.open(path) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # it would remember each of millions
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
