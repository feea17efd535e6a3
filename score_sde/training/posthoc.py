"""Averages made after the fact: any power-function average of a run, as a sum of averages that the run has saved.

A run that keeps power-function averages (`score_sde.ema.Power`) and saves them by schedule has, after update T, the sum
over s of w(s; a, T) theta_s, where theta_s are the weights after update s, a = gamma + 1 is a profile's exponent, and

    w(s; a, T) = (s^a - (s-1)^a) / T^a,  s = 1, ..., T.

A sum of saved averages has such weights too, so the coefficients that bring them nearest to another profile's, in the
sense of least squares, give that profile's average (Karras et al. 2024, section 3.2 and appendix C.3). The paper takes
integrals of power functions; here the weights are those that were really tracked, which for few updates differ.

The system A x = b of the paper has a condition number of 5e8 for 256 snapshots of two profiles. We solve it without
forming it. Between two saved steps T_(k-1) < s <= T_k, all saved averages of one profile have weights proportional to
w(s; a, T_k), and any factors can be had on any interval, since the average saved at T_k ends there. So the problem
falls into one of as many unknowns as there are profiles for each interval, and x follows by differences.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from score_sde.array_types import Float
from score_sde.config.arguments import check_arguments
from score_sde.ema import Power, gamma
from score_sde.errors import UsageError

LARGEST_ERROR = 0.1  # of a profile: at most 5 % of an average's weights are at other updates than they should be

Step = Annotated[int, "[1, 2e7]"]
Exponents = tuple[float, ...]


class Combination(NamedTuple):
    """Coefficients, float64 (steps, profiles), of the averages saved at each step; their sum is 1.

    error: the sum over updates of the absolute differences between the weights that were asked for and those of the
    combination. If a parameter stays within c +- r during the run, its combination is at most `error` times r away from
    the average asked for, and a path of +-r reaches that.
    """

    coefficients: Float[np.ndarray, "steps profiles"]
    error: float


@check_arguments
def combination(tracked: Sequence[Power], steps: Sequence[Step], target: Power, step: Step) -> Combination:
    """The sum of saved averages whose weights are nearest to those of the profile `target` after update `step`.

    tracked: profiles that were saved together. steps: updates after which they were, ascending; those up to the first
    at or after `step` are used. Raises `UsageError` where the combination would be no average of that profile: with
    fewer than two snapshots, for a step after the last of them, and where the error is above `LARGEST_ERROR`.

        from score_sde.ema import Power
        from score_sde.training.posthoc import combination

        steps = range(100, 1001, 100)
        made = combination([Power(0.05), Power(0.1)], steps, Power(0.075), 1000)  # made.error is 0.008
    """
    used = used_steps(steps, step)
    if not tracked:
        raise UsageError("There is no power-function average to combine; train with ema.profiles=power:0.05, say.")
    if len(used) < 2:
        raise UsageError(
            f"An average after the fact is made of two snapshots of averages or more, and up to step {step:,} there "
            "is one; choose a later step, or train with a smaller ema.snapshot_freq."
        )
    made = nearest(tracked, used, target, step)
    if not made.error <= LARGEST_ERROR:
        raise UsageError(
            f"{target.name} at step {step:,} cannot be made from {len(used)} snapshots of "
            f"{', '.join(profile.name for profile in tracked)}: its predicted profile error is {made.error:.2g}, above "
            f"{LARGEST_ERROR:g}, since {_reason(tracked, used, target, step)}."
        )
    return made


@check_arguments
def used_steps(steps: Sequence[Step], step: Step) -> list[int]:
    """The steps up to the first at or after `step`; snapshots saved later change no average that is made.

    Raises `UsageError` where all are before `step`, or there are none.
    """
    if not steps:
        raise UsageError("There are no snapshots of averages to combine; train with ema.snapshot_freq above 0.")
    if step > max(steps):
        raise UsageError(f"The last snapshot of the averages is of step {max(steps):,}; step {step:,} is after it.")
    ordered = sorted(steps)
    return [s for s, before in zip(ordered, [0, *ordered], strict=False) if before < step]


def _reason(tracked: Sequence[Power], used: Sequence[int], target: Power, step: int) -> str:
    """The reason for a large error, with the remedy."""
    widths = [profile.sigma_rel for profile in tracked]
    if step not in used:
        return f"no snapshot is of step {step:,}; choose one of {', '.join(f'{s:,}' for s in used[-2:])}"
    if target.sigma_rel < min(widths):
        return "it is narrower than all that were tracked; the raw weights are the narrowest average of all"
    if target.sigma_rel > max(widths):
        return "it is wider than all that were tracked; train with a wider one in ema.profiles"
    return "the snapshots are too far apart; train with a smaller ema.snapshot_freq"


@check_arguments
def nearest(tracked: Sequence[Power], steps: Sequence[Step], target: Power, step: Step) -> Combination:
    """The combination of `combination`, however large its error. tracked and steps: one or more of each.

    A tracked profile at one of the steps has the coefficient 1 there, and others of about 1e-15.
    """
    exponents, wanted = tuple(gamma(profile.sigma_rel) + 1 for profile in tracked), gamma(target.sigma_rel) + 1
    steps = sorted(steps)
    # Factors of w(s; a, T_k) on each interval that ends at T_k, for each profile.
    factors = np.array([_fit(columns, goal) for columns, goal in _intervals(exponents, steps, wanted, step)])
    ends = np.array(steps, np.float64)
    later = (ends[:-1, None] / ends[1:, None]) ** np.array(exponents) * factors[1:]
    x = factors.copy()
    x[:-1] -= later
    total = x.sum()
    error = sum(
        float(np.abs(goal - columns @ own / total).sum())
        for own, (columns, goal) in zip(factors, _intervals(exponents, steps, wanted, step), strict=True)
    )
    return Combination(x / total, error)


def _fit(columns: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The factors of columns (n, profiles) by least squares, the smallest if there are several."""
    scale = np.linalg.norm(columns, axis=0)
    return np.linalg.lstsq(columns / scale, goal, rcond=None)[0] / scale


def _intervals(
    exponents: Exponents, steps: Sequence[int], wanted: float, step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights of the updates of each interval: of each tracked average at its end, (n, profiles), and of the target."""
    for before, end in itertools.pairwise([0, *steps]):
        s = np.arange(before + 1, end + 1, dtype=np.float64)
        columns = np.stack([_weights(s, a, end) for a in exponents], axis=1)
        yield columns, np.where(s <= step, _weights(s, wanted, step), 0.0)


def _weights(s: np.ndarray, a: float, total: int) -> np.ndarray:
    """The weights w(s; a, total), without a difference of two large powers."""
    with np.errstate(divide="ignore", over="ignore"):  # log(1 - 1/s) at s = 1; powers of updates after the last
        return np.exp(a * np.log(s / total)) * -np.expm1(a * np.log1p(-1 / s))
