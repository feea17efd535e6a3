"""The extent of a data set: the largest distance of two of its images, which `sde.sigma_max` should be about.

Song and Ermon (2020), "Improved techniques for training score-based generative models", technique 1: with noise of this
standard deviation, a chain of Langevin dynamics can go from any image to any other.
"""

from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import UInt8
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

BLOCK = 2048  # images whose distances to as many others are computed at once


class Extent(NamedTuple):
    """The largest distance of two images, the indices of these two, and the number of pairs that were compared."""

    distance: float
    pair: tuple[int, int]
    pairs: int


@check_arguments
def extent(pixels: UInt8[np.ndarray, "n h w c"], width: Annotated[float, "(0, inf)"] = 1.0) -> Extent:
    """The largest Euclidean distance of two images, over all pairs, which are compared in blocks.

    pixels: at least two images. width: of the range that 0 to 255 become: 2 for [-1, 1] and 1 for [0, 1], as
    config.data.centered says. The cost is n^2 h w c multiplications. Raises `UsageError` for fewer than two images.

        import numpy as np
        from score_sde.data import extent

        black_and_white = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
        distance, pair, pairs = extent(black_and_white)  # sqrt(192), (0, 1), 1
    """
    n = len(pixels)
    if n < 2:
        raise UsageError(f"A largest distance is of two images, and there is {n}; give two or more.")
    flat, best, pair = np.asarray(pixels).reshape(n, -1), -1, (0, 1)
    blocks = [(i, j) for i in range(0, n, BLOCK) for j in range(i, n, BLOCK)]
    with bar("distances", len(blocks), "block") as progress:
        for i, j in blocks:
            first, second = (flat[start : start + BLOCK].astype(np.float32) - 127.5 for start in (i, j))
            squares = [np.einsum("ij,ij->i", rows, rows) for rows in (first, second)]
            distances = squares[0][:, None] + squares[1] - 2 * first @ second.T
            a, b = np.unravel_index(np.argmax(distances), distances.shape)
            exact = int(np.sum(np.square(flat[i + a].astype(np.int64) - flat[j + b])))  # not rounded, as products are
            if exact > best:
                best, pair = exact, (int(i + a), int(j + b))
            progress.update(1)
    return Extent(width * np.sqrt(best) / 255, pair, n * (n - 1) // 2)
