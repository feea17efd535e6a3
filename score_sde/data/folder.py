"""A folder of images of any sizes: PNG, JPEG and WebP files, found in all folders beneath it.

With folders `train` and `test` (or `validation`, or `val`) these are the splits; otherwise some images are held out for
evaluation. Where every image of a split is in a folder of its own class, CLASS/FILE, these give the labels.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from score_sde.backend import expanded
from score_sde.data import held_out
from score_sde.data.sources import Pictures, Stored, each
from score_sde.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
EVALUATION = ("test", "validation", "val")
PIECE = 2**14  # bytes of a file that its checksum is of, three times
THREADS = 16  # that wait for the disk
ADVICE = "remove or replace it, or leave such images out with config.data.corrupt=skip"


class Files(Pictures):
    """Files of a folder by their relative paths, in the order of these. classes: names of their folders, or None."""

    advice = ADVICE

    def __init__(self, root: Path, paths: Sequence[str], classes: Sequence[str] | None):
        self._root, self.paths, self.classes = root, list(paths), classes
        numbers = {name: number for number, name in enumerate(classes or ())}
        self._labels = [numbers[_class(path)] if classes else None for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        return [Stored(self._root / self.paths[i], self._labels[i]) for i in indices]

    def name(self, index: int) -> str:
        return str(self._root / self.paths[index])

    def fingerprint(self) -> Any:
        found: list[Any] = [None] * len(self)

        def look(i: int) -> None:
            found[i] = (self.paths[i], *_pieces(self._root / self.paths[i]))

        each(look, len(self), "comparing files", THREADS)
        return found

    def where(self, keep: Callable[[int], bool]) -> "Files":
        """Those of the numbers that `keep` is true of."""
        return Files(self._root, [path for i, path in enumerate(self.paths) if keep(i)], self.classes)


def _pieces(path: Path) -> tuple[int, int]:
    """A file's size, and a checksum of its begin, middle and end: of all of a small one, and of what compression has
    made of the rest of a picture. All of every picture takes as long as an epoch to read."""
    with path.open("rb") as file:
        size, checksum = file.seek(0, os.SEEK_END), 0
        for start in (0, (size - PIECE) // 2, size - PIECE):
            file.seek(max(0, start))
            checksum = zlib.crc32(file.read(PIECE), checksum)
    return size, checksum


def open_split(name: str, options: Any, *, train: bool) -> Files:
    """The training or evaluation images of the folder `options.path`.

    Raises `UsageError` where there are none, or a class has none. name: not used. options: see `loading.Options`.
    """
    root = _root(options.path)
    other = next((split for split in EVALUATION if (root / split).is_dir()), None)
    if other and (root / "train").is_dir():
        classes = _classes(root / "train", _images(root / "train"))
        folder = root / ("train" if train else other)
        paths = _images(folder)
        return Files(folder, paths, _same_classes(folder, paths, classes, root / "train"))
    paths = _images(root)
    wanted = held_out.side(paths, options.held_out, train=train, what=str(root))
    return Files(root, [paths[i] for i in wanted], _classes(root, paths))


def _root(path: str) -> Path:
    if not path:
        raise UsageError("data.dataset=folder needs config.data.path=DIR, the folder of the images.")
    root = expanded(path)
    if not root.is_dir():
        raise UsageError(f"config.data.path={path} is no folder; give the one that holds the images.")
    return root


def _images(root: Path) -> list[str]:
    """Relative paths of all images, sorted. Names that begin with a dot are left out."""
    found, seen = [], set()
    try:
        for folder, folders, names in os.walk(root, onerror=_cannot_list, followlinks=True):
            here = os.path.realpath(folder)
            folders[:] = [] if here in seen else [name for name in folders if not name.startswith(".")]
            names = [] if here in seen else names  # a link that leads back
            seen.add(here)
            relative = Path(folder).relative_to(root)
            found += [(relative / name).as_posix() for name in names if _is_image(name)]
    except OSError as error:
        raise UsageError(f"Cannot list {error.filename} ({error.strerror}); make it readable.") from error
    if not found:
        raise UsageError(f"No PNG, JPEG or WebP files in {root}; give the folder that holds them as config.data.path.")
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _cannot_list(error: OSError) -> None:
    raise error


def _class(path: str) -> str:
    return path.partition("/")[0]


def _classes(root: Path, paths: Sequence[str]) -> list[str] | None:
    """Sorted names of the class folders, None if some image is not in one. A class without images is refused."""
    if any(path.count("/") != 1 for path in paths):
        return None
    classes = sorted({_class(path) for path in paths})
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in classes:
            raise UsageError(f"The class folder {folder} has no PNG, JPEG or WebP files; put some there, or remove it.")
    return classes


def _same_classes(folder: Path, paths: list[str], classes: list[str] | None, train: Path) -> list[str] | None:
    """The classes of the training split, if this one has folders of these only."""
    found = _classes(folder, paths)
    if found is None or classes is None:
        return None
    strange = [name for name in found if name not in classes]
    if strange:
        raise UsageError(f"{folder} has a class folder {strange[0]} that {train} has not; remove one or add the other.")
    return classes
