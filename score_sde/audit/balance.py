"""Balance: how often samples show each class, corrected for the errors of the classifier that judges them.

A judge that takes class j for class i with probability A[i, j] sees the frequencies q = A p of samples whose true
frequencies are p. The corrected frequencies are A^-1 q, with A from held-out images of known classes. For two classes
this is the estimate of Rogan and Gladen (1978), and CLEAM (Teo et al., 2023) has the same one.

Intervals are by scores, as Wilson's (1927): all p_i for which the estimate is within z standard errors, where the error
is the one at p_i. It has two parts, of the n samples, and of the m_j held-out images of class j:

    var = b (diag(q) - q q^T) b^T / n + sum_j p_j^2 b (diag(a_j) - a_j a_j^T) b^T / m_j

with b the row i of A^-1, a_j column j of A, and the other frequencies in their estimated proportions. This is a
quadratic in p_i, so the ends have a closed form. CLEAM's interval has only the first part, as if A were known.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from scipy import stats

from score_sde.array_types import Float, Integer, UInt8
from score_sde.audit.intervals import Level
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.metrics.distances import OtherRows, Rows, precision_recall
from score_sde.metrics.frechet import Frechet
from score_sde.metrics.judge import Judge

WORST = 20.0  # condition number of A from which on no correction is made
LEAST = 20  # images of a class for precision and recall: around few, the balls between neighbours cover everything
PRIOR = 0.5  # images that are added to each class for the error of A: an error that was not seen may still be made

Counts = Annotated[Integer[np.ndarray, " k"], "[0, 1e12]"]


class Frequencies(NamedTuple):
    """Figures of k classes with the ends of their intervals; each (k,)."""

    value: Float[np.ndarray, " k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]

    def clipped(self, low: float = 0.0, high: float = 1.0) -> "Frequencies":
        """Values and ends within a range: an estimate may be below 0, where the true frequency cannot be."""
        return Frequencies(*(np.clip(each, low, high) for each in self))


class Balance(NamedTuple):
    """Frequencies of classes among n samples, and in the data.

    uncorrected: as they are judged. corrected: without the judge's errors, not clipped to [0, 1]. data: of the training
    images. amplification: corrected - data. total_variation: half the sum of its absolute values. expected: the mean
    total variation of an exact sampler, with as many samples and held-out images. p_value: that all amplifications are
    0, from a score test, which is Pearson's chi-squared test if the judge makes no errors; it holds for about five
    samples or more of each class.
    """

    n: int
    uncorrected: Frequencies
    corrected: Frequencies
    data: Float[np.ndarray, " k"]
    amplification: Frequencies
    total_variation: float
    expected: float
    p_value: float


@check_arguments
def balance(
    judged: Counts, confusion: Annotated[Integer[np.ndarray, "k k"], "[0, 1e12]"], data: Counts, level: Level = 0.95
) -> Balance:
    """Frequencies of classes among samples, corrected for the judge's confusion, against those of the data.

    judged: numbers of samples judged to be of each class. confusion: numbers of held-out images (true class, judged
    class), see `score_sde.metrics.judge`. data: numbers of training images of each class, taken as exact. Raises
    `UsageError` for fewer than two classes, a class without held-out images, and a judge that hardly tells classes
    apart.

        import numpy as np
        from score_sde.audit.balance import balance

        of = balance(np.array([640, 360]), np.array([[900, 100], [50, 950]]), np.array([700, 300]))
        assert np.allclose(of.uncorrected.value, [0.64, 0.36])
        assert np.allclose(of.corrected.value, [0.59 / 0.85, 0.26 / 0.85])  # (0.64 + 0.95 - 1) / (0.9 + 0.95 - 1)
        assert of.amplification.low[0] < 0 < of.amplification.high[0]
    """
    _check(judged, confusion, data)
    n, k = int(judged.sum()), len(judged)
    q, images = judged / n, confusion.sum(axis=1)
    p_data = data / data.sum()
    a = (confusion / images[:, None]).T
    if (condition := np.linalg.cond(a)) > WORST:
        raise UsageError(
            f"The judge hardly tells some classes apart (condition number {condition:.3g}, above {WORST:g}), so its "
            "errors cannot be corrected; train it longer, or join those classes."
        )
    smoothed = ((confusion + PRIOR / k) / (images[:, None] + PRIOR)).T
    z = stats.norm.ppf(0.5 + level / 2)
    uncorrected = _with_ends(q, _Errors.of(np.eye(k), np.eye(k), np.inf, n), z)
    inverse = np.linalg.inv(a)
    errors = _Errors.of(inverse, smoothed, images, n)
    corrected = _with_ends(inverse @ q, errors, z)
    amplification = Frequencies(*(each - p_data for each in corrected))
    away = q - a @ p_data
    covariance = _covariance(smoothed, p_data, images, n)
    statistic = away @ np.linalg.pinv(covariance, hermitian=True) @ away
    deviations = np.sqrt(np.diag(inverse @ covariance @ inverse.T))
    return Balance(
        n,
        uncorrected,
        corrected,
        p_data,
        amplification,
        total_variation=float(np.abs(amplification.value).sum() / 2),
        expected=float(deviations.sum() * np.sqrt(2 / np.pi) / 2),  # of half of the sum of k normals' absolute values
        p_value=float(stats.chi2.sf(statistic, k - 1)),
    )


@check_arguments
def balance_by_guidance(
    scales: Sequence[Annotated[float, "[0, inf)"]],
    samples: Sequence[UInt8[np.ndarray, "_ h w c"]],
    judge: Judge,
    data: Counts,
    level: Level = 0.95,
) -> dict[float, Balance]:
    """The balance of samples drawn at several guidance scales, by scale.

    samples: uint8 images for each scale. data: numbers of training images of each class.

    Guidance of scale w moves frequencies, and not to those of the tilted law, in proportion to p^w r^(1 - w) for
    frequencies p under the condition and r without one: they are the frequencies at which the guided ODE ends.

        import numpy as np
        from score_sde.audit.balance import balance_by_guidance
        from score_sde.metrics.judge import Judge

        of_shades = Judge(lambda x: np.eye(2)[(x.mean(axis=(1, 2, 3)) > 127).astype(int)], np.diag([50, 50]))
        white = np.full((20, 8, 8, 1), 255, np.uint8)
        rows = balance_by_guidance([1, 4], [np.concatenate([white, 0 * white]), white], of_shades, np.array([5, 5]))
        assert rows[1.0].amplification.value[1] == 0 and rows[4.0].amplification.value[1] == 0.5
    """
    if len(scales) != len(samples):
        raise UsageError(f"There are {len(scales)} scales and samples of {len(samples)}; give samples for each scale.")
    if any(not len(each) for each in samples):
        raise UsageError("Balance needs one of the samples or more at each scale, and there is none at one of them.")
    return {
        scale: balance(judge.counts(each), judge.confusion, data, level)
        for scale, each in zip(scales, samples, strict=True)
    }


class ClassFigures(NamedTuple):
    """Figures of the samples of one class against its real images; None where there are too few of either.

    n, real: numbers that were compared. frechet: distance of features. lacks: a sentence on what is missing, or "".
    """

    n: int
    real: int
    precision: float | None
    recall: float | None
    frechet: float | None
    lacks: str


@check_arguments
def per_class(
    features: Rows,
    classes: Annotated[Integer[np.ndarray, " n"], "[0, 1e6]"],
    reference: OtherRows,
    labels: Annotated[Integer[np.ndarray, " m"], "[0, 1e6]"],
    images: Annotated[int, "[1, inf)"] | None = None,
) -> list[ClassFigures]:
    """Precision, recall and Frechet distance of each class of the real images.

    features, classes: of samples, and the classes they are judged to show, or were asked for. reference, labels: of
    real images. images: of each class, the first so many samples and real images; None: all. Figures depend on the
    numbers, so give a number that all classes have in order to compare them. Precision and recall need `LEAST` of
    either, the distance more than there are features.

        import numpy as np
        from score_sde.audit.balance import per_class

        x = np.random.default_rng(0).normal(size=(200, 2))
        zero, one = per_class(x, np.arange(200) % 2, x, np.arange(200) % 2)
        assert one.recall == 1 and one.frechet < 1e-9 and not one.lacks
    """
    if not len(labels):
        raise UsageError("Figures of classes need labels of real images, and there is none.")
    result = []
    for each in range(int(labels.max()) + 1):
        x, y = features[classes == each][:images], reference[labels == each][:images]
        result.append(_figures(each, x, y))
    return result


def _figures(number: int, x: np.ndarray, y: np.ndarray) -> ClassFigures:
    fewest, dimension = min(len(x), len(y)), x.shape[1]
    needs = {"precision and recall": LEAST, "the Frechet distance": dimension + 1}
    lacks = [f"{name} need{'s' * (name != 'precision and recall')} {n}" for name, n in needs.items() if fewest < n]
    precision, recall = precision_recall(x, y) if fewest >= LEAST else (None, None)
    frechet = Frechet(y.mean(axis=0), np.atleast_2d(np.cov(y, rowvar=False))).value(x) if fewest > dimension else None
    sentence = f"Class {number} has {len(x)} samples and {len(y)} real images; {' and '.join(lacks)}."
    return ClassFigures(len(x), len(y), precision, recall, frechet, sentence if lacks else "")


class _Errors(NamedTuple):
    """Moments of b_i, the row i of A^-1, at the class judged of an image of true class j; each (k, k).

    mean, square: of its value, and of the square. variance: of the error that held-out images of class j leave in it.
    """

    mean: np.ndarray
    square: np.ndarray
    variance: np.ndarray
    n: int

    @staticmethod
    def of(inverse: np.ndarray, a: np.ndarray, images: np.ndarray | float, n: int) -> "_Errors":
        mean, square = inverse @ a, inverse**2 @ a
        return _Errors(mean, square, (square - mean**2) / images, n)


def _with_ends(p: np.ndarray, errors: _Errors, z: float) -> Frequencies:
    """Estimates with the ends of their intervals, the roots of (p_i - t)^2 = z^2 var(t), which is quadratic in t."""
    k = len(p)
    others = np.where(np.eye(k, dtype=bool), 0.0, np.maximum(p, 0) + 1 / (k * errors.n))
    others /= others.sum(axis=1, keepdims=True)  # the classes but i, in proportion
    own = errors.mean.diagonal(), errors.square.diagonal(), errors.variance.diagonal()
    mean, square = ((others * each).sum(axis=1) for each in errors[:2])
    variance = (others**2 * errors.variance).sum(axis=1)
    apart = own[0] - mean
    constant = (square - mean**2) / errors.n + variance
    linear = (own[1] - square - 2 * mean * apart) / errors.n - 2 * variance
    quadratic = -(apart**2) / errors.n + own[2] + variance
    at_none, at_all = (z * np.sqrt(np.maximum(each, 0)) for each in (constant, constant + linear + quadratic))
    leading, middle = 1 - z**2 * quadratic, 2 * p + z**2 * linear
    if leading.min() <= 0:
        raise UsageError(
            f"How often the judge errs about class {int(leading.argmin())} is not known well enough to correct it; "
            "count its errors on more held-out images."
        )
    root = np.sqrt(np.maximum(middle**2 - 4 * leading * (p**2 - z**2 * constant), 0))

    def end(sign: int) -> np.ndarray:
        """The lower or upper ends; outside of [0, 1] the variance is the one at 0 or 1."""
        below, above = p + sign * at_none, p + sign * at_all
        return np.where(below < 0, below, np.where(above > 1, above, (middle + sign * root) / (2 * leading)))

    return Frequencies(p, end(-1), end(1))


def _covariance(a: np.ndarray, p: np.ndarray, images: np.ndarray, n: int) -> np.ndarray:
    """Covariance of the judged frequencies minus those that A predicts for true frequencies p."""
    q, weights = a @ p, p**2 / images
    return (np.diag(q) - np.outer(q, q)) / n + np.diag(a @ weights) - (a * weights) @ a.T


def _check(judged: np.ndarray, confusion: np.ndarray, data: np.ndarray) -> None:
    if len(judged) < 2:
        raise UsageError("Balance needs labels of two classes or more; give the judge an attribute of the images.")
    for name, counts in (("samples", judged), ("training images", data)):
        if not counts.sum():
            raise UsageError(f"Balance needs one of the {name} or more, and there is none.")
    if not confusion.sum(axis=1).all():
        raise UsageError(
            f"No held-out image is of class {int(confusion.sum(axis=1).argmin())}, so how it is judged is unknown; "
            "hold out more images, or leave this class out."
        )
