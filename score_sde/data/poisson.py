"""Poisson batches: each image of a data set joins an update by a coin of its own.

Guarantees of differential privacy count on it: whether an image joins says nothing about the others. The number of
images differs from update to update, and a compiled update needs a fixed one, so that batches have `capacity` places,
of which some stay empty.
"""

from typing import Annotated

import numpy as np

from score_sde.array_types import Integer
from score_sde.config.arguments import check_arguments
from score_sde.config.keys import SEEDS
from score_sde.data.batches import Number, Step

EMPTY = -1  # the number of a place without an image


@check_arguments
def poisson_batch(
    n: Number,
    rate: Annotated[float, "(0, 1]"],
    capacity: Number,
    *,
    seed: Annotated[int, SEEDS],
    step: Step,
) -> Integer[np.ndarray, " capacity"]:
    """Indices of the images of one update, ascending, and -1 for each place that stays empty; int64 (capacity,).

    Each of the n images joins with probability `rate`, to within 2^-53, independently of the others: a function of
    (seed, step, index) alone. Of more images than places the last ones are left out.

        from score_sde.data import poisson_batch

        indices = poisson_batch(100, 0.1, 16, seed=0, step=7)
    """
    # Raw numbers of Philox, a function of (key, counter), are the same in all versions of NumPy.
    coins = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw(n) >> np.uint64(11)
    joined = np.flatnonzero(coins < round(rate * 2**53))[:capacity]
    return np.concatenate([joined, np.full(capacity - len(joined), EMPTY)])
