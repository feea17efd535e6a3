"""From a file's bytes to the pixels of a square: decoding, colour, cropping, resizing."""

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImagePalette, UnidentifiedImageError, features

from score_sde.errors import UsageError

# Those that are opened, with the suffixes that their files have. Pillow can be built without AVIF.
SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
FORMATS = tuple(name for name in SUFFIXES if name != "AVIF" or features.check("avif"))
MAX_PIXELS = 2**26  # of one image: 8192x8192, 192 MiB in colour
KINDS = {1: "greyscale", 2: "greyscale with transparency", 3: "RGB", 4: "RGB with transparency"}
MODES = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # of Pillow: channels of 8 bits
DEEP = {"I;16": 1, "I;16L": 1, "I;16B": 1, "I": 1}  # channels of 16 bits
ORIENTATION = 0x0112  # EXIF's tag
ADVICE = "prepare the data set again without it, or leave it out with config.data.corrupt=skip"


class UnreadableError(UsageError):
    """Of one image: damaged, of another format, or too large."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What every picture is made into: uint8 (image_size, image_size, num_channels).

    crop, filter: see `datasets.Dataset`. convert: pictures of other colours are converted, not refused. upright: they
    are turned as their EXIF orientation says, which TFDS and the paper's code do not.
    """

    image_size: int
    num_channels: int
    crop: int | None = None
    filter: Image.Resampling = Image.Resampling.BILINEAR
    convert: bool = False
    upright: bool = False

    def render(self, content: Any, what: str, advice: str = ADVICE) -> np.ndarray:
        """content: a path, an encoded file, or its pixels, uint8 (h, w, c). Raises as `decode`."""
        options = dict(channels=self.num_channels, convert=self.convert)
        if isinstance(content, np.ndarray):
            image = _recoloured(content, what, **options)
        else:
            image = decode(content, what, advice, upright=self.upright, **options)
        return resize(square(image, self.crop), self.image_size, self.filter)

    def check_header(self, path: Path, what: str, advice: str = ADVICE) -> None:
        """Raises what `render` would, as far as a file's header tells."""
        with _named(what, advice), _opened(path) as file:
            found = _channels(file, self.num_channels)
        _check_channels(found, what, self.num_channels, self.convert)


def decode(
    encoded: Any,
    what: str = "an image",
    advice: str = ADVICE,
    *,
    channels: int | None = None,
    convert: bool = False,
    upright: bool = False,
) -> np.ndarray:
    """A file of one of `FORMATS`, bytes or a path, as uint8 (h, w, c). Palettes and single bits are looked up.

    channels: how many there must be; other images are refused, or converted: transparency is laid over white, of 16
    bits the first 8 are kept, grey becomes RGB, or RGB grey (ITU-R 601-2 luma). Default: as they are stored.

    Raises `UnreadableError` naming `what` when the file is damaged, of another format, of several frames, or of more
    than `MAX_PIXELS` pixels; the header says how many, and none is decoded then. Raises `UsageError` for other
    channels.
    """
    with _named(what, advice), _opened(encoded) as file:
        found = _channels(file, channels)
        plain = channels is None or found == (channels, 8)
        if not plain:
            _check_channels(found, what, channels, convert)
        file.load()
        image = _upright(file) if upright else file
        pixels = np.asarray(_plain(image, found[0]) if plain else _converted(image, channels))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@contextlib.contextmanager
def _named(what: str, advice: str):
    """Pillow raises various types for what it cannot read."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = _other_format() if isinstance(error, UnidentifiedImageError) else error
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise UnreadableError(f"Cannot read {what} ({reason}); {advice}.") from error


def _other_format() -> str:
    lacking = "" if "AVIF" in FORMATS else ", and AVIF only with another Pillow: pip install --upgrade pillow"
    return f"none of {', '.join(FORMATS)}{lacking}"


def _opened(encoded: Any) -> Image.Image:
    """An image whose header has been read."""
    file = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS)
    if file.width * file.height > MAX_PIXELS:
        file.close()
        raise ValueError(f"{file.width}x{file.height} pixels are more than {MAX_PIXELS}")
    # Which of an animation's frames is meant, nobody knows. A camera's JPEG with more (MPO) has its picture first.
    if getattr(file, "is_animated", False) and file.format != "MPO":
        file.close()
        raise ValueError("it has several frames")
    if file.mode == "F" or (file.format == "TIFF" and (file.mode == "I" or "I;12" in _packing(file))):
        file.close()
        raise ValueError("its numbers are not of 8 or 16 bits")  # and what is black and white among them, unknown
    return file


def _channels(file: Image.Image, wanted: int | None) -> tuple[int, int]:
    """(channels, bits of each) by the header; (0, 8) if they are neither grey nor RGB, as of CMYK."""
    if file.mode == "P":
        if file.has_transparency_data and not _opaque(file.info.get("transparency")):
            return 4, 8
        return (1 if wanted == 1 and _is_grey(file.palette) else 3), 8
    deep = file.mode in DEEP or any(order.endswith((";16", ";16B", ";16L", ";16N")) for order in _packing(file))
    return MODES.get(file.mode) or DEEP.get(file.mode, 0), 16 if deep else 8


def _packing(file: Image.Image) -> set[str]:
    """How numbers lie in the file, as Pillow calls it, such as RGB;16B. BGR;16 of BMP is five or six bits for each."""
    found = {tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in file.tile if tile[3]}
    return {str(order) for order in found if order != "BGR;16"}


def _is_grey(palette: ImagePalette.ImagePalette) -> bool:
    """Whether red, green and blue are equal in each colour, which are stored as RGB, BGRX, or RGB;L: plane by plane."""
    order, stored = palette.getdata()
    table = np.frombuffer(stored, np.uint8)
    table = table.reshape(3, -1).T if order.endswith(";L") else table.reshape(-1, len(order))[:, :3]
    return bool((table == table[:, :1]).all())


def _opaque(transparency: Any) -> bool:
    """Whether a palette's alpha, one byte for each entry from the first, is 255 everywhere."""
    return isinstance(transparency, bytes) and set(transparency) <= {255}


def _check_channels(found: tuple[int, int], what: str, wanted: int, convert: bool) -> None:
    channels, bits = found
    if found == (wanted, 8) or (convert and wanted in (1, 3)):
        return
    kind = f"{KINDS[channels]} of {bits} bits, {channels} channel(s)" if channels in KINDS else "in other colours"
    other = f", or config.data.num_channels={channels}" if channels in (1, 3) and channels != wanted else ""
    raise UsageError(
        f"{what[:1].upper()}{what[1:]} is {kind}, where {KINDS.get(wanted, wanted)} of 8 bits is wanted; set "
        f"config.data.convert=True to convert such images{other}."
    )


def _upright(file: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # what is no EXIF is none
        if file.getexif().get(ORIENTATION, 1) != 1:
            return ImageOps.exif_transpose(file)
    return file


def _plain(file: Image.Image, channels: int) -> Image.Image:
    """Palettes and single bits looked up."""
    if file.mode == "P":
        table = file.convert("RGBA") if file.has_transparency_data else file  # else Pillow warns
        return table.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    return file.convert("L") if file.mode == "1" else file


def _converted(file: Image.Image, channels: int) -> Image.Image:
    if file.mode in DEEP:
        file = Image.fromarray((np.asarray(file).astype(np.int64) >> 8).astype(np.uint8))
    elif file.has_transparency_data:
        file = Image.alpha_composite(Image.new("RGBA", file.size, "white"), file.convert("RGBA"))
    return file.convert({1: "L", 3: "RGB"}[channels])


def _recoloured(pixels: np.ndarray, what: str, channels: int, convert: bool) -> np.ndarray:
    """Pixels (h, w, c) with so many channels, as `decode` gives them."""
    if pixels.shape[-1] == channels:
        return pixels
    _check_channels((pixels.shape[-1], 8), what, channels, convert and pixels.shape[-1] in KINDS)
    image = np.asarray(_converted(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), channels))
    return image if image.ndim == 3 else image[..., None]


def square(image: np.ndarray, side: int | None = None) -> np.ndarray:
    """The square of that side at the centre, at most and by default as large as the shorter side."""
    height, width = image.shape[:2]
    side = min(side or height, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: np.ndarray, size: int, filter: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """uint8 (h, w, c) to (size, size, c), antialiased."""
    if image.shape[:2] == (size, size):
        return image
    if image.shape[-1] == 3:  # each channel by itself, as below, and quicker
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size, size), filter))
    planes = [Image.fromarray(plane).resize((size, size), filter) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
