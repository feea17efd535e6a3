"""Pixels and model range: conversions, flips, dequantization, and pictures as PNG.

import jax
import jax.numpy as jnp
import numpy as np
from score_sde import images
from score_sde.randomness import sample_keys

pixels = jnp.zeros((12, 8, 8, 3), jnp.uint8)
x = images.to_unit(pixels)  # [0, 1]
x = images.dequantize(sample_keys(jax.random.key(0), np.arange(12)), x)  # uniform in each pixel's level
sheet = images.grid(images.to_pixels(x), columns=4)  # (32, 42, 3) with the lines between
"""

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from score_sde.array_types import Array, Float, Keys, ModelImages, Pixels, UInt8, UnitImages
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, shown
from score_sde.randomness import expand, uniform

Count = Annotated[int, "[1, 10000]"]
Magnification = Annotated[int, "[1, 1000]"]


class Scaling(NamedTuple):
    """The affine map scale x + shift from [0, 1] to the model's range.

    `CENTERED` and `UNIT` are the two that configs choose.

        import jax.numpy as jnp
        from score_sde.images import CENTERED

        x = CENTERED.to_model(jnp.full((1, 8, 8, 3), 0.5))  # 0.0, the middle of [-1, 1]
    """

    scale: Annotated[float, "(0, 1e9)"]
    shift: Annotated[float, "(-1e9, 1e9)"]

    @check_arguments
    def to_model(self, x: UnitImages) -> ModelImages:
        """Images in [0, 1] moved to model range."""
        return self.scale * x + self.shift

    @check_arguments
    def to_unit(self, x: ModelImages) -> UnitImages:
        """Images in model range moved to [0, 1]; samples may leave it."""
        return (x - self.shift) / self.scale

    @property
    def offset_bits(self) -> float:
        """Bits/dim from a density in model range to probabilities of 256 levels: a level is scale/256 wide there."""
        return math.log2(256 / self.scale)


CENTERED = Scaling(2.0, -1.0)  # [-1, 1]
UNIT = Scaling(1.0, 0.0)  # [0, 1]
COLUMNS = 20  # the most that have headings in a sheet of classes
LETTER = 6  # pixels of a letter in a heading
CAPTIONED, LINE, LINES = 112, 14, 6  # a captioned image is at least so wide; pixels of a line, and the most lines


@check_arguments
def to_unit(pixels: Pixels) -> UnitImages | Float[np.ndarray, "b h w c"]:
    """Pixels 0..255 as numbers in [0, 1]."""
    return pixels.astype(jnp.float32) / 255


@check_arguments
def random_flip(keys: Keys, x: UnitImages) -> UnitImages:
    """Mirrors each image left to right with probability 1/2."""
    return jnp.where(expand(uniform(keys) < 0.5, x), x[:, :, ::-1], x)


@check_arguments
def dequantize(keys: Keys, x: UnitImages) -> UnitImages:
    """(u + 255 x) / 256 with u ~ U[0, 1): spreads each of the 256 levels over its cell. x in [0, 1]."""
    return (uniform(keys, x.shape[1:]) + 255 * x) / 256


@check_arguments
def to_pixels(x: Float[Array, "..."] | Float[np.ndarray, "..."]) -> np.ndarray:
    """Numbers in [0, 1] as uint8, clipped and rounded down, as the paper's code does before computing metrics.

    NaN is black.
    """
    return np.asarray(np.nan_to_num(np.floor(np.clip(np.asarray(x), 0, 1) * 255)), np.uint8)


@check_arguments
def grid(pixels: Pixels, columns: Count | None = None, padding: Annotated[int, "[0, 1000]"] = 2) -> np.ndarray:
    """A sheet (H, W, 3) of all images, row by row, with `padding` black pixels between them; square by default."""
    pixels = np.asarray(pixels)
    n, h, w, c = pixels.shape
    if not pixels.size:
        raise UsageError(f"A sheet is of one or more images, and here are pixels of shape {pixels.shape}.")
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (h + padding) + padding, columns * (w + padding) + padding, 3), np.uint8)
    for i, image in enumerate(pixels):
        top, left = padding + (i // columns) * (h + padding), padding + (i % columns) * (w + padding)
        sheet[top : top + h, left : left + w] = image if c == 3 else image[..., :1]
    return sheet


@check_arguments
def magnification(pixels: Pixels) -> int:
    """Factor on a sheet, of images of which the longer side would be below 64 pixels."""
    return max(1, 64 // max(1, *pixels.shape[1:3]))


@check_arguments
def headed(pixels: Pixels, headings: Sequence[str], magnify: Magnification = 1) -> np.ndarray:
    """A sheet (H, W, 3) with a heading above each column; every pixel is `magnify` pixels wide."""
    sheet = grid(pixels, len(headings))
    sheet = np.repeat(np.repeat(sheet, magnify, axis=0), magnify, axis=1)
    band = Image.new("RGB", (sheet.shape[1], 16))
    draw, width = ImageDraw.Draw(band), (pixels.shape[2] + 2) * magnify
    for i, heading in enumerate(headings):
        draw.text((i * width + 2 * magnify, 2), heading, fill="white", font=ImageFont.load_default(size=11))
    return np.concatenate([np.asarray(band), sheet])


@check_arguments
def captioned(
    pixels: Pixels, captions: Sequence[str], columns: Count | None = None, magnify: Magnification | None = None
) -> np.ndarray:
    """A sheet (H, W, 3) of images with their captions, each beneath its image in as many lines as it needs, up to six.

    columns: default as many as rows. magnify: width of a pixel; default one at which the images have room for words.
    Letters are written without accents, which the font lacks. Raises `UsageError` for another number of captions than
    images.

        import numpy as np
        from score_sde import images

        sheet = images.captioned(np.zeros((2, 16, 16, 3), np.uint8), ["a red circle", "a blue star"], columns=2)
    """
    pixels = np.asarray(pixels)
    if len(pixels) != len(captions) or not len(captions):
        raise UsageError(f"There are {len(captions)} captions for {len(pixels)} images; give each of them one.")
    magnify = magnify or -(-CAPTIONED // pixels.shape[2])
    large = np.repeat(np.repeat(pixels, magnify, axis=1), magnify, axis=2)
    large = large if large.shape[3] == 3 else np.repeat(large[..., :1], 3, axis=3)
    width = large.shape[2]
    wrap = textwrap.TextWrapper(max(4, width // LETTER), max_lines=LINES, placeholder="...")
    wrapped = [wrap.wrap(_without_accents(caption)) for caption in captions]
    height = LINE * max(map(len, wrapped)) + 2
    tiles = [np.concatenate([image, _band(wrapped[i], width, height)]) for i, image in enumerate(large)]
    return grid(np.stack(tiles), columns)


def _without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def _band(lines: Sequence[str], width: int, height: int) -> np.ndarray:
    """A picture, uint8 (height, width, 3), of lines of text."""
    band = Image.new("RGB", (width, height))
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(size=11)
    for i, line in enumerate(lines):
        draw.text((1, 1 + i * LINE), line, fill="white", font=font)
    return np.asarray(band)


@check_arguments
def in_turn(pixels: Pixels, names: Sequence[str], magnify: Magnification = 1) -> np.ndarray:
    """A sheet (H, W, 3) of images of classes in turn, with a column and a heading for each; a square one without names.

    Where there are more classes than images, or than `COLUMNS`, the sheet is square, too.
    """
    if not 1 < len(names) <= min(len(pixels), COLUMNS):
        return np.repeat(np.repeat(grid(pixels), magnify, axis=0), magnify, axis=1)
    longest = max(1, (pixels.shape[2] + 2) * magnify // LETTER)
    return headed(pixels, [name[:longest] for name in names], magnify)


@check_arguments
def write_png(
    file: Path | BinaryIO | BytesIO,
    sheet: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W"],
    magnify: Magnification = 1,
) -> None:
    """Writes uint8 (H, W, 3) as a PNG to a path or an open file, every pixel `magnify` pixels wide.

    Raises `UsageError` for a file that cannot be written.
    """
    picture = Image.fromarray(sheet)
    picture = picture.resize((picture.width * magnify, picture.height * magnify), Image.Resampling.NEAREST)
    try:
        picture.save(file, format="png")
    except OSError as error:
        if not isinstance(file, Path):
            raise
        raise UsageError(f"The picture '{shown(file)}' cannot be written: {error.strerror}.") from None
