"""Estimates and their errors; the Inception score, and precision and recall.

Features are (n, d). The distances by moments and by kernels are in `frechet` and `kernels`.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from score_sde.array_types import Array, Real
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, moved_names

GROUPS = 10  # of the jackknife
BLOCK = 1000  # images whose distances to others are computed at a time
NEIGHBOURS = 3  # a neighbourhood reaches to this nearest neighbour
PAIRED = 10_000  # images of either set, at most, whose pairwise distances are computed

Rows = Annotated[Real[np.ndarray, "n d"], "(-inf, inf)"]  # features of n images
OtherRows = Annotated[Real[np.ndarray, "m d"], "(-inf, inf)"]


class Estimate(NamedTuple):
    """A value and its standard error; None where the error is not known."""

    mean: float
    standard_error: float | None


class _Labels(NamedTuple):
    """Sums over n distributions of labels; sums of parts can be added."""

    n: int
    total: np.ndarray  # (k,), of probabilities
    negative_entropy: float

    @staticmethod
    def of(log_p: np.ndarray) -> "_Labels":
        p = np.exp(log_p)
        return _Labels(len(p), p.sum(axis=0), float((p * log_p).sum()))

    def plus(self, other: "_Labels", sign: int = 1) -> "_Labels":
        return _Labels(*(a + sign * b for a, b in zip(self, other, strict=True)))

    @property
    def score(self) -> float:
        marginal = self.total / self.n
        return math.exp(self.negative_entropy / self.n - special.xlogy(marginal, marginal).sum())


@check_arguments
def inception_score(logits: Rows, splits: Annotated[int, "[1, inf)"] = 1) -> Estimate:
    """The Inception score exp E KL(p(label | image) || p(label)), Salimans et al. (2016).

    splits: parts in the images' order whose scores are averaged; each has its own p(label). With 1, as in the paper's
    code, it is the score of all images at once, and its error is by the jackknife; with more, usually 10, the error is
    the standard deviation of the parts' scores over sqrt(splits), where others print the deviation itself. Scores of
    fewer images are lower, so figures with different splits do not compare.

        import numpy as np
        from score_sde.metrics.distances import inception_score

        score, error = inception_score(10 * np.eye(5)[np.arange(200) % 5], splits=10)  # of five certain labels: 5
    """
    check_number(1, logits=logits)
    log_p = special.log_softmax(logits.astype(np.float64), axis=1)
    if splits == 1:
        parts = [_Labels.of(log_p[group]) for group in groups(len(log_p))]
        whole = functools.reduce(_Labels.plus, parts)
        return jackknife(whole.n, whole.score, [whole.plus(part, -1).score for part in parts if part.n < whole.n])
    scores = [_Labels.of(part).score for part in np.array_split(log_p, min(splits, len(log_p)))]
    error = float(np.std(scores, ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else None
    return Estimate(float(np.mean(scores)), error)


@check_arguments
def precision_recall(features: Rows, reference: OtherRows) -> tuple[float, float]:
    """Precision and recall: the share of samples within the reference's neighbourhoods, and the reverse.

    Kynkaanniemi et al. (2019), with 3 neighbours, for the first 10,000 of each. Raises `UsageError` for fewer than 4
    images of either, which have no third neighbour.
    """
    check_number(NEIGHBOURS + 1, features=features, reference=reference)
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


def check_number(least: int, **sets: np.ndarray) -> None:
    """Raises `UsageError` for a set of features, by its name, with fewer images than `least`, or without features."""
    for name, features in sets.items():
        if len(features) < least:
            raise UsageError(f"{name} are of {len(features)} images, and this figure needs {least} or more.")
        if not features.shape[1]:
            raise UsageError(f"{name} are an array of shape {features.shape}; each image has a feature or more.")


def groups(n: int) -> Iterator[np.ndarray]:
    """Indices 0..n-1 in groups of nearly equal size, each spread over the whole range."""
    return (np.arange(i, n, GROUPS) for i in range(min(GROUPS, n)))


def jackknife(n: int, value: float, without: Sequence[float]) -> Estimate:
    """A statistic of n images with its error from leaving out each group (Efron, 1982); None for too few images."""
    if len(without) < GROUPS or n < 3 * GROUPS:
        return Estimate(value, None)
    return Estimate(value, float(np.sqrt((GROUPS - 1) / GROUPS * ((without - np.mean(without)) ** 2).sum())))


OF_FRECHET = ("Moments", "Frechet", "frechet_distance")
MOVED = {name: f"score_sde.metrics.frechet.{name}" for name in OF_FRECHET}
MOVED |= {"kernel_distance": "score_sde.metrics.kernels.kernel_distance"}
__getattr__ = moved_names(__name__, MOVED)
