"""Images from which samples start instead of noise (SDEdit; Meng et al., 2022): `config.sampling.start`, or arrays."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Pixels, UInt8, UnitImages
from score_sde.data import arrays
from score_sde.data.decoding import Form
from score_sde.data.directory import Directory
from score_sde.errors import UsageError, shown
from score_sde.images import headed, to_pixels, to_unit
from score_sde.inference.snapshots import Snapshot
from score_sde.io.digest import digest
from score_sde.runtime.backend import expanded
from score_sde.runtime.sharding import is_traced

ROWS, SAMPLES = 12, 9  # the most in a sheet: rows, and samples of one start image
ADVICE = "give another picture as sampling.start"
AnyStart = Array | np.ndarray | str | Path | None  # one image for all samples, one for each, or a file of them
Images = UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]


class Starts(NamedTuple):
    """Images from which samples start: uint8, or floats in [0, 1]; and the digest of their content."""

    images: Images
    digest: str

    def take(self, numbers: np.ndarray) -> Float[np.ndarray, "b h w c"]:
        """The start images of the samples with these numbers, float32 in [0, 1]: in turn, from the first again."""
        chosen = self.images[numbers % len(self.images)]
        return chosen.astype(np.float32) / 255 if chosen.dtype == np.uint8 else chosen.astype(np.float32)


def sheet_of(starts: Starts, samples: Pixels, magnify: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """A sheet of start images, each beside its samples; a pixel is `magnify` wide. samples: the first, in order."""
    m = min(len(starts.images), len(samples))
    each = min(max(1, len(samples) // len(starts.images)), SAMPLES)
    beside = max(1, (1 + SAMPLES) // (1 + each))  # start images in a row
    begun = to_pixels(starts.take(np.arange(min(m, ROWS * beside))))
    tiles = [np.stack([start, *samples[i :: len(starts.images)][:each]]) for i, start in enumerate(begun)]
    return headed(np.concatenate(tiles), ["start", *["sample"] * each] * beside, magnify)


def configured_start(model: Snapshot) -> Starts | None:
    """The start images that config.sampling names, read now; None without any.

    Raises `UsageError` for files that are no images of the model's shape, and for a start time without images.
    """
    sampling = model.config.sampling
    if not sampling.start:
        check_start(sampling.start_time, started=False)
        return None

    images = read_images(sampling.start, model.image_shape)
    return Starts(images, digest(images))


def for_samples(start: AnyStart, n: int, image_shape: tuple[int, ...]) -> UnitImages:
    """The start images of n samples, of one image for all, one for each, or a file of some, which are taken in turn.

    start: uint8 or in [0, 1], or a path as for `read_images`. Raises `UsageError` for other images.
    """
    if isinstance(start, str | Path):
        start = read_images(start, image_shape)
        start = start[np.arange(n) % len(start)]
    start = jnp.asarray(start)
    start = start[None] if start.ndim == 3 else start
    if start.shape[1:] != tuple(image_shape) or len(start) not in (1, n):
        raise UsageError(
            f"The start images are of shape {start.shape}; give one of shape {tuple(image_shape)} for all samples, or "
            f"one for each of the {n}."
        )
    unit = to_unit(start) if start.dtype == jnp.uint8 else start.astype(jnp.float32)
    if not is_traced() and not bool(jnp.all((unit >= 0) & (unit <= 1))):
        raise UsageError("Start images must be uint8, or floats in [0, 1]; these leave that range or are NaN.")
    return jnp.broadcast_to(unit, (n, *image_shape))


def check_start(start_time: float, *, started: bool, observed: bool = False) -> None:
    """Raises `UsageError` for a start time without start images, and for start images beside an observation."""
    if start_time != 1 and not started:
        raise UsageError(
            f"sampling.start_time={start_time} begins at images with noise; give them as start=images, or on a command "
            "line --config.sampling.start=PATH, or leave sampling.start_time at 1."
        )
    if started and observed:
        raise UsageError(
            "Samples start from an image or are given an observation, not both; leave out sampling.start, or the "
            "observation in sampling.condition."
        )


def read_images(path: str | Path, image_shape: tuple[int, ...]) -> Images:
    """The images of a picture, a folder of pictures, or an .npy or .npz file, in the shape that a model takes.

    Pictures, and arrays uint8, are cropped to their central square and resized, as data are; floats are in [0, 1] and
    of the shape already. A folder's pictures come in the order of their paths. An .npz file has `images` or `arr_0`.
    Raises `UsageError` for other files.

        import numpy as np
        from score_sde.inference.start_images import read_images

        np.save("starts.npy", np.full((2, 16, 16, 3), 200, np.uint8))
        images = read_images("starts.npy", (8, 8, 1))  # uint8 (2, 8, 8, 1): smaller, and grey
    """
    (height, width, channels), file = image_shape, expanded(path)
    form = Form(height, channels, convert=True, upright=True, image_width=None if width == height else width)
    if file.suffix in (".npy", ".npz") and file.is_file():
        return _of_array(arrays.read_arrays(file)[0], shown(file), form)
    if file.is_dir():
        files = [file / entry.path for entry in Directory(file).listing.images]
    else:
        files = [file] if file.is_file() else []
    if not files:
        raise UsageError(
            f"sampling.start={path} {'has no pictures' if file.is_dir() else 'is no file'}; give a picture, a folder "
            "of pictures, or an .npy or .npz file."
        )
    return np.stack([form.render(each, shown(each), ADVICE) for each in files])


def _of_array(array: np.ndarray, name: str, form: Form) -> Images:
    array = array[None] if array.ndim == 3 else array
    if array.ndim == 4 and len(array) and array.dtype == np.uint8:
        return np.stack([form.render(image, f"image number {i} of {name}", ADVICE) for i, image in enumerate(array)])
    fits = array.ndim == 4 and len(array) and array.shape[1:] == form.shape and np.issubdtype(array.dtype, np.floating)
    if not fits or not np.all((array >= 0) & (array <= 1)):
        raise UsageError(
            f"{name} holds {array.dtype} of shape {array.shape}; start images are uint8 of shape (n, height, width, "
            f"channels), or floats in [0, 1] of shape (n, {', '.join(map(str, form.shape))})."
        )
    return array.astype(np.float32)
