"""Cards: sheets of small images on white, enlarged without smoothing, with headings and labels that can be read.

A card is drawn twice as large as pages show it, so that its text is sharp on fine screens.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from score_sde.array_types import Pixels

WHITE, INK, GREY, BORDER = (255, 255, 255), (31, 35, 40), (89, 99, 110), (209, 217, 224)
TEXT, SMALL, LINE, MARGIN, GAP, SPACE = 24, 20, 30, 28, 6, 26
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


class Row(NamedTuple):
    """A row of a card: its images, uint8 (h, w, c), a bold label, lines below it, and the space above it."""

    images: Sequence[Pixels]
    label: str = ""
    detail: str = ""
    space: int = 0


class Card(NamedTuple):
    """Rows of images with headings.

    headings: text above the columns of these numbers. magnify: width of an image's pixel. label_width: pixels left of
    the images for labels. spaces: columns with more space before them. centred: whether a heading stands over the
    middle of its column, or begins at its left edge.
    """

    rows: Sequence[Row]
    headings: Mapping[int, str]
    magnify: int
    label_width: int = 0
    spaces: Sequence[int] = ()
    centred: bool = True

    def picture(self) -> Image.Image:
        """The card as a picture in colour."""
        height, width = (self.magnify * size for size in self.rows[0].images[0].shape[:2])
        left = [
            MARGIN + self.label_width + i * (width + GAP) + SPACE * sum(i >= space for space in self.spaces)
            for i in range(max(len(row.images) for row in self.rows))
        ]
        head = MARGIN + LINE * bool(self.headings)
        top = [head + i * (height + GAP) + sum(row.space for row in self.rows[: i + 1]) for i in range(len(self.rows))]
        canvas = Image.new("RGB", (left[-1] + width + MARGIN, top[-1] + height + MARGIN), WHITE)
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=BORDER, width=2)
        for column, text in self.headings.items():
            x = left[column] + (width // 2 if self.centred else 0)
            draw.text((x, head + self.rows[0].space - 10), text, INK, font(TEXT), "ms" if self.centred else "ls")
        for y, row in zip(top, self.rows, strict=True):
            middle = y + height // 2
            draw.text((MARGIN, middle - (15 if row.detail else 0)), row.label, INK, font(TEXT, bold=True), "lm")
            draw.multiline_text((MARGIN, middle + (5 if row.label else -12)), row.detail, GREY, font(SMALL), spacing=5)
            for x, image in zip(left, row.images, strict=False):
                canvas.paste(enlarged(image, self.magnify), (x, y))
        return canvas


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of matplotlib, which every installation has."""
    return ImageFont.truetype(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


def enlarged(image: Pixels, magnify: int) -> Image.Image:
    """The image, uint8 (h, w, c), in colour, each pixel `magnify` pixels wide."""
    colour = np.broadcast_to(image, (*image.shape[:2], 3))
    return Image.fromarray(np.ascontiguousarray(colour)).resize(
        (magnify * image.shape[1], magnify * image.shape[0]), Image.Resampling.NEAREST
    )


def png(picture: Image.Image, colours: int | None = None) -> bytes:
    """The picture as a PNG without metadata. colours: reduces it to a palette of so many, as plots and pages allow."""
    file = BytesIO()
    (picture.quantize(colours) if colours else picture).save(file, "png", optimize=True)
    return file.getvalue()
