"""Distances of two sets of features by a kernel: the squared maximum mean discrepancy, unbiased, with its error.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    Gretton et al. (2012)

The estimate is the U-statistic: the mean over all pairs of different images. It may be below zero.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.metrics.distances import BLOCK, GROUPS, PAIRED, Estimate, OtherRows, Rows, check_number

SIGMA, SCALE = 10.0, 1000.0  # of CMMD, as published
LEAST = 4  # images of a set that have an error
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (n, d), (m, d) -> (n, m)


@check_arguments
def kernel_distance(features1: Rows, features2: OtherRows) -> Estimate:
    """The kernel distance, MMD^2 with the kernel (x.y / d + 1)^3, Binkowski et al. (2018).

    Up to 10,000 images it is the mean over all pairs. Of more it is the mean over blocks of about 1,000 images of the
    smaller set: blocks are drawn at random, the same for any features, because images may come sorted by class.

        import numpy as np
        from score_sde.metrics.kernels import kernel_distance

        features = np.random.default_rng(0).normal(size=(2, 100, 8))
        value, error = kernel_distance(features[0], features[1] + 1)
    """
    check_number(2, features1=features1, features2=features2)
    return discrepancy(_cubic, features1.astype(np.float64), features2.astype(np.float64))


@check_arguments
def cmmd(features1: Rows, features2: OtherRows) -> Estimate:
    """The CMMD of Jayasumana et al. (2024): 1,000 MMD^2 with the kernel exp(-|x - y|^2 / (2 10^2)) of unit vectors.

    Published figures are of CLIP's embeddings, which are divided by their length, as any features are here. Their code
    takes the mean over all pairs, each image with itself among them, which adds 1,000 (1 - E k(x, x')) / n for either
    set; this estimate is without that bias.

        import numpy as np
        from score_sde.metrics.kernels import cmmd

        features = np.random.default_rng(0).normal(size=(2, 100, 8))
        value, error = cmmd(features[0], features[1] + 1)
    """
    check_number(2, features1=features1, features2=features2)
    value, error = discrepancy(_gaussian, _unit(features1), _unit(features2))
    return Estimate(SCALE * value, None if error is None else SCALE * error)


def discrepancy(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> Estimate:
    """MMD^2 of any kernel, over all pairs or in blocks as for `kernel_distance`. x: (n, d), y: (m, d), float64."""
    if max(len(x), len(y)) <= PAIRED:
        return _over_all_pairs(kernel, x, y)
    n = min(len(x), len(y))
    blocks = max(1, min(n // 2, max(GROUPS, math.ceil(n / BLOCK))))
    rng = np.random.default_rng(0)
    # With one order for both, blocks of two sorted sets would have the same classes.
    sets = [np.array_split(each[rng.permutation(len(each))], blocks) for each in (x, y)]
    values = [_over_all_pairs(kernel, *pair).mean for pair in zip(*sets, strict=True)]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(blocks)) if blocks > 1 else None)


class _Sums(NamedTuple):
    """Sums over a kernel matrix (n, m): of each row and column, and of the squares of all its numbers."""

    rows: np.ndarray
    columns: np.ndarray
    squares: float


def _over_all_pairs(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> Estimate:
    """The U-statistic, and its error by the jackknife over single images of both sets.

    The statistic without an image follows from the sums of rows. The jackknife counts the variance that is of pairs and
    not of single images twice (Efron and Stein, 1981), so an unbiased estimate of that is taken away once; the error is
    not let below half of the jackknife's, as an estimate of a variance may be negative.
    """
    n, m = len(x), len(y)
    xx, yy, xy = _within(kernel, x), _within(kernel, y), _between(kernel, x, y)
    value = xx.rows.sum() / (n * (n - 1)) + yy.rows.sum() / (m * (m - 1)) - 2 * xy.rows.sum() / (n * m)
    if min(n, m) < LEAST:
        return Estimate(float(value), None)
    without = _without(xx.rows, xy.rows, m), _without(yy.rows, xy.columns, n)
    jackknife = sum((len(each) - 1) * np.var(each) for each in without)
    of_pairs = _of_pairs_within(xx) + _of_pairs_within(yy) + _of_pairs_between(xy)
    return Estimate(float(value), math.sqrt(max(jackknife - max(of_pairs, 0.0), jackknife / 4)))


def _within(kernel: Kernel, x: np.ndarray) -> _Sums:
    """Sums over pairs of different images of one set; each pair's kernel is computed once."""
    rows, squares = np.zeros(len(x)), 0.0
    for start in range(0, len(x), BLOCK):
        k = kernel(x[start : start + BLOCK], x[start:])
        size = len(k)
        np.fill_diagonal(k[:, :size], 0.0)
        rows[start : start + size] += k.sum(axis=1)
        rows[start + size :] += k[:, size:].sum(axis=0)
        squares += _squared(k[:, :size]) + 2 * _squared(k[:, size:])
    return _Sums(rows, rows, squares)


def _between(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> _Sums:
    rows, columns, squares = np.empty(len(x)), np.zeros(len(y)), 0.0
    for start in range(0, len(x), BLOCK):
        k = kernel(x[start : start + BLOCK], y)
        rows[start : start + BLOCK] = k.sum(axis=1)
        columns += k.sum(axis=0)
        squares += _squared(k)
    return _Sums(rows, columns, squares)


def _without(within: np.ndarray, between: np.ndarray, others: int) -> np.ndarray:
    """The statistic without each image of a set, but for what is the same for all of them."""
    n = len(within)
    pairs = (within.sum() - 2 * within) / ((n - 1) * (n - 2))
    return pairs - 2 * (between.sum() - between) / ((n - 1) * others)


def _of_pairs_within(sums: _Sums) -> float:
    """Variance that is of pairs in the mean of a kernel over one set: of what no sum over single images explains."""
    n = len(sums.rows)
    mean = sums.rows.sum() / (n * (n - 1))
    of_single = (sums.rows - (n - 1) * mean) / (n - 2)
    left = sums.squares - n * (n - 1) * mean**2 - 2 * (n - 2) * (of_single**2).sum()
    return 2 / ((n - 1) * (n - 2)) * left / (n * (n - 3))  # left has n (n - 3) degrees of freedom


def _of_pairs_between(sums: _Sums) -> float:
    """The same for twice the mean over pairs of two sets."""
    n, m = len(sums.rows), len(sums.columns)
    mean = sums.rows.sum() / (n * m)
    of_rows, of_columns = sums.rows / m - mean, sums.columns / n - mean
    left = sums.squares - n * m * mean**2 - m * (of_rows**2).sum() - n * (of_columns**2).sum()
    return 4 / (n * m) * left / ((n - 1) * (m - 1))


def _squared(k: np.ndarray) -> float:
    return float(np.einsum("ij,ij->", k, k))


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = x @ y.T
    k /= x.shape[1]
    k += 1
    return k * k * k


def _gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = x @ y.T
    k *= 2
    k -= (x**2).sum(axis=1)[:, None]
    k -= (y**2).sum(axis=1)
    k /= 2 * SIGMA**2
    return np.exp(k, out=k)


def _unit(features: np.ndarray) -> np.ndarray:
    """Features divided by their length; those of length zero stay as they are."""
    x = features.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)
