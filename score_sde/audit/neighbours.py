"""Nearest neighbours among images or features, by the L2 distance.

Squared distances are |x|^2 - 2 x.y + |y|^2 in float64, block by block. Pixels are integers, so theirs are exact: adding
one constant image to all moves none, and equal distances are equal. Features are centred on the mean first, which keeps
the differences of large numbers accurate, and the distances to the neighbours themselves are computed from x - y.
"""

from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import Float, Integer, Real
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

BLOCK = 1024, 4096  # images whose distances are in memory at a time
DELAY = 3.0  # seconds before progress is shown

Points = Annotated[Real[np.ndarray, "n *_"], "(-inf, inf)"]  # uint8 images (n, h, w, c), or features (n, d)
OtherPoints = Annotated[Real[np.ndarray, "m *_"], "(-inf, inf)"]


class Neighbours(NamedTuple):
    """The k nearest neighbours of n points, the nearest first, and the first of equally near ones first."""

    indices: Integer[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]


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
        x: uint8 images, whose distances are those of pixels in [0, 1], or features of any real type.
        among: points of the same type and shape.
        without_itself: whether x is `among`, and no point counts as its own neighbour. Its duplicates do count.
        progress: the words of a bar on stderr, which calls of more than some seconds show.

    Raises `UsageError` for points of two types or shapes, and for fewer than k neighbours.

        import numpy as np
        from score_sde.audit.neighbours import nearest

        of = nearest(np.array([[0.0], [5.0]]), np.array([[1.0], [3.0], [9.0]]), k=2)
        assert of.indices.tolist() == [[0, 1], [1, 0]] and of.distances.tolist() == [[1, 3], [2, 4]]
    """
    _check(x, among, k, without_itself)
    exact = x.dtype == np.uint8
    x, y = (each.reshape(len(each), -1) for each in (x, among))
    centre = np.zeros(1) if exact else y.mean(axis=0, dtype=np.float64)
    indices = np.empty((len(x), k), np.int64)
    squares = np.empty((len(x), k))
    with bar(progress, len(x), "img", delay=DELAY) as shown:
        for i in range(0, len(x), BLOCK[0]):
            rows = slice(i, i + BLOCK[0])
            indices[rows], squares[rows] = _nearest_of_block(
                x[rows] - centre, y, centre, k, i if without_itself else None
            )
            shown.update(len(x[rows]))
    if exact:
        return Neighbours(indices, np.sqrt(squares) / 255)
    return _measured(x, y, indices)


def _check(x: np.ndarray, among: np.ndarray, k: int, without_itself: bool) -> None:
    if x.shape[1:] != among.shape[1:] or (x.dtype == np.uint8) != (among.dtype == np.uint8):
        either = f"{x.dtype} of shape {x.shape} and {among.dtype} of shape {among.shape}"
        raise UsageError(
            f"nearest: the points are {either}; give points of one type, and of one shape but the first axis."
        )
    if without_itself and len(x) != len(among):
        raise UsageError(
            f"nearest: without_itself is for x as `among`, and they have {len(x)} and {len(among)} points."
        )
    if k > len(among) - without_itself:
        raise UsageError(f"nearest: k={k} neighbours of {len(among)} points; give more points or a smaller k.")


def _nearest_of_block(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray, k: int, first: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and squared distances of the k nearest to a block. first: the index in y of x[0], which is left out."""
    norms = (x**2).sum(axis=1)[:, None]
    indices, squares = np.empty((len(x), 0), np.int64), np.empty((len(x), 0))
    for j in range(0, len(y), BLOCK[1]):
        columns = y[j : j + BLOCK[1]] - centre
        of_block = x @ (-2 * columns).T
        of_block += (columns**2).sum(axis=1)
        of_block += norms
        if first is not None:
            own = np.arange(len(x)) + first - j
            inside = np.flatnonzero((own >= 0) & (own < len(columns)))
            of_block[inside, own[inside]] = np.inf
        best = _smallest(of_block, k)
        indices = np.concatenate([indices, best + j], axis=1)
        squares = np.concatenate([squares, np.take_along_axis(of_block, best, axis=1)], axis=1)
        best = _smallest(squares, k)
        indices, squares = (np.take_along_axis(each, best, axis=1) for each in (indices, squares))
    return indices, np.maximum(squares, 0)


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k smallest values of each row, in order; the first of equal ones first."""
    if k == 1:
        return values.argmin(axis=1)[:, None]
    if k < values.shape[1]:
        columns = np.argpartition(values, k - 1, axis=1)[:, :k]
        last = np.take_along_axis(values, columns, axis=1).max(axis=1, keepdims=True)
        tied = (values <= last).sum(axis=1) > k
        columns[tied] = np.argsort(values[tied], axis=1, kind="stable")[:, :k]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _measured(x: np.ndarray, y: np.ndarray, indices: np.ndarray) -> Neighbours:
    """Neighbours with distances from differences, put in their order."""
    distances = np.empty(indices.shape)
    for column, of_column in enumerate(indices.T):
        for i in range(0, len(x), BLOCK[1]):
            rows = slice(i, i + BLOCK[1])
            distances[rows, column] = np.linalg.norm(x[rows].astype(np.float64) - y[of_column[rows]], axis=1)
    order = np.lexsort((indices, distances), axis=1)
    return Neighbours(*(np.take_along_axis(each, order, axis=1) for each in (indices, distances)))
