"""The spread of a data set's pixels: their mean and standard deviation, which EDM's recipes are told as sigma_data."""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import UInt8
from score_sde.config.arguments import check_arguments
from score_sde.data.batches import part_of
from score_sde.data.sources import Source
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

CHUNK = 1024  # images that are read at once
LEVELS = np.arange(256)


class Spread(NamedTuple):
    """Mean and standard deviation of all numbers of all pixels, for black 0 and white 1; and the number of images."""

    mean: float
    std: float
    images: int


@check_arguments
def spread(source: Source, most: Annotated[int, "[1, inf)"] | None = None) -> Spread:
    """The spread of the pixels of all images, or of `most` of them (`part_of`).

    Counts of the 256 levels are added as integers, so that the numbers are the same on every launch and machine. Raises
    `UsageError` for images that are all of one colour, which no network can learn.

        import numpy as np
        from score_sde.data import InMemory, spread

        black_and_white = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
        mean, std, images = spread(InMemory(black_and_white))  # 0.5, 0.5, 2
    """
    part = part_of(len(source), most)
    counts = np.zeros(256, np.int64)
    for pixels in _chunks(source, part):
        if pixels.dtype != np.uint8:
            raise UsageError("The standard deviation is of pixels of 256 levels, and these images are other numbers.")
        counts += np.bincount(pixels.reshape(-1), minlength=256)
    n, total, squares = (int((counts * LEVELS**power).sum()) for power in (0, 1, 2))
    variance = n * squares - total * total  # of n times the levels; exact, as Python's integers are
    if variance == 0:
        raise UsageError("All pixels of these images have one value, so that they have no standard deviation.")
    return Spread(total / n / 255, variance**0.5 / n / 255, len(part))


def _chunks(source: Source, part: np.ndarray) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
    with bar("standard deviation", len(part), "img") as progress:
        for first in range(0, len(part), CHUNK):
            indices = part[first : first + CHUNK]
            yield source.take(indices).images
            progress.update(len(indices))
