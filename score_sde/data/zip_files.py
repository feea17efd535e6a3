"""Pictures in zip files, as EDM's and StyleGAN's tools write them, and any other program."""

import io
import threading
import weakref
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_sde.data.containers import (
    Archive,
    Entry,
    Listing,
    Shard,
    check_size,
    is_hidden,
    is_image,
    member_name,
    parents,
    unreadable,
)
from score_sde.errors import UsageError, shown

# Others are rare; those of bzip2 and LZMA expand without a limit when a part of them is read.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # bit of a member's flags


class Zip(Archive):
    """Zip files, at most one of each split.

    Raises `UsageError` for files that are damaged, encrypted, compressed by other methods than deflation, or that have
    names which occur twice or lead out of the file.
    """

    kind = "zip"

    def __init__(self, root: Path, shards: Sequence[Shard], *, labels: bool = True, captions: bool = True):
        super().__init__(root, shards)
        (folder, number), *_ = Counter(shard.folder for shard in shards).most_common()
        if number > 1:
            one, other = [shown(shard.path.name) for shard in shards if shard.folder == folder][:2]
            raise UsageError(f"{shown(root)} has zip files {one} and {other}; give one of them as config.data.path.")
        self._lock = threading.Lock()
        self._archives: list[zipfile.ZipFile] = []
        # Sources are seldom closed, and a ZipFile warns when it goes away with its file open.
        self.close = weakref.finalize(self, _close, self._archives)
        self._archives += map(_opened, [shard.path for shard in shards])
        images, others, folders, hidden = [], {}, self.split_folders(), 0
        for i, (shard, archive) in enumerate(zip(shards, self._archives, strict=True)):
            names = _members(shard.path, archive)
            visible = {shard.folder + name: (i, info) for name, info in names.items() if not is_hidden(name)}
            hidden += sum(is_hidden(name) and is_image(name) for name in names)
            folders |= {name for name, (_, info) in visible.items() if info.is_dir()} | set(parents(visible))
            for name, place in visible.items():
                if not place[1].is_dir():
                    images += [Entry(name, place)] if is_image(name) else []
                    others |= {} if is_image(name) else {name: place}
        self.listing = Listing(sorted(images), others, folders, hidden)

    def open(self, place: tuple[int, zipfile.ZipInfo]) -> io.BufferedIOBase:
        check_size(place[1].file_size)  # of which no more is read than this
        with self._lock:  # the open members are counted without one
            return self._archives[place[0]].open(place[1])

    def identity(self, place: tuple[int, zipfile.ZipInfo]) -> tuple[int, int]:
        return place[1].file_size, place[1].CRC

    def _number(self, place: tuple[int, zipfile.ZipInfo]) -> int:
        return place[0]


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # various types for what is damaged
        raise unreadable(path, error) from error


def _close(archives: list[zipfile.ZipFile]) -> None:
    for archive in archives:
        archive.close()


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    result: dict[str, Any] = {}
    for info in archive.infolist():
        name = member_name(path, info.filename.replace("\\", "/"))
        if result.setdefault(name, info) is not info and not info.is_dir():
            raise UsageError(f"{shown(path)} has two members {shown(name)}; make it again with one of each name.")
        if info.flag_bits & ENCRYPTED:
            raise UsageError(f"{shown(path)} is encrypted; make it again without a password.")
        if info.compress_type not in METHODS and not info.is_dir():
            method = zipfile.compressor_names.get(info.compress_type, info.compress_type)
            raise UsageError(f"{shown(path)} is compressed by {method}; make it again with deflation, or without any.")
    return result
