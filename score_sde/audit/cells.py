"""The data-copying statistic over cells of the space: where a model copies, although elsewhere it misses.

    C_T  =  sum_i P_i z_i / sum_i P_i,                                                          (1)

where z_i is `c_t` within cell i, P_i is the share of held-out images that are in it, and the sums are over cells with
enough samples (Meehan et al., 2020, "A non-parametric test to detect data-copying in generative models"). A model that
copies in one cell and is far from all images in another can have a z of 0 over the whole space, and its z_i are far
below and far above 0. The cells are those of k-means on the training images.
"""

import warnings
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from scipy import stats
from scipy.cluster import vq

from score_sde.audit.exchangeability import Seed, TestPoints
from score_sde.audit.memorisation import FEWEST, c_t
from score_sde.audit.neighbours import OtherPoints, Points, nearest
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

ITERATIONS = 50


class SpaceCell(NamedTuple):
    """A cell of the space: numbers of its samples, held-out and training images, and z; None where they are too few."""

    samples: int
    test: int
    train: int
    z: float | None


class CellCopying(NamedTuple):
    """The data-copying statistic (1).

    z: C_T, below 0 for copies. p: the probability of such a value or a lower one by chance. least: that of the lowest
    z_i or a lower one in any cell, corrected for their number. cells: every cell, the most copied first.
    """

    z: float
    p: float
    least: float
    cells: tuple[SpaceCell, ...]


@check_arguments
def c_t_by_cell(
    samples: Points,
    test: TestPoints,
    train: OtherPoints,
    num_cells: Annotated[int, "[1, 1000]"] = 10,
    *,
    seed: Seed = 0,
) -> CellCopying:
    """The data-copying statistic C_T of Meehan et al. (2020), over cells of k-means on the training images.

    Within a cell, distances are to the nearest training image of the cell. Under the null, samples and held-out images
    are of one law; then the z_i are independent and nearly standard normal, and so is C_T but for its scale, which p
    counts. In features of a network that was trained on the training images, the null fails, as for `c_t`.

    Args:
        samples, test, train: samples, held-out and training images: uint8 images, or features.
        num_cells: number of cells; 1 is `c_t`.
        seed: of the training images that k-means++ begins with.

    Raises `UsageError` for points of two types or shapes, for more cells than training images, and where no cell has 20
    samples and 20 held-out images, which the normal law needs.

        import numpy as np
        from score_sde.audit import c_t_by_cell

        rng = np.random.default_rng(0)
        train, test = rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
        assert c_t_by_cell(train[:200], test, train, num_cells=4).z < -4
    """
    kinds = [f"{x.dtype} of shape {x.shape}" for x in (samples, test, train)]
    if len({(x.shape[1:], x.dtype == np.uint8) for x in (samples, test, train)}) > 1:
        raise UsageError(
            f"c_t_by_cell: samples, held-out and training images are {', '.join(kinds)}; give points of one type, and "
            "of one shape but the first axis."
        )
    if num_cells > len(train):
        raise UsageError(f"c_t_by_cell: {num_cells} cells of {len(train)} training images; ask for fewer cells.")
    assign = _partition(train, num_cells, seed)
    of_samples, of_test, of_train = map(assign, (samples, test, train))
    cells = [
        _cell(*(x[own == i] for x, own in ((samples, of_samples), (test, of_test), (train, of_train))))
        for i in range(num_cells)
    ]
    used = [(cell.z, cell.test) for cell in cells if cell.z is not None]
    if not used:
        raise UsageError(
            f"c_t_by_cell: none of {num_cells} cells has {FEWEST} samples and {FEWEST} held-out images; give more "
            "images or ask for fewer cells."
        )
    z, weights = np.array(used).T
    weights /= weights.sum()
    value = float(weights @ z)
    p = float(stats.norm.cdf(value / np.linalg.norm(weights)))
    least = float(-np.expm1(len(z) * stats.norm.logsf(z.min())))
    ranked = sorted(cells, key=lambda cell: (cell.z is None, cell.z or 0.0))
    return CellCopying(value, p, least, tuple(ranked))


def _partition(train: np.ndarray, num_cells: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function from points to the numbers of their cells."""

    def rows(x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1) - centre).astype(kind)

    kind = np.float32 if train.dtype == np.uint8 else np.float64
    centre = train.reshape(len(train), -1).mean(axis=0, dtype=np.float64)
    points = rows(train)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")  # it keeps its centre
        centres, _ = vq.kmeans2(points, num_cells, ITERATIONS, minit="++", seed=np.random.default_rng(seed))
    return lambda x: vq.vq(rows(x), centres)[0]


def _cell(samples: np.ndarray, test: np.ndarray, train: np.ndarray) -> SpaceCell:
    z = None
    if min(len(samples), len(test)) >= FEWEST and len(train):
        z = c_t(*(nearest(x, train).distances[:, 0] for x in (samples, test))).z
    return SpaceCell(len(samples), len(test), len(train), z)
