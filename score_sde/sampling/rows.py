"""Rows of the tables of fast solvers: time grids, and weights in y = x / alpha that become weights in x."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.process import Process, in_float64
from score_sde.sampling.tabulated import Table


@check_arguments
@dataclasses.dataclass(frozen=True)
class Grid:
    """Times t_0 > ... > t_n with their noise levels, in float64."""

    process: Process
    t: Annotated[np.ndarray, "(0, 1]"]
    denoises: bool = True  # whether one more step, to level 0, follows

    def __post_init__(self):
        if self.t.ndim != 1 or len(self.t) < 2 or not np.all(np.diff(self.t) < 0):
            raise UsageError("A grid is of two or more times, each less than the one before.")

    @functools.cached_property
    def k(self) -> np.ndarray:
        return in_float64(self.process.noise_level, self.t)

    def time(self, k: np.ndarray) -> np.ndarray:
        """Times of noise levels k, in float64."""
        return in_float64(self.process.time, k)

    def between(self, i: int, fraction: float) -> tuple[float, float]:
        """(t, k) inside step i, at this fraction of it in log k."""
        k = self.k[i] ** (1 - fraction) * self.k[i + 1] ** fraction
        return float(self.time(np.array([k]))[0]), float(k)


Weights = Sequence[float] | np.ndarray  # of base and of evaluations, the latest first


class Rows:
    """Collects the rows of a table, as weights in y = x / alpha."""

    def __init__(self, *, predicts_data: bool = False):
        self.predicts_data = predicts_data
        self.t, self.base, self.trial, self.at, self.noise = [], [], [], [], []

    def add(
        self, t: float, base: Weights, trial: Weights | None = None, *, at: float | None = None, noise: float = 0.0
    ) -> None:
        """Adds the row of one evaluation.

        Without `trial` the row completes a step. With it, the row is one inside a step: base then stands at the time
        `at`, or stays as it was.
        """
        self.t.append(t)
        self.base.append(base)
        self.trial.append(base if trial is None else trial)
        self.at.append(at if at is not None else NEXT if trial is None else KEPT)
        self.noise.append(noise)

    def table(self, grid: Grid) -> Table:
        """The table of weights in x: weights in y, times alpha where a row ends, over alpha where its base is."""
        width = max(map(len, self.base + self.trial))
        base, trial = (
            np.array([[*row, *[0.0] * (width - len(row))] for row in rows]) for rows in (self.base, self.trial)
        )
        ends = np.append(self.t[1:], grid.t[-1])
        is_at, places = grid.t[0], []
        for at, end in zip(self.at, ends, strict=True):
            starts, is_at = is_at, {KEPT: is_at, NEXT: end}.get(at, at)
            places.append((starts, is_at, end))
        starts, bases, trials = (
            in_float64(grid.process.alpha, np.array(column)) for column in zip(*places, strict=True)
        )
        base, trial = base * bases[:, None], trial * trials[:, None]
        base[:, 0], trial[:, 0] = base[:, 0] / starts, trial[:, 0] / starts
        return Table(
            self.predicts_data, np.array(self.t), base, trial, np.zeros(len(base)), trials * np.array(self.noise)
        )


KEEP = (1.0,)  # base stays as it is
KEPT, NEXT = "kept", "next"  # where base is after a row: where it was, or where the row ends


def first_step(process: Process, t: np.ndarray, table: Table | None, kept: float) -> Table:
    """A table that begins with the step from t[0], where alpha is 0, to t[1]; the rows of `table` follow.

    kept: the share of e that stays; the rest is fresh noise.
    """
    alpha, sigma = (in_float64(part, t[1:2]).item() for part in (process.alpha, process.sigma))
    data = table is not None and table.predicts_data
    weights = (alpha, sigma * kept) if data else (sigma * kept, alpha)
    width = 2 if table is None else table.base.shape[1]
    row, noise = np.array([[0.0, weights[0]] + [0.0] * (width - 2)]), sigma * np.sqrt(1 - kept**2)
    first = Table(data, t[:1], row, row, np.array(weights[1:]), np.array([noise]))
    return first if table is None else Table(data, *map(np.concatenate, zip(first[1:], table[1:], strict=True)))
