"""Groups of images that are nearly the same: in a training set, or among many samples."""

from typing import Annotated

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from score_sde.array_types import Integer
from score_sde.audit.neighbours import BLOCK, DELAY, Blocks, Points, identical
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.runtime.progress import bar

ROUNDING = 1e-9  # relative, of a squared threshold; pairs so near to it are decided by their differences


@check_arguments
def near_duplicates(
    x: Points, threshold: Annotated[float, "[0, inf)"] = 0.0, *, progress: str = "near-duplicates"
) -> list[Integer[np.ndarray, " k"]]:
    """Groups of near-duplicates, as ascending indices: the largest first, and of equal ones that of the first image.

    Two points within the threshold are in one group, and so are two that are joined by a chain of such pairs.

    Args:
        x: uint8 images or features.
        threshold: the largest L2 distance of a pair, as of `nearest`: of pixels in [0, 1]. With 0 a group is of
            identical images.
        progress: words of the bar on stderr that a call of more than three seconds shows.

    Returns groups of two or more points. Raises `UsageError` for no points.

        import numpy as np
        from score_sde.audit.duplicates import near_duplicates

        groups = near_duplicates(np.array([[0.0], [5.0], [0.1], [0.2], [5.05]]), 0.1)
        assert [group.tolist() for group in groups] == [[0, 2, 3], [1, 4]]
    """
    if not x.size:
        raise UsageError(f"near_duplicates: x has shape {x.shape}; give one point or more.")
    if not threshold:
        return _groups(identical(x))
    of, group = Blocks(x, x), np.arange(len(x))
    with bar(progress, len(x), "img", delay=DELAY) as shown:
        for i in range(0, len(x), BLOCK[0]):
            for j in range(i - i % BLOCK[1], len(x), BLOCK[1]):
                group = _joined(group, *_pairs(of, i, j, threshold))
            shown.update(len(x[i : i + BLOCK[0]]))
    return _groups(group)


def _groups(group: Integer[np.ndarray, " n"]) -> list[Integer[np.ndarray, " k"]]:
    """The indices with each number that occurs more than once, the largest group first."""
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted((each for each in groups if len(each) > 1), key=lambda each: (-len(each), each[0]))


def _pairs(of: Blocks, i: int, j: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices (first, second) of the pairs of a block that are within the threshold."""
    squares, bound = of.squares(i, j), (threshold * of.unit) ** 2
    doubt = of.rounding + ROUNDING * bound
    first, second = np.nonzero(squares <= bound + doubt)
    sure = squares[first, second] < bound - doubt
    sure[~sure] = of.distances(first[~sure] + i, second[~sure] + j) <= threshold
    first, second = first[sure], second[sure]
    return first + i, second + j


def _joined(group: Integer[np.ndarray, " n"], first: np.ndarray, second: np.ndarray) -> Integer[np.ndarray, " n"]:
    """The groups after each pair has been joined."""
    if (group[first] == group[second]).all():
        return group
    n = len(group)
    graph = sparse.coo_array((np.ones(len(first), bool), (group[first], group[second])), (n, n))
    return csgraph.connected_components(graph, directed=False)[1][group]
