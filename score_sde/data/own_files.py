"""A user's own images by their path: a folder of pictures, or files that hold pictures, of which none is unpacked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from score_sde.data import shards
from score_sde.data.containers import Archive, Container, Shard, beneath, check_images, is_image
from score_sde.data.directory import Directory
from score_sde.data.parquet_files import Parquet
from score_sde.data.split_names import SPLITS
from score_sde.data.tar_files import Tar
from score_sde.data.zip_files import Zip
from score_sde.errors import UsageError, shown
from score_sde.runtime.backend import expanded

ARRAYS = (".npy", ".npz")
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
TABLE = "metadata.parquet"  # of labels, and none of images


def opened(path: str, **beside: bool) -> Container:
    """The container at a path: a folder, a file of `FILES`, a folder in a zip or tar, or a pattern of files.

    A folder that holds no picture is read for its files of `FILES`. beside: `labels` and `captions`, whether those that
    are stored beside each picture are read. Raises `UsageError` where there is no image, or where files of several
    kinds could be meant.
    """
    if not path:
        raise UsageError(
            "data.dataset=folder needs config.data.path=DIR, the folder of the images, or a file that holds them "
            f"({', '.join(FILES)})."
        )
    root = expanded(path)
    if root.is_dir():
        container = _of_folder(root, beside)
    elif root.is_file():
        container = _without_wrapper(_archive(root, [Shard(root, "")], beside))
    elif "{" in path:
        container = _archive(root, shards.of_files(shards.of_pattern(str(root))), beside)
    else:
        container = _of_folder_inside(root, path, beside)
    check_images(container.root, container.listing)
    return container


def _of_folder(root: Path, beside: Mapping[str, bool]) -> Container:
    folder = Directory(root)
    others = folder.listing.others
    names = sorted(name for name in others if _suffix(name) in FILES and Path(name).name != TABLE)
    if folder.listing.images or not names:
        for name in () if folder.listing.images else sorted(others):
            _refuse_other(root / name)
        return folder
    first = {_suffix(name): name for name in reversed(names)}
    if len(first) > 1:
        one, other = sorted(first.values())[:2]
        raise UsageError(
            f"{shown(root)} has {shown(one)} and {shown(other)}, of different kinds; give one as config.data.path."
        )
    archive = _without_wrapper(_archive(root, shards.of_folder(root, [root / name for name in names]), beside))
    unread = {name: None for name in others if name not in names}
    archive.listing = archive.listing._replace(others=unread | archive.listing.others)
    return archive


def _of_folder_inside(root: Path, path: str, beside: Mapping[str, bool]) -> Container:
    """A folder in an archive, such as `pets.zip/train`."""
    file = next((above for above in root.parents if above.is_file()), None)
    if file is None or _suffix(file) not in FILES or not FILES[_suffix(file)].classes_are_folders:
        raise UsageError(
            f"config.data.path={path} is no folder and no file of images ({', '.join(FILES)}); give the one that holds "
            "them."
        )
    archive = _archive(file, [Shard(file, "")], beside)
    archive.root, archive.listing = root, beneath(archive.listing, f"{root.relative_to(file).as_posix()}/")
    return archive


def _archive(root: Path, files: Sequence[Shard], beside: Mapping[str, bool]) -> Archive:
    for shard in files:
        _refuse_other(shard.path)
    suffixes = {_suffix(shard.path): shard.path for shard in files}
    if len(suffixes) > 1:
        one, other = sorted(suffixes.values())[:2]
        raise UsageError(f"{shown(one)} and {shown(other)} are of different kinds; give one as config.data.path.")
    (suffix,) = suffixes
    if suffix not in FILES:
        raise UsageError(
            f"config.data.path={shown(root)} is no folder and no file of images ({', '.join(FILES)}); give the one "
            "that holds them."
        )
    return FILES[suffix](root, files, **beside)


def _without_wrapper(archive: Archive) -> Archive:
    """The archive without a folder that holds all of it, as programs add when they pack a folder."""
    while len(archive.shards) == 1:
        listing = archive.listing
        names = [entry.path for entry in listing.images] + [name for name, place in listing.others.items() if place]
        tops = {name.partition("/")[0] if "/" in name else "" for name in names}
        (top, *others) = tops or {""}
        if others or not top or top.lower() in SPLITS:
            break
        archive.root, archive.listing = archive.root / top, beneath(listing, f"{top}/")
    return archive


def _refuse_other(path: Path) -> None:
    """Raises `UsageError` for files of kinds that are near, and not read."""
    suffix = _suffix(path)
    if suffix in ARRAYS:
        raise UsageError(
            f"{shown(path)} holds arrays; set config.data.dataset=array, which reads it by the same config.data.path."
        )
    if suffix in COMPRESSED:
        raise UsageError(
            f"{shown(path)} is compressed as a whole, so that no picture in it can be read alone; decompress it, and "
            "give the file or folder that this makes as config.data.path."
        )
    if is_image(path.name):
        raise UsageError(f"{shown(path)} is one image; give the folder that holds the images as config.data.path.")


def _suffix(path: str | Path) -> str:
    return Path(path).suffix.lower()


# Files that hold pictures, by their suffix.
FILES: dict[str, type[Archive]] = {".zip": Zip, ".tar": Tar, ".parquet": Parquet}
