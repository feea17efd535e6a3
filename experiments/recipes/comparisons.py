"""Comparisons of recipes that were trained with the same seeds: errors of differences, and Holm's correction.

Seeds are blocks, as in a randomised block design: every recipe is trained with each seed, and the effect that a seed
has on all recipes cancels in a difference. The error of a difference over seeds is that of the residuals of all recipes
together, which has more degrees of freedom than those of a pair. With two recipes it is the paired t test.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from score_sde.array_types import Float
from score_sde.errors import UsageError

Table = Float[np.ndarray, "recipes seeds"]
PerImage = Float[np.ndarray, "recipes seeds images"]
LEVEL = 0.05  # of all comparisons of one figure together


class Comparison(NamedTuple):
    """The difference first minus second, its standard error, degrees of freedom and p value, alone and by Holm."""

    first: str
    second: str
    difference: float
    error: float
    freedom: float
    p: float
    holm: float

    @property
    def significant(self) -> bool:
        return bool(self.holm <= LEVEL)

    @property
    def half(self) -> float:
        """Half of the 95 % interval of this difference alone."""
        return float(stats.t.ppf(1 - 0.05 / 2, self.freedom)) * self.error


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (Holm, 1979): where one is at most 5 %, the difference is significant among them all.

    The i-th least of m values is multiplied by m + 1 - i, and none is less than the one before it.

        from score_sde.experiments.recipes.comparisons import holm

        assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def residuals(values: Table) -> tuple[float, int]:
    """Mean square of the residuals of recipes and seeds, and its degrees of freedom. Raises `UsageError` for one seed.

    A residual is what is left of a value without the means of its recipe and of its seed.
    """
    recipes, seeds = values.shape
    freedom = (recipes - 1) * (seeds - 1)
    if not freedom:
        raise UsageError(f"{recipes} recipes with {seeds} seeds have no differences with an error; use two or more.")
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float(np.square(left).sum() / freedom), freedom


def compare(names: Sequence[str], values: Table, images: PerImage | None = None) -> list[Comparison]:
    """All pairs of recipes. images: the values of each test image, whose means are `values`.

    With images, the variance of a difference is that over seeds plus that over images, so that it holds for other
    trainings and other images of this kind; its degrees of freedom are those of Welch and Satterthwaite.
    """
    values = np.asarray(values, np.float64)
    square, freedom = residuals(values)
    over_seeds = 2 * square / values.shape[1]
    pairs = []
    for i, k in itertools.combinations(range(len(names)), 2):
        parts = [(over_seeds, freedom)]
        if images is not None:
            each = (images[i] - images[k]).mean(axis=0, dtype=np.float64)
            parts.append((float(each.var(ddof=1)) / len(each), len(each) - 1))
        pairs.append((names[i], names[k], float(values[i].mean() - values[k].mean()), *_tested(parts)))
    p_values = [_p_value(difference, error, freedom) for *_, difference, error, freedom in pairs]
    adjusted = holm(p_values)
    return [Comparison(*pair, p, each) for pair, p, each in zip(pairs, p_values, adjusted, strict=True)]


def unequal(values: Table) -> float:
    """Bartlett's p value of equal spreads over seeds in all recipes; 1 where a recipe has no spread at all."""
    if np.any(np.std(values, axis=1) == 0):
        return 1.0
    return float(stats.bartlett(*values).pvalue)


def _tested(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of the sum of independent variances with theirs."""
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / freedom for variance, freedom in parts)
    return float(np.sqrt(total)), float(total**2 / below) if below else float(parts[0][1])


def _p_value(difference: float, error: float, freedom: float) -> float:
    if not error:
        return float(difference == 0)
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def as_values(comparisons: Sequence[Comparison]) -> list[Mapping[str, float | str]]:
    """Comparisons as they are kept in a file."""
    return [each._asdict() for each in comparisons]


def sentence(title: str, pairs: Sequence[Comparison], spread: float | None, name: Callable[[str], str]) -> str:
    """A paragraph on which differences of a figure are significant and which are not.

    spread: of `unequal`. name: the words for what is compared.
    """
    significant, rest = ([each for each in pairs if each.significant is wanted] for wanted in (True, False))
    parts = [f"{title}: {len(significant)} of {len(pairs)} differences are significant."]
    if significant:
        parts.append(f"{_below(significant, name)}.")
    if rest:
        parts.append(f"Not significant: {'; '.join(f'{name(each.first)} and {name(each.second)}' for each in rest)}.")
    if spread is not None and spread < LEVEL:
        parts.append(
            f"The spreads over seeds differ (Bartlett, p {spread:.1g}), so that errors are too small for those with "
            "the larger spreads, and too large for the others."
        )
    return " ".join(parts)


def _below(significant: Sequence[Comparison], name: Callable[[str], str]) -> str:
    """Words on which are below which, those that are below most first."""
    below: dict[str, list[str]] = {}
    for each in significant:
        better, worse = (each.first, each.second) if each.difference < 0 else (each.second, each.first)
        below.setdefault(name(better), []).append(name(worse))
    by_number = sorted(below.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{better} is below {', '.join(worse)}" for better, worse in by_number)
