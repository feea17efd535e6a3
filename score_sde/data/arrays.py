"""Images in one NumPy file: a .npy, or a .npz under one of the names in `NAMES`.

Numbers of other types than uint8 become the 256 levels of `data.array_range`. Channels may be the last axis or the
second one.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_sde.data import held_out
from score_sde.data.containers import NO_CAPTIONS, not_utf8
from score_sde.data.sources import CHUNK, Pictures, Stored, Subset, hashed
from score_sde.data.split_report import SplitReport
from score_sde.errors import UsageError, shown
from score_sde.runtime.backend import expanded


class Names(NamedTuple):
    """Names of the arrays of a split: images, and labels and captions, which it may lack."""

    images: str
    labels: str
    captions: str


# The splits of each kind of file: of all images, or for training and for evaluation.
NAMES = (
    (Names("images", "labels", "captions"),),
    (Names("arr_0", "arr_1", "captions"),),  # ADM's
    (Names("x_train", "y_train", "captions_train"), Names("x_test", "y_test", "captions_test")),  # Keras's
    (
        Names("train_images", "train_labels", "train_captions"),  # MedMNIST's
        Names("test_images", "test_labels", "test_captions"),
    ),
)


class Split(NamedTuple):
    """The arrays of a split.

    separate: the images' name if the split is one of two in the file. unread: names of other arrays.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    captions: np.ndarray | None = None
    separate: str = ""
    unread: Sequence[str] = ()


CHANNELS = (1, 3)
USUAL = ((0, 1), (-1, 1), (0, 255), (0, 65535))  # ranges that a message proposes, if the numbers fit
SLACK = 1e-3  # of a level, by which rounding in float32 may leave the range
ON_LEVEL = 0.1  # of a level: the rounding of float16 at levels of [-1, 1] is less
Limits = tuple[float, ...] | None


class Layout(NamedTuple):
    """The way from a file's numbers to pixels.

    limits: numbers that are black and white; None for uint8 as it is.
    """

    channels_first: bool
    limits: Limits

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Pixels, uint8 (n, h, w, c), of some of the file's images."""
        if self.limits is not None:
            images = np.clip(np.rint(levels(images, self.limits)), 0, 255).astype(np.uint8)
        if images.ndim == 3:
            return images[..., None]
        return np.moveaxis(images, 1, -1) if self.channels_first else images


class Arrays(Pictures):
    """The images of one NumPy file, in memory or mapped to the file, converted by `layout` when they are read.

    labels: int (n,) or None. captions: a text for each image, or None.
    """

    def __init__(
        self,
        path: Path,
        images: np.ndarray,
        labels: np.ndarray | None,
        layout: Layout,
        captions: Sequence[str] | None = None,
    ):
        self._path, self._images, self._labels, self._layout, self.captions = path, images, labels, layout, captions

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Sequence[int]) -> list[Stored]:
        labels = [None] * len(indices) if self._labels is None else [int(self._labels[i]) for i in indices]
        pixels = (self._layout.pixels(self._images[i : i + 1])[0] for i in indices)
        return [Stored(image, label) for image, label in zip(pixels, labels, strict=True)]

    def name(self, index: int) -> str:
        return f"image number {index} of {shown(self._path)}"

    def fingerprint(self) -> Any:
        checksum, shape = 0, ()
        for part in chunks(self._images):
            pixels = np.ascontiguousarray(self._layout.pixels(part))
            checksum, shape = zlib.crc32(pixels, checksum), pixels.shape[1:]
        labels = [] if self._labels is None else [np.asarray(self._labels, np.int64)]
        return [[len(self), *shape], checksum, hashed(None, *labels)]


def open_split(name: str, options: Any, *, train: bool) -> Pictures:
    """The training or evaluation images of the file `options.path`.

    Without a split for evaluation in the file, a hash of the images' numbers holds some out. Raises `UsageError` unless
    the file holds images. name: not used. options: see `loading.Options`.
    """
    check_range(options.array_range)
    path = _path(options.path)
    images, labels, captions, separate, unread = read_arrays(path, train)
    layout = Layout(_check_shape(path, images), options.array_range)
    notes = ("channels are the second axis",) * layout.channels_first + _check_numbers(path, images, layout.limits)
    labels = _check_labels(path, labels, len(images))
    texts = None if options.captions == "none" else _check_captions(path, captions, len(images))
    pictures = Arrays(path, images, labels, layout, texts)
    of_split = "held out" if options.held_out and not train else ""
    part = f"in {separate}" if separate else of_split
    notes += ("with captions",) * (texts is not None)
    pictures.report = SplitReport(part, "", dict.fromkeys(unread, 1), notes)
    if separate:
        return pictures
    numbers = [str(i) for i in range(len(pictures))]
    return Subset(pictures, held_out.side(numbers, options.held_out, train=train, source=str(path)))


def check_range(limits: Limits) -> None:
    """Raises `UsageError` unless the range is None, or two numbers of which the first is smaller."""
    if limits is not None and not (len(limits) == 2 and all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise UsageError(
            f"data.array_range={limits} must be two numbers, the smaller one first: those that are black and white, "
            "as -1,1."
        )


def levels(images: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    """Numbers on the scale on which `limits` are 0 and 255, float64."""
    low, high = limits
    return (np.asarray(images, np.float64) - low) * (255 / (high - low))


def chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images in parts, which are read from a mapped file one by one."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK]


def _path(path: str) -> Path:
    if not path:
        raise UsageError("data.dataset=array needs config.data.path=FILE, a .npy or .npz file of the images.")
    file = expanded(path)
    if not file.is_file() or file.suffix.lower() not in (".npy", ".npz"):
        raise UsageError(f"config.data.path={path} is no .npy or .npz file; give the one that holds the images.")
    return file


def read_arrays(path: Path, train: bool = True) -> Split:
    """The arrays of the split for training or evaluation, or of all images, in a file.

    A .npy is mapped, not read. Raises `UsageError` for a file that cannot be read, or has no images.
    """
    try:
        if path.suffix.lower() == ".npy":
            return Split(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as file:
            for splits in NAMES:
                present = [names for names in splits if names.images in file]
                if splits[0] in present:
                    images, labels, captions = present[0 if train else -1]
                    read = {name for names in present for name in names}
                    unread = [f"array {name}" for name in file if name not in read]
                    separate = images if len(present) == 2 else ""
                    return Split(file[images], file.get(labels), file.get(captions), separate, unread)
            others = ", ".join(file) or "none"
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}; look at its name.") from None
    except Exception as error:  # NumPy and zipfile raise various types for what is damaged, or holds objects
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"Cannot read {path} ({reason}); save it again with np.save or np.savez.") from error
    raise UsageError(
        f"{path} has no array 'images' or 'arr_0', but {others}; save the images under one of these names."
    )


def _check_shape(path: Path, images: np.ndarray) -> bool:
    """Whether the channels are the second axis. Raises `UsageError` for a shape that images do not have."""
    shape, where = images.shape, "(n, height, width) or (n, height, width, channels)"
    if images.ndim not in (3, 4) or 0 in shape:
        raise UsageError(f"{path} holds {images.dtype} of shape {shape}; images are uint8 of shape {where}.")
    if images.ndim == 3:
        if shape[-1] in CHANNELS:
            raise UsageError(
                f"{path} holds an array of shape {shape}, one image or many of width {shape[-1]}; save it with all "
                "four axes (n, height, width, channels)."
            )
        return False
    first, last = shape[1] in CHANNELS, shape[3] in (1, 2, 3, 4)
    if first and last:
        raise UsageError(
            f"{path} holds an array of shape {shape}, whose channels may be the second axis or the last; pad the "
            "images to a height and width above 4."
        )
    if not (first or last):
        raise UsageError(
            f"{path} holds images in other colours than grey and RGB, as an array of shape {shape}; save 1 or 3 "
            f"channels, as {where}."
        )
    return first


def _check_numbers(path: Path, images: np.ndarray, limits: Limits) -> tuple[str, ...]:
    """A note on how the numbers become levels, if they do. Raises `UsageError` for numbers that cannot."""
    kind = images.dtype
    if limits is None and kind == np.uint8:
        return ()
    if not (np.issubdtype(kind, np.bool_) or np.issubdtype(kind, np.integer) or np.issubdtype(kind, np.floating)):
        raise UsageError(f"{path} holds {kind} of shape {images.shape}; images are uint8, or other real numbers.")
    least, most, strange, outside, off = math.inf, -math.inf, 0, 0, 0.0
    for part in chunks(images):
        finite = np.isfinite(part)
        strange += part.size - np.count_nonzero(finite)
        numbers = part if finite.all() else part[finite]
        if numbers.size:
            least, most = min(least, numbers.min().item()), max(most, numbers.max().item())
        if limits is not None and numbers.size:
            on_scale = levels(numbers, limits)
            outside += np.count_nonzero((on_scale < -SLACK) | (on_scale > 255 + SLACK))
            off = max(off, float(np.abs(on_scale - np.rint(on_scale)).max()))
    if strange:
        raise UsageError(f"{path} has {strange:,} numbers that are NaN or infinite; put finite ones in their place.")
    fits = _range_around(least, most)
    if limits is None:
        raise UsageError(
            f"{path} holds {kind} of shape {images.shape}, from {least:g} to {most:g}, and no uint8; set "
            f"config.data.array_range={fits}, the numbers that are black and white, to have them as 256 levels."
        )
    if outside:
        raise UsageError(
            f"{path} has {outside:,} numbers outside of data.array_range={limits}: they are from {least:g} to "
            f"{most:g}; set config.data.array_range={fits}."
        )
    rounded = f", rounded by at most {off:.2f} of a level" if off > ON_LEVEL else ""
    return (f"{kind} from {limits[0]:g} to {limits[1]:g} as 256 levels{rounded}",)


def _range_around(least: float, most: float) -> str:
    """The smallest of the usual ranges that holds these numbers, as a key has it; else the numbers themselves."""
    fitting = [limits for limits in USUAL if limits[0] <= least and most <= limits[1]]
    low, high = fitting[0] if fitting else (least, most if most > least else least + max(1.0, abs(least)))
    return f"{low!r},{high!r}"


def _check_labels(path: Path, labels: np.ndarray | None, n: int) -> np.ndarray | None:
    """The labels, (n,); a second axis of length 1 is left out. Raises `UsageError` for others."""
    if labels is None:
        return None
    if labels.shape == (n, 1):
        labels = labels[:, 0]
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"The labels of {path} are {labels.dtype} of shape {labels.shape}; they must be integers, one for each of "
            f"the {n} images."
        )
    return labels


def _check_captions(path: Path, captions: np.ndarray | None, n: int) -> list[str] | None:
    """The captions as a list; bytes are UTF-8. Raises `UsageError` unless they are n texts."""
    if captions is None:
        return None
    if captions.shape != (n,) or captions.dtype.kind not in "US":
        raise UsageError(
            f"The captions of {path} are {captions.dtype} of shape {captions.shape}; they must be texts, one for each "
            f"of the {n} images: save them as np.array(captions), or set {NO_CAPTIONS}."
        )
    texts = captions.tolist()
    try:
        return [text.decode() for text in texts] if captions.dtype.kind == "S" else texts
    except UnicodeDecodeError as error:
        raise not_utf8(f"An array of captions in {path}", error) from error
