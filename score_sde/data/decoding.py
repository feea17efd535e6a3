"""Decoding: from a file's bytes to pixels of one height and width, by colour conversion, cropping and resizing."""

import contextlib
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImagePalette, UnidentifiedImageError, features

from score_sde.errors import UsageError, moved_names

# The image formats that are opened, with their suffixes. Pillow can be built without AVIF.
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
MAX_PIXELS = 2**26  # in one image: 8192x8192, 192 MiB in colour
KINDS = {1: "greyscale", 2: "greyscale with transparency", 3: "RGB", 4: "RGB with transparency"}
MODES = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # Pillow's modes: their channels of 8 bits
DEEP = {"I;16": 1, "I;16L": 1, "I;16B": 1, "I": 1}  # channels of 16 bits
ORIENTATION = 0x0112  # EXIF's tag
ADVICE = "prepare the data set again without it, or leave it out with config.data.corrupt=skip"


class UnreadableError(UsageError):
    """Error for a single image that is damaged, of another format, or too large."""


@dataclasses.dataclass(frozen=True)
class Form:
    """The form that every picture is converted to: uint8 `shape`, (image_size, image_width, num_channels).

    image_width: None for squares. crop, filter: see `datasets.Dataset`. convert: whether pictures of other colours are
    converted, not refused. upright: whether pictures are turned as their EXIF orientation says, which TFDS and the
    paper's code do not do.
    """

    image_size: int
    num_channels: int
    crop: int | None = None
    filter: Image.Resampling = Image.Resampling.BILINEAR
    convert: bool = False
    upright: bool = False
    image_width: int | None = dataclasses.field(default=None, repr=False)

    def __str__(self) -> str:
        """The form as digests of data contain it; a square's has no width, so that older digests stay."""
        return repr(self) if self.image_width is None else f"{self!r} {self.image_width} wide"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_width or self.image_size, self.num_channels

    def render(self, content: Any, name: str, advice: str = ADVICE) -> np.ndarray:
        """The picture in this form; raises as `decode` does.

        content: a path, an encoded file, or pixels, uint8 (h, w, c). name: name of the picture in messages.
        """
        options = dict(channels=self.num_channels, convert=self.convert)
        if isinstance(content, np.ndarray):
            image = _recoloured(content, name, **options)
        else:
            image = decode(content, name, advice, upright=self.upright, **options)
        return resize(cropped(image, self.shape[:2], self.crop), self.shape[:2], self.filter)

    def check_header(self, content: Any, name: str, advice: str = ADVICE) -> None:
        """Raises those errors of `render` that the header of a file, or of one at a path, already shows."""
        with named(name, advice), _opened(content) as file:
            pixel_format = _channels(file, self.num_channels)
        _check_channels(pixel_format, name, self.num_channels, self.convert)


def decode(
    encoded: Any,
    name: str = "an image",
    advice: str = ADVICE,
    *,
    channels: int | None = None,
    convert: bool = False,
    upright: bool = False,
) -> np.ndarray:
    """Decodes a file of one of `FORMATS`, bytes or a path, as uint8 (h, w, c); palettes and single bits are looked up.

    channels: the required number; other images are refused, or with `convert` converted: transparent images are laid
    over white, 16 bits are cut to 8, grey becomes RGB, or RGB grey (ITU-R 601-2 luma). Default: as stored.

    Raises `UnreadableError` with this `name` when the file is damaged, of another format, of several frames, or of more
    than `MAX_PIXELS` pixels, before any is decoded. Raises `UsageError` for other channels.
    """
    with named(name, advice), _opened(encoded) as file:
        pixel_format = _channels(file, channels)
        plain = channels is None or pixel_format == (channels, 8)
        if not plain:
            _check_channels(pixel_format, name, channels, convert)
        file.load()
        image = _upright(file) if upright else file
        pixels = np.asarray(_plain(image, pixel_format[0]) if plain else _converted(image, channels))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@contextlib.contextmanager
def named(name: str, advice: str):
    """Turns the various errors that Pillow raises into an `UnreadableError` that names the picture."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = _other_format() if isinstance(error, UnidentifiedImageError) else error
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise UnreadableError(f"Cannot read {name} ({reason}); {advice}.") from error


def _other_format() -> str:
    lacking = "" if "AVIF" in FORMATS else ", and AVIF only with another Pillow: pip install --upgrade pillow"
    return f"none of {', '.join(FORMATS)}{lacking}"


def _opened(encoded: Any) -> Image.Image:
    """Opens an image and reads its header."""
    file = Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS)
    if file.width * file.height > MAX_PIXELS:
        file.close()
        raise ValueError(f"{file.width}x{file.height} pixels are more than {MAX_PIXELS}")
    # An animation has no single picture. A camera's JPEG with several frames (MPO) has its picture first.
    if getattr(file, "is_animated", False) and file.format != "MPO":
        file.close()
        raise ValueError("it has several frames")
    if file.mode == "F" or (file.format == "TIFF" and (file.mode == "I" or "I;12" in _packing(file))):
        file.close()
        raise ValueError("its numbers are not of 8 or 16 bits")  # so black and white among them are not known
    return file


def _channels(file: Image.Image, required: int | None) -> tuple[int, int]:
    """(channels, bits per channel) by the header; (0, 8) for colours other than grey and RGB, such as CMYK."""
    if file.mode == "P":
        if file.has_transparency_data and not _opaque(file.info.get("transparency")):
            return 4, 8
        return (1 if required == 1 and _is_grey(file.palette) else 3), 8
    deep = file.mode in DEEP or any(order.endswith((";16", ";16B", ";16L", ";16N")) for order in _packing(file))
    return MODES.get(file.mode) or DEEP.get(file.mode, 0), 16 if deep else 8


def _packing(file: Image.Image) -> set[str]:
    """Pillow's names for the order of numbers in the file, such as RGB;16B.

    BMP's BGR;16, which has five or six bits for each number, is left out.
    """
    orders = {tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in file.tile if tile[3]}
    return {str(order) for order in orders if order != "BGR;16"}


def _is_grey(palette: ImagePalette.ImagePalette) -> bool:
    """Whether each colour of a palette has equal red, green and blue.

    They are stored as RGB, BGRX, or RGB;L (planes).
    """
    order, stored = palette.getdata()
    table = np.frombuffer(stored, np.uint8)
    table = table.reshape(3, -1).T if order.endswith(";L") else table.reshape(-1, len(order))[:, :3]
    return bool((table == table[:, :1]).all())


def _opaque(transparency: Any) -> bool:
    """Whether a palette's alpha, one byte for each entry, is 255 everywhere."""
    return isinstance(transparency, bytes) and set(transparency) <= {255}


def _check_channels(pixel_format: tuple[int, int], name: str, required: int, convert: bool) -> None:
    channels, bits = pixel_format
    if pixel_format == (required, 8) or (convert and required in (1, 3)):
        return
    kind = f"{KINDS[channels]} of {bits} bits, {channels} channel(s)" if channels in KINDS else "in other colours"
    ways = ["config.data.convert=True to convert such images"] if required in (1, 3) else []
    if channels in (1, 3) and bits == 8:
        ways.append(f"config.data.num_channels={channels} if all are so")
    advice = ", or ".join(ways) or "config.data.num_channels=3 and config.data.convert=True"
    raise UsageError(
        f"{name[:1].upper()}{name[1:]} is {kind}, where {KINDS.get(required, required)} of 8 bits is required; set "
        f"{advice}."
    )


def _upright(file: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # invalid EXIF counts as none
        if file.getexif().get(ORIENTATION, 1) != 1:
            return ImageOps.exif_transpose(file)
    return file


def _plain(file: Image.Image, channels: int) -> Image.Image:
    """The image without palette and without single bits."""
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


def _recoloured(pixels: np.ndarray, name: str, channels: int, convert: bool) -> np.ndarray:
    """Pixels (h, w, c) with the wanted number of channels, converted as by `decode`."""
    if pixels.shape[-1] == channels:
        return pixels
    if pixels.shape[-1] not in KINDS:
        raise UsageError(f"{name[:1].upper()}{name[1:]} has {pixels.shape[-1]} channels; leave it out, or save 1 or 3.")
    _check_channels((pixels.shape[-1], 8), name, channels, convert)
    image = np.asarray(_converted(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), channels))
    return image if image.ndim == 3 else image[..., None]


def cropped(image: np.ndarray, size: tuple[int, int], side: int | None = None) -> np.ndarray:
    """The largest central part with the proportions of `size`, (height, width).

    side: the most pixels of its shorter side; None: all that there are.
    """
    scale = min(of_image / of_part for of_image, of_part in zip(image.shape[:2], size, strict=True))
    scale = min(scale, side / min(size)) if side else scale
    height, width = (max(1, round(scale * of_part)) for of_part in size)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def resize(
    image: np.ndarray, size: tuple[int, int], filter: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """The image as uint8 (height, width, c) of this size, antialiased."""
    if image.shape[:2] == tuple(size):
        return image
    of_pillow = size[::-1]
    if image.shape[-1] == 3:  # the same as each channel separately, but quicker
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(of_pillow, filter))
    planes = [Image.fromarray(plane).resize(of_pillow, filter) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


__getattr__ = moved_names(__name__, {"square": "score_sde.data.decoding.cropped"})
