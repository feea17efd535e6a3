"""Figures with intervals."""

from typing import Annotated, NamedTuple

from scipy import stats

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

Level = Annotated[float, "(0, 1)"]  # of confidence


class Interval(NamedTuple):
    """A figure and the ends of its interval of confidence."""

    value: float
    low: float
    high: float


@check_arguments
def share(k: Annotated[int, "[0, inf)"], n: Annotated[int, "[1, inf)"], level: Level = 0.95) -> Interval:
    """The share k / n of independent trials that succeeded, with its interval by Wilson (1927).

    level: of confidence. The interval is within [0, 1], and has a width for k = 0 and k = n, too. Raises `UsageError`
    if k is more than n.

        from score_sde.audit.intervals import share

        of = share(9, 10)
        assert of.value == 0.9 and round(of.low, 3) == 0.596 and round(of.high, 3) == 0.982
    """
    if k > n:
        raise UsageError(f"share: k={k} successes are more than n={n} trials; k is at most n.")
    low, high = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    return Interval(k / n, max(0.0, float(low)) if k else 0.0, min(1.0, float(high)) if k < n else 1.0)
