"""Memorisation: how many samples are copies of training images.

| figure     | a sample is memorised if                                                | source                |
|------------|-------------------------------------------------------------------------|-----------------------|
| `gu_ratio` | d1 / d2 < 1/3                                                           | Gu et al. (2023)      |
| `carlini`  | d1 < alpha * mean of d1, ..., d50, with alpha = 1/2                     | Carlini et al. (2023) |
| `auth_pct` | d1 is at most the distance of that training image to its own nearest    | Alaa et al. (2022)    |

d1 <= d2 <= ... are L2 distances of the sample to its nearest training images, of pixels or of features, as of
`neighbours.nearest`. `c_t` (Meehan et al., 2020) tests the distances d1 against those of held-out images, and
`exchangeability` has another test.

Of a training image that is there twice, nearly the same, d1 and d2 are both small, so that `gu_ratio` misses its
copies: look at `duplicates.near_duplicates` of the training set first.
"""

from typing import Annotated, NamedTuple

import numpy as np
from scipy import stats

from score_sde.array_types import Bool, Float
from score_sde.audit.intervals import Interval, Level, share
from score_sde.audit.neighbours import Neighbours
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

FEWEST = 20  # samples, and held-out images, of a normal approximation

Distances = Annotated[Float[np.ndarray, " n"], "[0, inf)"]
OtherDistances = Annotated[Float[np.ndarray, " m"], "[0, inf)"]


class Memorised(NamedTuple):
    """A published figure of n samples, which of them are memorised, and by how much.

    share: the figure, with its interval over samples of the same model and training set. mask: whether each sample is
    memorised. ratio: the two sides of the criterion divided, smallest for the most suspicious samples.
    """

    share: Interval
    mask: Bool[np.ndarray, " n"]
    ratio: Float[np.ndarray, " n"]


@check_arguments
def gu_ratio(to_train: Neighbours, threshold: Annotated[float, "(0, 1]"] = 1 / 3, level: Level = 0.95) -> Memorised:
    """The share of samples that are memorised by the ratio of Gu et al. (2023), d1 / d2 < threshold.

    Args:
        to_train: the two nearest training images of each sample, or more.
        threshold: 1/3 in the paper, and with L2 distances of pixels.
        level: of confidence.

    An exact copy has ratio 0, also of an image that the training set has twice. Raises `UsageError` if there is only
    one neighbour of each sample.

        import numpy as np
        from score_sde.audit import gu_ratio, nearest

        train = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
        assert gu_ratio(nearest(train[:20] // 8 * 8, train, k=2)).share.value == 1
    """
    d = _first(to_train, 2, "gu_ratio")
    return _below(_ratio(d[:, 0], d[:, 1]), threshold, level)


@check_arguments
def carlini(
    to_train: Neighbours,
    n: Annotated[int, "[2, inf)"] = 50,
    alpha: Annotated[float, "(0, inf)"] = 0.5,
    level: Level = 0.95,
) -> Memorised:
    """The share of samples that are memorised by the criterion of Carlini et al. (2023), d1 / (alpha mean d) < 1.

    The mean is over d1, ..., dn: over the training images that are nearest to the sample, not to a training image.

    Args:
        to_train: the n nearest training images of each sample, or more.
        n: how many of them are in the mean, 50 in the paper.
        alpha: 0.5 in the paper.
        level: of confidence.

    Raises `UsageError` for fewer than n neighbours.

        import numpy as np
        from score_sde.audit import carlini, nearest

        train = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
        assert carlini(nearest(train[:20] // 8 * 8, train, k=50)).share.value == 1
    """
    d = _first(to_train, n, "carlini", ", or give carlini a smaller n")
    return _below(_ratio(d[:, 0], alpha * d.mean(axis=1)), 1.0, level)


@check_arguments
def auth_pct(to_train: Neighbours, of_train: OtherDistances, level: Level = 0.95) -> Memorised:
    """The share of samples that are authentic, AuthPct of Alaa et al. (2022); the others are the memorised ones.

    A sample is authentic if it is further from its nearest training image than that image is from its own nearest one.
    Samples of the training images' own law have a share below 1, in few dimensions near 1/2: compare it with that of
    held-out images.

    Args:
        to_train: the nearest training image of each sample.
        of_train: the distance of each training image to its own nearest one, which is
            `nearest(train, train, without_itself=True).distances[:, 0]`.
        level: of confidence.

    Raises `UsageError` if `of_train` lacks the neighbour of a sample.

        import numpy as np
        from score_sde.audit import auth_pct, nearest

        train = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
        own = nearest(train, train, without_itself=True).distances[:, 0]
        assert auth_pct(nearest(train[:20] // 8 * 8, train), own).share.value == 0
    """
    d = _first(to_train, 1, "auth_pct")[:, 0]
    last = to_train.indices[:, 0].max()
    if last >= len(of_train):
        raise UsageError(
            f"auth_pct: to_train names image {last}, and of_train is of {len(of_train)} images; "
            "give the distances of all training images."
        )
    ratio = _ratio(d, of_train[to_train.indices[:, 0]])
    mask = ratio <= 1
    return Memorised(share(int((~mask).sum()), len(mask), level), mask, ratio)


class Copying(NamedTuple):
    """The test of Meehan et al. (2020).

    z: C_T, standard normal under the null; below 0 if samples are nearer to the training set than held-out images are,
    as copies are, above 0 if they are further away, as of a model that underfits. p: the probability of such a z or a
    lower one by chance. nearer: the probability that a sample is nearer than a held-out image, 1/2 under the null.
    """

    z: float
    p: float
    nearer: float


@check_arguments
def c_t(of_samples: Distances, of_test: OtherDistances) -> Copying:
    """The data-copying statistic C_T: the Mann-Whitney U of two sets of distances to the training set, as a z.

    The null is that samples and held-out images are of one law. Equal distances count by halves, and the variance is
    corrected for them. The paper also has a version that adds up the z of cells of the space; this is that of one cell.

    Args:
        of_samples: distances of samples to their nearest training images.
        of_test: those of held-out images.

    Raises `UsageError` for fewer than 20 of either, for which the normal law is no approximation.

        import numpy as np
        from score_sde.audit import c_t

        assert c_t(np.linspace(0, 1, 30), np.linspace(1, 2, 40)).z < -6
    """
    n, m = len(of_samples), len(of_test)
    if min(n, m) < FEWEST:
        raise UsageError(f"c_t: {n} samples and {m} held-out images; give {FEWEST} or more of each.")
    both = np.concatenate([of_samples, of_test])
    u = stats.rankdata(both)[:n].sum() - n * (n + 1) / 2  # pairs in which the sample is further, equal ones by halves
    ties = np.unique(both, return_counts=True)[1].astype(float)
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    z = float((u - n * m / 2) / np.sqrt(variance)) if variance > 0 else 0.0
    return Copying(z, float(stats.norm.cdf(z)), float(1 - u / (n * m)))


def _first(of: Neighbours, k: int, name: str, remedy: str = "") -> Float[np.ndarray, "n k"]:
    """The distances to the first k neighbours."""
    n, there = of.distances.shape
    if not n or there < k:
        raise UsageError(
            f"{name} needs {k} neighbours of one image or more, and there are {there} of {n}; "
            f"call nearest(..., k={k}){remedy}."
        )
    return of.distances[:, :k]


def _ratio(distance: np.ndarray, scale: np.ndarray) -> Float[np.ndarray, " n"]:
    """The quotient; 0 for an exact copy, whatever the scale."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / scale)


def _below(ratio: np.ndarray, threshold: float, level: float) -> Memorised:
    mask = ratio < threshold
    return Memorised(share(int(mask.sum()), len(mask), level), mask, ratio)
