"""The Frechet distance of two sets of features, with its error, and extrapolated to infinitely many samples.

Everything is float64: covariances of 2,048 features are so ill-conditioned that a float32 square root has no correct
digit. No square root of a matrix is taken, but those of the eigenvalues of one, the smaller of two that share them.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController

from score_sde.array_types import Real
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.metrics.distances import Estimate, Rows, check_number, groups, jackknife

SIZES = 15  # of the sets from which the distance of infinitely many samples is extrapolated

Mean = Annotated[Real[np.ndarray, " d"], "(-inf, inf)"]
Covariance = Annotated[Real[np.ndarray, "d d"], "(-inf, inf)"]


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


@check_arguments
def frechet_distance(mean1: Mean, cov1: Covariance, mean2: Mean, cov2: Covariance) -> float:
    """The Frechet distance of two Gaussians, Heusel et al. (2017), eq. 6.

        |mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov2^1/2 cov1 cov2^1/2)^1/2)

    It is the squared 2-Wasserstein distance. Covariances may be singular.

        import numpy as np
        from score_sde.metrics.frechet import frechet_distance

        distance = frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))  # 2 + 2
    """
    lower = factor(np.asarray(cov2, np.float64))
    product = lower.T @ cov1 @ lower
    with _each_on_one_thread():
        return _distance(np.subtract(mean1, mean2), np.trace(cov1), np.trace(cov2), product)


@check_arguments
class Frechet:
    """Frechet distances of sets of features to a reference, whose covariance is factorised once.

    The eigenvalues of C2^1/2 C1 C2^1/2 are those of L^T C1 L, where C2 = L L^T, and of X C2 X^T / (n - 1), where X are
    the centred features of n images. The latter is n x n, and taken if there are no more images than features.
    """

    def __init__(self, mean: Mean, covariance: Covariance):
        self.mean, self.covariance = mean, covariance

    def _check(self, features: np.ndarray) -> None:
        """Raises `UsageError` for too few images, and for features of another kind than the reference's."""
        check_number(2, features=features)
        if features.shape[1] != len(self.mean):
            raise UsageError(
                f"The samples have {features.shape[1]} features and the reference has {len(self.mean)}; compute both "
                "by one network."
            )

    @functools.cached_property
    def factor(self) -> np.ndarray:
        return factor(np.asarray(self.covariance, np.float64))

    @check_arguments
    def __call__(self, features: Rows) -> Estimate:
        """The distance, and its error by the jackknife over groups of the features, each distance of which is exact."""
        self._check(features)
        parts = list(groups(len(features)))
        numbers = range(len(parts))
        without = [[i for i in numbers if i != left_out] for left_out in numbers if len(parts) > 2]
        value, *others = self._of_unions(features, parts, [list(numbers), *without])
        return jackknife(len(features), value, others)

    @check_arguments
    def value(self, features: Rows) -> float:
        """The distance alone."""
        self._check(features)
        return self._of_unions(features, [np.arange(len(features))], [[0]])[0]

    @check_arguments
    def of_infinitely_many(self, features: Rows) -> float:
        """The distance extrapolated to infinitely many samples, without its bias of order 1/n.

        "FID infinity" of Chong and Forsyth (2020): a line through the distances of `SIZES` sets against 1/n. The sets
        are the first n samples in one random order, the same for any features; the smallest has a tenth of all.
        """
        self._check(features)
        n = len(features)
        sizes = np.unique(np.linspace(max(2, n // 10), n, SIZES).astype(int))
        parts = np.split(np.random.default_rng(0).permutation(n), sizes[:-1])
        distances = self._of_unions(features, parts, [list(range(i + 1)) for i in range(len(parts))])
        return float(np.polyfit(1 / sizes, distances, 1)[1])

    def _of_unions(
        self, features: np.ndarray, parts: Sequence[np.ndarray], unions: Sequence[Sequence[int]]
    ) -> list[float]:
        """Distances of unions of parts, several at a time. parts: indices of features. unions: numbers of parts."""
        covariance = (self._by_images if len(features) <= len(self.mean) else self._by_features)(features, parts)
        sums = []
        for part in parts:
            x = features[part].astype(np.float64) - self.mean
            sums.append((len(x), x.sum(axis=0), (x**2).sum()))

        def distance(union: Sequence[int]) -> float:
            n, total, squares = (sum(each) for each in zip(*(sums[i] for i in union), strict=True))
            mean = total / n
            variance = (squares - n * mean @ mean) / (n - 1)
            return _distance(mean, variance, np.trace(self.covariance), covariance(union))

        with _each_on_one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(distance, unions))

    def _by_images(self, features: np.ndarray, parts: Sequence[np.ndarray]) -> Callable[[Sequence[int]], np.ndarray]:
        """The function from a union to X C2 X^T / (n - 1), of which X C2 X^T is computed once."""
        x = features.astype(np.float64) - self.mean
        products = x @ self.covariance @ x.T

        def of_union(union: Sequence[int]) -> np.ndarray:
            rows = np.concatenate([parts[i] for i in union])
            chosen = products[np.ix_(rows, rows)]
            means = chosen.mean(axis=0)
            return (chosen - means - means[:, None] + means.mean()) / (len(rows) - 1)

        return of_union

    def _by_features(self, features: np.ndarray, parts: Sequence[np.ndarray]) -> Callable[[Sequence[int]], np.ndarray]:
        """The function from a union to L^T C1 L, the covariance of the features' products with L."""
        projected = ((features[part].astype(np.float64) - self.mean) @ self.factor for part in parts)
        moments = [Moments.of(y, np.zeros(y.shape[1])) for y in projected]
        whole = functools.reduce(Moments.plus, moments)

        def of_union(union: Sequence[int]) -> np.ndarray:
            rest = [i for i in range(len(moments)) if i not in union]
            if len(rest) < len(union):
                return functools.reduce(lambda sums, i: sums.plus(moments[i], -1), rest, whole).covariance
            return functools.reduce(Moments.plus, [moments[i] for i in union]).covariance

        return of_union


def factor(matrix: np.ndarray) -> np.ndarray:
    """A matrix L (d, rank) with L L^T equal to a positive semi-definite matrix: Cholesky's, by the largest pivots."""
    lower, pivots, rank, _ = lapack.dpstrf(matrix, lower=1)
    rows = np.empty((len(matrix), rank))
    rows[pivots - 1] = np.tril(lower)[:, :rank]
    return rows


def _distance(mean: np.ndarray, variance1: float, variance2: float, matrix: np.ndarray) -> float:
    """The distance. mean: the difference of means; variance1, variance2: traces; matrix: of C1 C2's eigenvalues."""
    values = np.linalg.eigvalsh(matrix)
    # A nonzero eigenvalue that is nothing but rounding would have a root that is not small.
    noise = values.max(initial=0) * len(values) * np.finfo(np.float64).eps
    return float(np.maximum(0.0, mean @ mean + variance1 + variance2 - 2 * np.sqrt(values[values > noise]).sum()))


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _each_on_one_thread() -> contextlib.AbstractContextManager:
    """A context in which BLAS has one thread: for eigenvalues it waits for memory, and several for one another."""
    return _threads().limit(limits=1, user_api="blas")
