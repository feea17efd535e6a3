r"""Accounting of differential privacy: the (epsilon, delta) that the updates of a training spend.

A training is (epsilon, delta)-private if for any two sets of training images D and D' of which one has one image more,
and for any set S of results,

    P[result of D in S]  <=  e^epsilon P[result of D' in S] + delta.                                          (1)

One update is a Gaussian mechanism on a Poisson sample: each image joins with probability q, the gradients of those that
joined are clipped to norm C and added, and noise of standard deviation noise_multiplier C is added to the sum (Abadi et
al., 2016). The privacy-loss distributions of all updates are convolved by Google's dp-accounting, rounded so that
epsilon is an upper bound.

A batch has `capacity` places. Where more images join, the last ones are left out, with probability
tau = P[Binomial(n + 1, q) > capacity] at most for both sets, n being the smaller one. Such a training M~ differs from
the Poisson-sampled M in no other case, so that for T updates, by the union bound, P[M~ in S] and P[M in S] differ by no
more than T tau. Putting this into (1) on both sides,

    P[M~(D) in S]  <=  e^epsilon P[M~(D') in S] + delta + T (1 + e^epsilon) tau,                               (2)

which Chua et al. (2024, "Scalable DP-SGD") have too. `epsilon` solves (2) for the delta that is asked for.
"""

import bisect
import functools
import math
from typing import Annotated, NamedTuple

from scipy import stats

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

RELATION = "sets of training images, with their labels and captions, of which one has one image more"
OF_DELTA, A_MILLION = 1e-3, 10**6  # the part of delta that a capacity by `capacity_for` costs in so many updates
MOST_EPSILON = 700.0  # beyond which e^epsilon is no float
MOST_UPDATES = 10**9

Positive = Annotated[float, "(0, inf)"]
Delta = Annotated[float, "(0, 1)"]
Count = Annotated[int, "[1, 1e9]"]


class Mechanism(NamedTuple):
    """One private update: number of training images, expected batch size, noise multiplier, and places of a batch."""

    images: int
    batch_size: int
    noise_multiplier: float
    capacity: int

    @property
    def rate(self) -> float:
        """The probability q that an image joins an update."""
        return self.batch_size / self.images

    @property
    def overflow(self) -> float:
        """The probability tau that more images join than there are places, of the larger of two neighbouring sets."""
        return float(stats.binom.sf(self.capacity, self.images + 1, self.rate))


Spending = tuple[tuple[Mechanism, int], ...]  # mechanisms, each with the number of its updates


@check_arguments
@functools.lru_cache(maxsize=256)
def epsilon(spending: Spending, delta: Delta) -> float:
    """The least epsilon for which these updates are (epsilon, delta)-private by eq. (2); inf if there is none.

    spending: pairs of a mechanism and the number of its updates, in any order. Raises `UsageError` without the package
    dp-accounting.

        from score_sde.training.accountant import Mechanism, epsilon

        mnist = Mechanism(images=60_000, batch_size=600, noise_multiplier=4.0, capacity=900)
        spent = epsilon(((mnist, 10_000),), delta=1e-5)  # 0.95; 1.26 by the bound of Abadi et al. (2016)
    """
    dp, accountants = _library()
    accountant = accountants.PLDAccountant(neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    lost = 0.0  # T tau
    for mechanism, updates in spending:
        if updates:
            event = dp.PoissonSampledDpEvent(mechanism.rate, dp.GaussianDpEvent(mechanism.noise_multiplier))
            accountant.compose(event, updates)
            lost += updates * mechanism.overflow
    value, before = 0.0, -1.0
    while value > before:  # rises to the least solution, or until nothing of delta is left
        before, left = value, delta - lost * (1 + math.exp(value))
        value = float(accountant.get_epsilon(left)) if left > 0 else math.inf
        if value > MOST_EPSILON:
            return math.inf
    return before


@check_arguments
def most_updates(mechanism: Mechanism, limit: Positive, delta: Delta, before: Spending = ()) -> int:
    """The largest number of further updates after which epsilon is at most `limit`; 0 if there is none.

    before: updates that are spent already.
    """

    def fits(updates: int) -> bool:
        return epsilon((*before, (mechanism, updates)), delta) <= limit

    low, high = 0, 1
    while high < MOST_UPDATES and fits(high):
        low, high = high, 2 * high
    if high >= MOST_UPDATES:
        return MOST_UPDATES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@check_arguments
def capacity_for(images: Count, batch_size: Count, limit: Positive, delta: Delta) -> int:
    """The least number of places whose overflow in a million updates costs a thousandth of delta, at epsilon=limit."""
    allowed = OF_DELTA * delta / A_MILLION / (1 + math.exp(min(limit, MOST_EPSILON)))
    # Not binom.isf, which goes by 1 - allowed.
    return bisect.bisect_left(
        range(images + 1), -allowed, key=lambda places: -stats.binom.sf(places, images + 1, batch_size / images)
    )


@functools.cache
def _library() -> tuple:
    """The modules of dp-accounting. Raises `UsageError` where it is not installed."""
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError as error:
        raise UsageError(
            'Private training is accounted for by dp-accounting: pip install "score-sde[privacy]".'
        ) from error
    return dp_accounting, pld
