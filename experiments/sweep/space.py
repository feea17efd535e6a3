"""Spaces of a sweep: points, each {config key: value}, made by `grid`, `zipped` and `random`.

Spaces are multiplied, every point of one with every point of the other, and added, one after the other. The key
"config" is the config file itself.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from score_sde.errors import UsageError

Point = dict[str, Any]
Draw = Callable[[Any], Any]  # of a NumPy generator; the process around each job imports this, and draws nothing


@dataclasses.dataclass(frozen=True)
class Space:
    """Points in order."""

    points: tuple[Point, ...]

    def __mul__(self, other: "Space") -> "Space":
        for key in {key for point in self.points for key in point} & {key for point in other.points for key in point}:
            raise UsageError(f"'{key}' is in both factors of a product of spaces; leave it in one.")
        return Space(tuple(first | second for first, second in itertools.product(self.points, other.points)))

    def __add__(self, other: "Space") -> "Space":
        return Space(self.points + other.points)

    def __len__(self) -> int:
        return len(self.points)


def grid(values: Mapping[str, Sequence[Any]]) -> Space:
    """Every combination of the values of each key; the last key varies fastest."""
    _check("grid", values)
    return Space(tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())))


def zipped(values: Mapping[str, Sequence[Any]]) -> Space:
    """The first values of all keys, then the second ones, and so on."""
    _check("zipped", values)
    lengths = {key: len(of_key) for key, of_key in values.items()}
    if len(set(lengths.values())) > 1:
        numbers = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise UsageError(f"zipped: the keys have different numbers of values ({numbers}); give as many for each.")
    return Space(tuple(dict(zip(values, chosen, strict=True)) for chosen in zip(*values.values(), strict=True)))


def random(n: int, draws: Mapping[str, Draw], seed: int = 0) -> Space:
    """`n` points, each key drawn by `uniform`, `log_uniform`, `integers` or `choice`.

    Point i depends on (seed, i) only, so a larger n keeps the points there were.
    """
    if n < 1 or not draws:
        raise UsageError(f"random: {n} points of {len(draws)} keys are none; give at least one of each.")
    for key, draw in draws.items():
        if not callable(draw):
            raise UsageError(f"random: {key}={draw!r} is no distribution; give uniform(low, high) or another.")
    import numpy as np

    return Space(
        tuple(
            {key: draw(np.random.default_rng([seed, i, j])) for j, (key, draw) in enumerate(draws.items())}
            for i in range(n)
        )
    )


def uniform(low: float, high: float) -> Draw:
    """A law of values in [low, high]."""
    return lambda generator: _rounded(generator.uniform(low, high))


def log_uniform(low: float, high: float) -> Draw:
    """A law of values in [low, high], low > 0, uniform in the logarithm."""
    if not 0 < low <= high:
        raise UsageError(f"log_uniform({low}, {high}): 0 < low <= high must hold.")
    import numpy as np

    return lambda generator: _rounded(np.exp(generator.uniform(np.log(low), np.log(high))))


def integers(low: int, high: int) -> Draw:
    """low, ..., high."""
    return lambda generator: int(generator.integers(low, high + 1))


def choice(*values: Any) -> Draw:
    """A law that takes one of the values."""
    return lambda generator: values[generator.integers(len(values))]


def _rounded(value: float) -> float:
    """The value to four digits, so that it can be read and typed."""
    return float(f"{value:.4g}")


def _check(kind: str, values: Mapping[str, Sequence[Any]]) -> None:
    if not values:
        raise UsageError(f"{kind}: there are no keys, so there is nothing to run; give at least one.")
    for key, of_key in values.items():
        if isinstance(of_key, str) or not isinstance(of_key, Sequence):
            raise UsageError(f"{kind}: the values of {key} are {of_key!r}; give a list of them.")
        if not of_key:
            raise UsageError(f"{kind}: {key} has no values, so there is nothing to run; give at least one.")
