"""Pictures in tar files of any program; in WebDataset's KEY.png, its label in KEY.cls or KEY.json, caption in KEY.txt.

A tar is read once, its headers only, to learn where each picture is; from then on pictures are read at their places.
This needs a tar that is not compressed.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from score_sde.data.containers import (
    NO_CAPTIONS,
    Archive,
    Entry,
    Label,
    Listing,
    Shard,
    Window,
    check_size,
    is_hidden,
    is_image,
    member_name,
    parents,
    pieces,
    text_of,
    unreadable,
)
from score_sde.errors import UsageError, shown

CAPTION = ".txt"
BESIDE_BYTES = 2**20  # of one KEY.cls, KEY.json or KEY.txt
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard


class Place(NamedTuple):
    """Position of a member: number of the tar, offset in it, and size, in bytes."""

    shard: int
    offset: int
    size: int


class Tar(Archive):
    """Tar files, each split in any number of them.

    Raises `UsageError` for files that are damaged or compressed, that hold links or devices, or that have names which
    occur twice or lead out of the file.
    """

    kind = "tar"

    def __init__(self, root: Path, shards: Sequence[Shard], *, labels: bool = True, captions: bool = True):
        super().__init__(root, shards)
        images, others, folders, hidden = [], {}, self.split_folders(), 0
        source, unpaired = set(), []
        for i, shard in enumerate(shards):
            members = _members(shard.path, i)
            visible = {name: place for name, place in members.items() if not is_hidden(name)}
            hidden += sum(is_hidden(name) and is_image(name) for name in members)
            folders |= {shard.folder + name for name, place in visible.items() if place is None}
            folders |= set(parents(shard.folder + name for name in visible))
            files = {name: place for name, place in visible.items() if place is not None}
            pictures = _pictures(shard.path, files)
            with shard.path.open("rb") as file:
                beside = {key: _label(shard.path, key, files, file) if labels else ("", None) for key in pictures}
                texts = {key: _caption(shard.path, key, files, file) if captions else None for key in pictures}
            used = {suffix for suffix, _ in beside.values() if suffix}
            source |= used
            images += [
                Entry(shard.folder + name, files[name], beside[key][1], texts[key]) for key, name in pictures.items()
            ]
            of_labels = {key + suffix for key in pictures for suffix in used}
            of_captions = {key + CAPTION for key, text in texts.items() if text is not None}
            if ".cls" in used:  # of which each has one, as not every .json is a label
                lonely = {name for name in files if name.endswith(".cls")} - of_labels
                unpaired += [shard.folder + name for name in sorted(lonely)]
            rest = files.keys() - set(pictures.values()) - of_labels - of_captions
            others |= {shard.folder + name: files[name] for name in rest}
        labelled = f"by {' and '.join(sorted(source))}" if source else ""
        captioned = f"by {CAPTION}" if any(entry.caption is not None for entry in images) else ""
        images.sort(key=lambda entry: entry[:2])
        self.listing = Listing(images, others, folders, hidden, labelled, unpaired, captioned=captioned)

    def open(self, place: Place) -> io.BufferedIOBase:
        check_size(place.size)
        return io.BufferedReader(Window(self._path(place), place.offset, place.size))

    def identity(self, place: Place) -> tuple[int, int]:
        with self.open(place) as file:
            return pieces(file)

    def _number(self, place: Place) -> int:
        return place.shard


def _label(path: Path, key: str, files: dict[str, Place], file: io.BufferedIOBase) -> tuple[str, Label | None]:
    """(suffix, label) of a picture; ("", None) without one. file: the open tar."""
    for suffix, read in LABELS.items():
        place = files.get(key + suffix)
        if place is None:
            continue
        try:
            label = read(_beside(place, file))
        except Exception as error:  # JSON and codecs raise various types
            where = shown(path / (key + suffix))
            raise UsageError(f"Cannot read {where} ({error}); mend it, or set config.data.labels=none.") from error
        if label is not None:
            return suffix, label
    return "", None


def _caption(path: Path, key: str, files: dict[str, Place], file: io.BufferedIOBase) -> str | None:
    """The caption of a picture; None without one. file: the open tar."""
    if (place := files.get(key + CAPTION)) is None:
        return None
    name = shown(path / (key + CAPTION))
    try:
        return text_of(_beside(place, file), name)
    except UsageError:
        raise
    except Exception as error:  # of a file that is too large, or damaged
        raise UsageError(f"Cannot read {name} ({error}); mend it, or set {NO_CAPTIONS}.") from error


def _beside(place: Place, file: io.BufferedIOBase) -> bytes:
    if place.size > BESIDE_BYTES:
        raise ValueError(f"its {place.size:,} bytes are too many for a label or caption")
    file.seek(place.offset)
    return file.read(place.size)


def _members(path: Path, number: int) -> dict[str, Place | None]:
    """Places of the files in a tar, by their names; None for folders."""
    result: dict[str, Place | None] = {}
    for member in _headers(path):
        name = member_name(path, member.name)
        if member.isdir():
            result.setdefault(name)
            continue
        if not member.isreg() or member.issparse():
            raise UsageError(
                f"{shown(path)} has a member {shown(name)}, which is a link, a device or a sparse file; make it again "
                "of ordinary files (tar --dereference)."
            )
        if name in result:
            raise UsageError(f"{shown(path)} has two members {shown(name)}; make it again with one of each name.")
        result[name] = Place(number, member.offset_data, member.size)
    return result


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with path.open("rb") as file:
            if file.read(6).startswith(COMPRESSED):
                raise UsageError(
                    f"{shown(path)} is compressed, so that no picture can be read alone; decompress it to a .tar."
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # else it remembers each of millions
                    yield member
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                    raise ValueError(f"its end is missing, or it is damaged at byte {archive.offset:,}")
    except UsageError:
        raise
    except Exception as error:  # various types for what is damaged
        raise unreadable(path, error) from error


def _pictures(path: Path, files: dict[str, Place]) -> dict[str, str]:
    """Names of the pictures by their keys, as WebDataset has them: up to the first dot in the name, without folders.

    A suffix of several parts, such as .mask.png, is none of a picture.
    """
    result: dict[str, str] = {}
    for name in files:
        folder, slash, base = name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        if not is_image("x" + dot + suffix) or "." in suffix:
            continue
        key = folder + slash + stem
        if result.setdefault(key, name) != name:
            raise UsageError(
                f"{shown(path)} has two pictures of one key, {shown(result[key])} and {shown(name)}; leave one out."
            )
    return result


def _of_cls(content: bytes) -> Label:
    text = content.decode("utf-8-sig").strip()
    try:
        return int(text)
    except ValueError:
        return text


def _of_json(content: bytes) -> Label | None:
    return json.loads(content).get("label") if b'"label"' in content else None


# Files of labels beside KEY.png, in the order in which they count.
LABELS = {".cls": _of_cls, ".json": _of_json}
