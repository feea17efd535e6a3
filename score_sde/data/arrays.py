"""Images in one NumPy file: a .npy, or a .npz with `images` and `labels` as ours, or `arr_0` and `arr_1` as ADM's."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.data import held_out
from score_sde.data.sources import CHUNK, Pictures, Stored, Subset, hashed
from score_sde.data.split_report import SplitReport
from score_sde.errors import UsageError, shown
from score_sde.runtime.backend import expanded

NAMES = (("images", "labels"), ("arr_0", "arr_1"))


class Arrays(Pictures):
    """The images of one NumPy file, uint8 (n, h, w, c), in memory or mapped to the file.

    labels: int (n,) or None.
    """

    def __init__(self, path: Path, images: np.ndarray, labels: np.ndarray | None):
        self._path, self._images, self._labels = path, images, labels

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        return [Stored(self._images[i], None if self._labels is None else int(self._labels[i])) for i in indices]

    def name(self, index: int) -> str:
        return f"image number {index} of {shown(self._path)}"

    def fingerprint(self) -> Any:
        checksum = 0
        for start in range(0, len(self), CHUNK):
            checksum = zlib.crc32(np.ascontiguousarray(self._images[start : start + CHUNK]), checksum)
        labels = [] if self._labels is None else [np.asarray(self._labels, np.int64)]
        return [self._images.shape, checksum, hashed(None, *labels)]


def open_split(name: str, options: Any, *, train: bool) -> Pictures:
    """The training or evaluation images of the file `options.path`; a hash of their numbers holds some out.

    Raises `UsageError` unless the file holds uint8 images. name: not used. options: see `loading.Options`.
    """
    path = _path(options.path)
    images, labels, unread = _load(path)
    _check(path, images, labels)
    pictures = Arrays(path, images if images.ndim == 4 else images[..., None], labels)
    pictures.report = SplitReport("held out" if options.held_out and not train else "", "", dict.fromkeys(unread, 1))
    numbers = [str(i) for i in range(len(pictures))]
    return Subset(pictures, held_out.side(numbers, options.held_out, train=train, source=str(path)))


def _path(path: str) -> Path:
    if not path:
        raise UsageError("data.dataset=array needs config.data.path=FILE, a .npy or .npz file of the images.")
    file = expanded(path)
    if not file.is_file() or file.suffix not in (".npy", ".npz"):
        raise UsageError(f"config.data.path={path} is no .npy or .npz file; give the one that holds the images.")
    return file


def _load(path: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Images, labels, and names of the other arrays in the file; a .npy is mapped, not read."""
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None, []
        with np.load(path, allow_pickle=False) as file:
            for images, labels in NAMES:
                if images in file:
                    return (
                        file[images],
                        file.get(labels),
                        [f"array {name}" for name in file if name not in (images, labels)],
                    )
            names = ", ".join(file) or "none"
    except Exception as error:  # NumPy and zipfile raise various types for what is damaged, or holds objects
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"Cannot read {path} ({reason}); save it again with np.save or np.savez.") from error
    raise UsageError(f"{path} has no array 'images' or 'arr_0', but {names}; save the images under one of these names.")


def _check(path: Path, images: Any, labels: Any) -> None:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise UsageError(
            f"{path} holds {images.dtype} of shape {images.shape}; images are uint8 of shape (n, height, width) or "
            "(n, height, width, channels)."
        )
    if images.ndim == 3 and images.shape[-1] in (1, 3):
        raise UsageError(
            f"{path} holds an array of shape {images.shape}, one image or many of width {images.shape[-1]}; save it "
            "with all four axes (n, height, width, channels)."
        )
    if labels is not None and (labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer)):
        raise UsageError(
            f"The labels of {path} are {labels.dtype} of shape {labels.shape}; they must be integers, one for each of "
            f"the {len(images)} images."
        )
