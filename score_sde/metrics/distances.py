"""Distances between two sets of images by their features, each with its error.

Features are (n, d). Moments and matrix square roots are computed in float64: the covariances of 2,048 features are so
ill-conditioned that a float32 square root has no correct digit.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, special

from score_sde.array_types import Array

GROUPS = 10  # of the jackknife
BLOCK = 1000  # images in a block of the kernel distance, at most, as in the paper's code
SIZES = 15  # of the sets from which the distance of infinitely many samples is extrapolated
NEIGHBOURS = 3  # a neighbourhood reaches to this nearest neighbour
PAIRED = 10_000  # images of either set, at most, whose pairwise distances are computed


class Estimate(NamedTuple):
    """A value and its standard error; None where the error is not known."""

    mean: float
    standard_error: float | None


class Moments(NamedTuple):
    """Sums over n feature vectors, relative to an origin near their mean; sums of parts can be added."""

    n: int
    total: np.ndarray  # (d,)
    products: np.ndarray  # (d, d)

    @staticmethod
    def of(features: np.ndarray, origin: np.ndarray) -> "Moments":
        x = features.astype(np.float64) - origin
        return Moments(len(x), x.sum(axis=0), x.T @ x)

    def plus(self, other: "Moments", sign: int = 1) -> "Moments":
        return Moments(*(a + sign * b for a, b in zip(self, other, strict=True)))

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.n

    @property
    def covariance(self) -> np.ndarray:
        """The covariance matrix, with n - 1 in the denominator."""
        return (self.products - np.outer(self.total, self.mean)) / (self.n - 1)


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """The Frechet distance of two Gaussians, Heusel et al. (2017), eq. 6.

        |mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov2^1/2 cov1 cov2^1/2)^1/2)

    It is the squared 2-Wasserstein distance. Covariances may be singular.

        import numpy as np
        from score_sde.metrics.distances import frechet_distance

        distance = frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))  # 2 + 2
    """
    return _frechet(mean1, cov1, mean2, cov2, symmetric_root(cov2))


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """The positive semi-definite square root of a positive semi-definite matrix."""
    values, vectors = linalg.eigh(matrix)
    return (vectors * np.sqrt(_without_noise(values))) @ vectors.T


def _frechet(mean1, cov1, mean2, cov2, root2) -> float:
    values = linalg.eigh(root2 @ cov1 @ root2, eigvals_only=True)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(_without_noise(values)).sum()
    return float(max(0.0, np.sum((mean1 - mean2) ** 2) + trace))


def _without_noise(values: np.ndarray) -> np.ndarray:
    """Eigenvalues, with those set to 0 that are nonzero only by rounding, since their roots would not be small."""
    return np.where(values > values.max(initial=0) * len(values) * np.finfo(values.dtype).eps, values, 0.0)


class Frechet:
    """Frechet distances of sets of features to a reference, whose covariance is factorised once."""

    def __init__(self, mean: np.ndarray, covariance: np.ndarray):
        self.mean, self.covariance = mean, covariance
        self.root = symmetric_root(covariance)

    def __call__(self, features: np.ndarray) -> Estimate:
        """The distance, and its error by the jackknife over `GROUPS` groups of the features."""
        groups = [Moments.of(features[group], self.mean) for group in _groups(len(features))]
        return _jackknife(groups, self._of)

    def of_infinitely_many(self, features: np.ndarray) -> float:
        """The distance extrapolated to infinitely many samples, without its bias of order 1/n.

        "FID infinity" of Chong and Forsyth (2020): a line through the distances of `SIZES` sets against 1/n. The sets
        are the first n samples in one random order, the same for any features; the smallest has a tenth of all.
        """
        n = len(features)
        sizes = np.unique(np.linspace(max(2, n // 10), n, SIZES).astype(int))
        order = np.random.default_rng(0).permutation(n)
        moments, distances = None, []
        for start, stop in zip([0, *sizes[:-1]], sizes, strict=True):
            more = Moments.of(features[order[start:stop]], self.mean)
            moments = more if moments is None else moments.plus(more)
            distances.append(self._of(moments))
        return float(np.polyfit(1 / sizes, distances, 1)[1])

    def _of(self, moments: Moments) -> float:
        zero = np.zeros_like(self.mean)  # the origin of the moments is the reference's mean
        return _frechet(moments.mean, moments.covariance, zero, self.covariance, self.root)


def kernel_distance(features1: np.ndarray, features2: np.ndarray) -> Estimate:
    """The kernel distance: unbiased squared MMD with the kernel (x.y / d + 1)^3, Binkowski et al. (2018).

    It is the mean over disjoint blocks of both sets, with the error of that mean. Blocks are drawn at random, the same
    for any features, because images may come sorted by class. Each set has its own order; with the same order, blocks
    of two sorted sets would have the same classes.

        import numpy as np
        from score_sde.metrics.distances import kernel_distance

        features = np.random.default_rng(0).normal(size=(2, 100, 8))
        value, error = kernel_distance(features[0], features[1] + 1)
    """
    n = min(len(features1), len(features2))
    blocks = max(1, min(n // 2, max(GROUPS, math.ceil(n / BLOCK))))
    rng = np.random.default_rng(0)
    sets = [np.array_split(x[rng.permutation(len(x))], blocks) for x in (features1, features2)]
    pairs = zip(*sets, strict=True)
    values = [_discrepancy(x.astype(np.float64), y.astype(np.float64)) for x, y in pairs]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(blocks)) if blocks > 1 else None)


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a):
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


class _Labels(NamedTuple):
    """Sums over n distributions of labels; sums of parts can be added."""

    n: int
    total: np.ndarray  # (k,), of probabilities
    negative_entropy: float

    def plus(self, other: "_Labels", sign: int = 1) -> "_Labels":
        return _Labels(*(a + sign * b for a, b in zip(self, other, strict=True)))

    @property
    def score(self) -> float:
        marginal = self.total / self.n
        return math.exp(self.negative_entropy / self.n - special.xlogy(marginal, marginal).sum())


def inception_score(logits: np.ndarray) -> Estimate:
    """The Inception score exp E KL(p(label | image) || p(label)), Salimans et al. (2016), over all images at once.

    The paper's code does not split the images either. The error is by the jackknife.
    """
    log_p = special.log_softmax(logits.astype(np.float64), axis=1)
    p = np.exp(log_p)
    groups = [_Labels(len(g), p[g].sum(axis=0), float((p[g] * log_p[g]).sum())) for g in _groups(len(p))]
    return _jackknife(groups, lambda labels: labels.score)


def precision_recall(features: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Precision and recall: the share of samples within the reference's neighbourhoods, and the reverse.

    Kynkaanniemi et al. (2019), with 3 neighbours, for the first 10,000 of each.
    """
    origin = reference.mean(axis=0)
    fake, real = (jnp.asarray(x[:PAIRED] - origin, jnp.float32) for x in (features, reference))
    return float(_covered(fake, real)), float(_covered(real, fake))


def _covered(points: Array, centres: Array) -> float:
    """The share of points that lie in some centre's neighbourhood, which reaches to its third nearest centre."""
    rows = range(0, len(centres), BLOCK)
    radii = jnp.concatenate([_radii(centres[i : i + BLOCK], centres) for i in rows])
    inside = [_inside(points[i : i + BLOCK], centres, radii) for i in range(0, len(points), BLOCK)]
    return float(jnp.concatenate(inside).mean())


@jax.jit
def _radii(rows: Array, centres: Array) -> Array:
    nearest = -jax.lax.top_k(-_squared_distances(rows, centres), NEIGHBOURS + 1)[0]  # the point itself is among them
    return nearest[:, NEIGHBOURS]


@jax.jit
def _inside(points: Array, centres: Array, radii: Array) -> Array:
    return (_squared_distances(points, centres) <= radii).any(axis=1)


def _squared_distances(x: Array, y: Array) -> Array:
    product = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * product


def _groups(n: int) -> Iterator[np.ndarray]:
    """Indices 0..n-1 in groups of nearly equal size, each spread over the whole range."""
    return (np.arange(i, n, GROUPS) for i in range(min(GROUPS, n)))


def _jackknife(groups: list, of) -> Estimate:
    """A statistic of the sum of all groups, and its error from leaving out each group (Efron, 1982)."""
    whole = groups[0]
    for group in groups[1:]:
        whole = whole.plus(group)
    value = of(whole)
    if len(groups) < GROUPS or whole.n < 3 * GROUPS:
        return Estimate(value, None)
    without = np.array([of(whole.plus(group, -1)) for group in groups])
    return Estimate(value, float(np.sqrt((GROUPS - 1) / GROUPS * ((without - without.mean()) ** 2).sum())))
