"""Transformers with as many parameters as another network: how many blocks, and how wide."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from score_sde.errors import UsageError

CLOSE = 0.01  # of the target: a number of parameters is as good as equal
WIDEST = 2048


class Size(NamedTuple):
    """The number of blocks of a transformer, and the width of its tokens."""

    depth: int
    width: int


def fitted(count: Callable[[int, int], int], target: int, near: int, depths: Sequence[int], step: int) -> Size:
    """The size at which a transformer has the target's number of parameters, within 1 %, and a width near a usual one.

    A number of parameters is a polynomial of degree 1 in the depth and 2 in the width, so six counts give that of any
    size. count: (depth, width) -> parameters. near: the usual width. depths: to choose from, two or more. step: of
    widths, such as the number of heads. If no size is within 1 %, it is the one that comes nearest. Raises `UsageError`
    for a target that is more than 3 % from every size.

        from score_sde.experiments.transformers.size import fitted

        size = fitted(lambda depth, width: 100 * width + depth * 12 * width**2, 88_000, 48, range(1, 9), 4)
        assert size == (3, 48)  # 87,744
    """
    measured = list(itertools.product(depths[:2], (step, 2 * step, 3 * step)))
    polynomial = np.linalg.solve([_terms(*size) for size in measured], [count(*size) for size in measured])
    sizes = [Size(depth, width) for depth in depths for width in range(step, WIDEST, step)]
    errors = np.abs(np.array([_terms(*size) for size in sizes]) @ polynomial / target - 1)
    best = min(range(len(sizes)), key=lambda i: (max(errors[i], CLOSE), abs(math.log(sizes[i].width / near))))
    if errors[best] > 3 * CLOSE:
        raise UsageError(f"No transformer with {step} heads has about {target:,} parameters; change the U-Net's size.")
    return sizes[best]


def _terms(depth: int, width: int) -> list[float]:
    return [float(depth**i * width**k) for i in (0, 1) for k in (0, 1, 2)]
