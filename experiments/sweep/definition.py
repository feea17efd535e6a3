"""A sweep, as its file defines it: `sweep = Sweep(...)` and nothing else."""

import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any

from score_sde.experiments.sweep.space import Point, Space

from score_sde.errors import UsageError, one_of
from score_sde.runtime.clone import located

MODES = ("train", "train_dequantizer", "eval")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving:
    """Successive halving: all points train for the first budget, the best 1/keep of them go on to the next.

    budgets: values of training.n_iters, ascending. by: a figure of the evaluation, "bits/dim" say.
    """

    by: str
    budgets: tuple[int, ...]
    keep: float = 3.0
    best: str = "least"  # least | most

    def __post_init__(self):
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise UsageError(f"Halving: the budgets {self.budgets} must ascend, and be at least one.")
        if self.keep <= 1:
            raise UsageError(f"Halving: keep={self.keep} must be larger than 1; 3 keeps the best third.")
        one_of("Halving's best", self.best, ("least", "most"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs of one program that differ in config values.

    space: what they differ in. config: the file of those that name none. common: values for all of them. seeds: each
    point is run with each; none: with the config's own. modes: what is done, in this order. by, best: the figure that
    the table is sorted by. program: what takes score_sde's command line.
    """

    space: Space
    config: str = ""
    common: Point = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    modes: tuple[str, ...] = ("train", "eval")
    halving: Halving | None = None
    by: str = ""
    best: str = "least"  # least | most
    program: tuple[str, ...] = (sys.executable, "-m", "score_sde")

    def __post_init__(self):
        if not len(self.space):
            raise UsageError("The space of the sweep has no points, so there is nothing to run.")
        for mode in self.modes:
            one_of("mode of a sweep", mode, MODES)
        one_of("best", self.best, ("least", "most"))
        repeated = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if repeated:
            raise UsageError(f"The seed {repeated[0]} is there twice; each run is made once.")
        if self.halving and (self.modes[:1], self.modes[-1:]) != (("train",), ("eval",)):
            raise UsageError("Halving goes by evaluations: modes must begin with train and end with eval.")

    def points(self) -> tuple[Point, ...]:
        """Every point with every seed."""
        seeds: list[dict[str, Any]] = [{"seed": seed} for seed in self.seeds] or [{}]
        return tuple({**point, **seed} for point in self.space.points for seed in seeds)


def read(path: str | Path) -> Sweep:
    """The sweep of a file, which is run. Raises `UsageError` where it defines none."""
    path = located(path)
    if not path.is_file():
        raise UsageError(f"No sweep file {path}; experiments/sweep/README.md shows one.")
    try:
        sweep = runpy.run_path(str(path)).get("sweep")
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:  # whatever the file does
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise UsageError(f"Cannot read the sweep {path}: {type(error).__name__}: {reason[0]}") from error
    if not isinstance(sweep, Sweep):
        raise UsageError(f"{path} has no `sweep = Sweep(...)`; experiments/sweep/README.md shows one.")
    return sweep
