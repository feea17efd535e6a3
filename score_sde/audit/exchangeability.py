"""A permutation test of whether samples know which images were trained on, and its power against planted copies.

If a model has learned the law of the data and nothing of its training images, these and held-out images are
exchangeable: the nearest one to a sample is of the training set with probability n_train / (n_train + n_test). Samples
share their nearest images, so they are not independent trials, and a binomial test rejects too often. Here the labels
"training" and "held-out" of the images are permuted while all samples stay together, which is exact for any number of
samples. It needs held-out images that were chosen at random, and pixels or features that know nothing of the choice: in
features of a network that was trained on the training images, p-values of a model that has copied nothing may be small.

The share of samples whose nearest image is labelled "training" is a sum over images, of the number of samples to which
each is nearest. Under a permutation only the number of training labels among images with equal numbers matters, so a
permutation is one draw of the multivariate hypergeometric law.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import Bool, Float, Integer, Real
from score_sde.audit.intervals import Interval, Level, share
from score_sde.audit.neighbours import OtherPoints, Points, identical, nearest
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

ROUNDING = 1e-9  # of sums of fair shares
TestPoints = Annotated[Real[np.ndarray, "l *_"], "[-1e100, 1e100]"]
Seed = Annotated[int, "[0, 4294967296)"]
Permutations = Annotated[int, "[1, 1000000]"]


class Exchangeable(NamedTuple):
    """The share of samples whose nearest image is a training image, against that by chance.

    null: n_train / (n_train + n_test), and the quantiles of the permutations. p: the probability of such a share or a
    larger one by chance, of a permutation test (1 + number of such permutations) / (1 + permutations).
    """

    share: float
    null: Interval
    p: float


@check_arguments
def exchangeable(
    samples: Points,
    train: OtherPoints,
    test: TestPoints,
    permutations: Permutations = 9999,
    *,
    level: Level = 0.95,
    seed: Seed = 0,
    progress: str = "nearest neighbours",
) -> Exchangeable:
    """The permutation test of whether samples are nearer to training images than to held-out ones.

    A sample with several nearest images, such as one that is in both sets, counts by the share of them that is of the
    training set.

    Args:
        samples, train, test: uint8 images or features, as of `nearest`.
        permutations: the smallest p-value is 1 / (1 + permutations).
        level: of the quantiles of the null.
        seed: of the permutations.
        progress: words of the bar on stderr.

    Raises `UsageError` for points of different types or shapes, and for a set without points.

        import numpy as np
        from score_sde.audit import exchangeable

        of = np.random.default_rng(0).normal(size=(300, 8))
        assert exchangeable(of[:50], of[:100], of[100:200]).p < 1e-3  # copies of training points
        assert exchangeable(of[200:], of[:100], of[100:200]).null.value == 0.5
    """
    points, is_train = _pooled(samples, train, test)
    nearest_to = _shares(samples, points, progress)
    number = np.bincount(nearest_to.point, nearest_to.share, len(points))
    draws = np.random.default_rng(seed)
    observed, null = _totals(number, is_train, permutations, draws)
    tail = (1 - level) / 2
    low, high = np.quantile(null, [tail, 1 - tail]) / len(samples)
    expected = Interval(len(train) / len(points), float(low), float(high))
    return Exchangeable(observed / len(samples), expected, _p(observed, null))


class Power(NamedTuple):
    """The share of replications in which the test detects planted copies, by the number of copies, with intervals."""

    copies: tuple[int, ...]
    detected: tuple[Interval, ...]


@check_arguments
def power(
    samples: Points,
    train: OtherPoints,
    test: TestPoints,
    copies: Sequence[Annotated[int, "[0, inf)"]] = (0, 1, 2, 5, 10, 20, 50),
    *,
    replications: Annotated[int, "[1, inf)"] = 200,
    significance: Annotated[float, "(0, 1)"] = 0.05,
    permutations: Permutations = 999,
    level: Level = 0.95,
    seed: Seed = 0,
    progress: str = "nearest neighbours",
) -> Power:
    """The power of `exchangeable` at the level `significance`, against k samples that are copies of training images.

    In each replication the labels "training" and "held-out" are permuted, so that the samples know nothing of them.
    Then k of the samples, drawn without replacement, become copies of images labelled "training", drawn with
    replacement. The samples may be of any law, such as those of the audited model: with 0 copies the test detects in at
    most the share `significance` of replications.

    Args:
        samples, train, test: as of `exchangeable`.
        copies: numbers k of copies among the samples.
        replications: for each k; the interval of a share of them is by Wilson.
        significance: the largest p-value that is a detection.
        permutations: of each test.
        level: of confidence of the intervals.
        seed: of all draws; a replication depends on the seed, k and its number only.
        progress: words of the bar on stderr.

    Raises `UsageError` for more copies than samples, for a p-value that no test of so many permutations reaches, and as
    `exchangeable` does.

        import numpy as np
        from score_sde.audit import power

        of = np.random.default_rng(0).normal(size=(300, 8))
        few, many = power(of[200:], of[:100], of[100:200], copies=(0, 50), replications=20).detected
        assert few.value < 0.3 and many.value > 0.9
    """
    if max(copies, default=0) > len(samples):
        raise UsageError(f"power: {max(copies)} copies among {len(samples)} samples; give at most as many.")
    if significance * (1 + permutations) < 1:
        raise UsageError(
            f"power: with {permutations} permutations no p-value is at most {significance}; "
            f"give {int(np.ceil(1 / significance))} permutations or more."
        )
    points, is_train = _pooled(samples, train, test)
    of_sample = _shares(samples, points, progress)
    like = identical(points)
    detected = []
    for k in copies:
        p = [
            _planted(of_sample, like, is_train, len(samples), k, permutations, np.random.default_rng((seed, k, each)))
            for each in range(replications)
        ]
        detected.append(share(int((np.array(p) <= significance).sum()), replications, level))
    return Power(tuple(copies), tuple(detected))


class _Shares(NamedTuple):
    """Fair shares: the point that is nearest to a sample, the share of it, 1 unless others are as near, the sample."""

    point: Integer[np.ndarray, " s"]
    share: Float[np.ndarray, " s"]
    sample: Integer[np.ndarray, " s"]


def _pooled(samples: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, Bool[np.ndarray, " p"]]:
    """All images, and which of them are of the training set."""
    if not (samples.size and train.size and test.size):
        number = f"{len(samples)} samples, {len(train)} training and {len(test)} held-out images"
        raise UsageError(f"exchangeable: {number}; give one or more of each.")
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        of = f"{train.dtype} of shape {train.shape} and {test.dtype} of shape {test.shape}"
        raise UsageError(f"exchangeable: train and test are {of}; give images of one type and of one shape.")
    return np.concatenate([train, test]), np.arange(len(train) + len(test)) < len(train)


def _shares(samples: np.ndarray, points: np.ndarray, progress: str) -> _Shares:
    """The fair shares of the nearest points; more neighbours are looked at until one is further than the nearest."""
    left, k, parts = np.arange(len(samples)), min(2, len(points)), []
    while len(left):
        near = nearest(samples[left], points, k, progress=progress)
        tied = near.distances == near.distances[:, :1]
        complete = ~tied[:, -1] | (k == len(points))
        row, column = np.nonzero(tied & complete[:, None])
        parts.append(_Shares(near.indices[row, column], 1 / tied.sum(axis=1)[row], left[row]))
        left, k = left[~complete], min(8 * k, len(points))
    return _Shares(*map(np.concatenate, zip(*parts, strict=True)))


def _totals(
    number: Float[np.ndarray, " p"], is_train: Bool[np.ndarray, " p"], permutations: int, draws: np.random.Generator
) -> tuple[float, Float[np.ndarray, " b"]]:
    """The sum of the numbers of training points, and that under each permutation of the labels."""
    values, points = np.unique(number.round(9), return_counts=True)
    null = draws.multivariate_hypergeometric(points, int(is_train.sum()), permutations, method="marginals") @ values
    return float(number[is_train].sum()), null


def _p(observed: float, null: np.ndarray) -> float:
    return (1 + int((null >= observed - ROUNDING * (1 + abs(observed))).sum())) / (1 + len(null))


def _planted(
    of_sample: _Shares,
    like: Integer[np.ndarray, " p"],
    is_train: Bool[np.ndarray, " p"],
    n: int,
    k: int,
    permutations: int,
    draws: np.random.Generator,
) -> float:
    """The p-value of one replication: labels permuted, k of n samples become copies of points labelled "training"."""
    is_train = draws.permutation(is_train)
    kept = np.ones(n, bool)
    kept[draws.choice(n, k, replace=False)] = False
    copied = draws.choice(np.flatnonzero(is_train), k)
    of_group = np.bincount(like[copied], minlength=len(like)) / np.maximum(1, np.bincount(like, minlength=len(like)))
    number = np.bincount(of_sample.point, of_sample.share * kept[of_sample.sample], len(like)) + of_group[like]
    return _p(*_totals(number, is_train, permutations, draws))
