"""Nearest neighbours among images or features, by the L2 distance.

Squared distances are |x|^2 - 2 x.y + |y|^2 in float64, block by block. Pixels are integers, so theirs are exact: adding
one constant image to all moves none, and equal distances are equal. Features are centred on their mean first, which
keeps small differences of large numbers, and the distances of neighbours are computed again as |x - y|.
"""

import functools
from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import Float, Integer, Real
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

BLOCK = 1024, 4096  # points whose distances are in memory at a time
DELAY = 3.0  # seconds before progress is shown

Points = Annotated[Real[np.ndarray, "n *_"], "[-1e100, 1e100]"]  # uint8 images (n, h, w, c), or features (n, d)
OtherPoints = Annotated[Real[np.ndarray, "m *_"], "[-1e100, 1e100]"]
Images = Annotated[Real[np.ndarray, "n h w c"], "[-1e100, 1e100]"]
OtherImages = Annotated[Real[np.ndarray, "m h w c"], "[-1e100, 1e100]"]
Rows = Float[np.ndarray, "n d"]


class Neighbours(NamedTuple):
    """The k nearest neighbours of n points, the nearest first, and of equally near ones that of the lower index."""

    indices: Annotated[Integer[np.ndarray, "n k"], "[0, inf)"]
    distances: Annotated[Float[np.ndarray, "n k"], "[0, inf)"]


@check_arguments
def nearest(
    x: Points,
    among: OtherPoints,
    k: Annotated[int, "[1, inf)"] = 1,
    *,
    without_itself: bool = False,
    progress: str = "nearest neighbours",
) -> Neighbours:
    """The k nearest of the points `among` to each point of x, with their L2 distances in float64.

    Args:
        x: uint8 images, whose distances are those of pixels in [0, 1], or features of any other type.
        among: points of the same type and shape.
        k: number of neighbours of each point.
        without_itself: whether x is `among`, and no point is its own neighbour. Its duplicates are.
        progress: words of the bar on stderr that a call of more than three seconds shows.

    Raises `UsageError` for points of two types or shapes, and where there are fewer than k neighbours.

        import numpy as np
        from score_sde.audit.neighbours import nearest

        of = nearest(np.array([[0.0], [5.0]]), np.array([[1.0], [3.0], [9.0]]), k=2)
        assert of.indices.tolist() == [[0, 1], [1, 0]] and of.distances.tolist() == [[1, 3], [2, 4]]
    """
    _check(x, among, k, without_itself)
    rows = Blocks(x, among)
    indices, distances = np.empty((len(x), k), np.int64), np.empty((len(x), k))
    with bar(progress, len(x), "img", delay=DELAY) as shown:
        for i in range(0, len(x), BLOCK[0]):
            part = _nearest_of_block(rows, i, k, without_itself)
            indices[i : i + BLOCK[0]], distances[i : i + BLOCK[0]] = part
            shown.update(len(part[0]))
    order = np.lexsort((indices, distances), axis=1)
    return Neighbours(*(np.take_along_axis(each, order, axis=1) for each in (indices, distances)))


@check_arguments
def aligned(images: Images, among: OtherImages) -> Images:
    """Images, each mirrored if its mirror image is nearer to one of the images `among` than it is itself.

    A model whose training mirrors images (`data.random_flip`) copies them in both orientations, and `nearest` sees one.
    For a test of which images are nearest, align with all of them alike. Raises `UsageError` as `nearest` does.

        import numpy as np
        from score_sde.audit.neighbours import aligned

        train = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
        assert (aligned(train[:, :, ::-1], train) == train).all()
    """
    mirrored = images[:, :, ::-1]
    nearer = nearest(mirrored, among).distances[:, 0] < nearest(images, among).distances[:, 0]
    return np.where(nearer[:, None, None, None], mirrored, images)


def identical(x: np.ndarray) -> Integer[np.ndarray, " n"]:
    """A number for each point, the same for identical ones; by sorting their bytes, as 0.0 is -0.0 after + 0."""
    rows = np.ascontiguousarray(x.reshape(len(x), -1) + np.zeros(1, x.dtype))
    return np.unique(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))), return_inverse=True)[1].reshape(-1)


def _check(x: np.ndarray, among: np.ndarray, k: int, without_itself: bool) -> None:
    if x.shape[1:] != among.shape[1:] or (x.dtype == np.uint8) != (among.dtype == np.uint8):
        of = f"{x.dtype} of shape {x.shape} and {among.dtype} of shape {among.shape}"
        raise UsageError(f"nearest: the points are {of}; give points of one type, and of one shape but the first axis.")
    if not x.size:
        raise UsageError(f"nearest: x has shape {x.shape}; give one point or more.")
    if without_itself and len(x) != len(among):
        raise UsageError(f"nearest: with without_itself x is `among`, and they have {len(x)} and {len(among)} points.")
    if k > len(among) - without_itself:
        raise UsageError(f"nearest: k={k} neighbours of {len(among)} points; give more points or a smaller k.")


class Blocks:
    """Distances between two sets of points, a block at a time."""

    def __init__(self, x: Points, y: OtherPoints):
        pixels = x.dtype == np.uint8
        self.unit = 255 if pixels else 1
        self.x, self.y = (each.reshape(len(each), -1) for each in (x, y))
        self._centre = np.zeros(1) if pixels else self.y.mean(axis=0, dtype=np.float64)

    @functools.cached_property
    def rounding(self) -> float:
        """A bound of the error of squared distances; 0 for pixels, whose products and sums are integers."""
        if self.unit != 1:
            return 0.0
        largest = max(
            float(np.square(each[i : i + BLOCK[1]] - self._centre).sum(axis=1).max())
            for each in (self.x, self.y)
            for i in range(0, len(each), BLOCK[1])
        )
        return 8 * self.x.shape[1] * np.finfo(np.float64).eps * largest

    def squares(self, i: int, j: int) -> Float[np.ndarray, "a b"]:
        """Squared distances of x[i], ... and y[j], ..., of pixels in 0..255; of features as accurate as |x|^2 is."""
        x, y = self.x[i : i + BLOCK[0]] - self._centre, self.y[j : j + BLOCK[1]] - self._centre
        result = (-2 * x) @ y.T
        result += np.einsum("ij,ij->i", x, x)[:, None]
        result += np.einsum("ij,ij->i", y, y)
        return np.maximum(result, 0, out=result)

    def distances(self, i: Integer[np.ndarray, " n"], j: Integer[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Distances of pairs of points, from their differences; of pixels in [0, 1]."""
        result = np.empty(len(i))
        for k in range(0, len(i), BLOCK[1]):
            pairs = slice(k, k + BLOCK[1])
            differences = self.x[i[pairs]].astype(np.float64) - self.y[j[pairs]]
            result[pairs] = np.sqrt(np.einsum("ij,ij->i", differences, differences)) / self.unit
        return result


def _nearest_of_block(of: Blocks, i: int, k: int, without_itself: bool) -> tuple[np.ndarray, np.ndarray]:
    n = len(of.x[i : i + BLOCK[0]])
    indices, squares = np.empty((n, 0), np.int64), np.empty((n, 0))
    for j in range(0, len(of.y), BLOCK[1]):
        block = of.squares(i, j)
        if without_itself:
            own = np.arange(i, i + n) - j
            inside = np.flatnonzero((own >= 0) & (own < block.shape[1]))
            block[inside, own[inside]] = np.inf
        best = _smallest(block, k)
        indices = np.concatenate([indices, best + j], axis=1)
        squares = np.concatenate([squares, np.take_along_axis(block, best, axis=1)], axis=1)
        best = _smallest(squares, k)
        indices, squares = (np.take_along_axis(each, best, axis=1) for each in (indices, squares))
    distances = of.distances(np.repeat(np.arange(i, i + n), k), indices.ravel())
    return indices, distances.reshape(n, k)


def _smallest(values: Rows, k: int) -> Integer[np.ndarray, "n k"]:
    """Columns of the k smallest values of each row, ascending; of equal values those of the lowest columns."""
    if k == 1:
        return values.argmin(axis=1)[:, None]
    if k >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    columns = np.argpartition(values, k - 1, axis=1)[:, :k]
    last = np.take_along_axis(values, columns, axis=1).max(axis=1, keepdims=True)
    tied = (values <= last).sum(axis=1) > k
    columns[tied] = np.argsort(values[tied], axis=1, kind="stable")[:, :k]
    columns.sort(axis=1)
    return columns
