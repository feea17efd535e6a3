"""Snapshots of a run's power-function averages, from which `score_sde.training.posthoc` makes others.

They are in averages/STEP of a workdir, one tree for each profile by its name, with the digests of checkpoints.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from score_sde import ema
from score_sde.array_types import PyTree
from score_sde.io.checkpoints import Checkpoints, NoCheckpoints, Retention, steps
from score_sde.runtime.sharding import all_agree
from score_sde.training.state import TrainState

FOLDER = "averages"
EVERY_ONE = Retention(last=1, every=1)


class Schedule(NamedTuple):
    """Snapshots every `every` updates and at the end; `of` gives the averages of a state, by name."""

    every: int
    of: Callable[[TrainState], dict[str, PyTree]]

    def is_due(self, step: int, n_iters: int) -> bool:
        return step % self.every == 0 or step == n_iters


def power_profiles(profiles: ema.Profiles) -> tuple[ema.Power, ...]:
    """The profiles whose averages are saved."""
    return tuple(profile for profile in profiles if isinstance(profile, ema.Power))


def schedule(profiles: ema.Profiles, every: int) -> Schedule | None:
    """The schedule of a run with these profiles; None if it saves no averages. every: `ema.snapshot_freq`."""
    powers = power_profiles(profiles)

    def of(state: TrainState) -> dict[str, PyTree]:
        return {profile.name: ema.average(profiles, state.ema_params, profile) for profile in powers}

    return Schedule(every, of) if every and powers else None


class AverageSnapshots(Checkpoints):
    """The snapshots of averages under one folder, numbered by step.

    directory: averages/ of a workdir. planned, n_iters: the schedule and the updates of the run that saves here.
    """

    kind = "snapshot of the averages"
    _planned: Schedule | None = None

    def __init__(self, directory: Path, planned: Schedule | None = None, n_iters: int = 0):
        """Opens the folder."""
        super().__init__(directory, EVERY_ONE if planned else None)
        self._planned, self._n_iters = planned, n_iters

    def is_due(self, step: int) -> bool:
        """Whether the averages after this update are saved."""
        return self._planned is not None and self._planned.is_due(step, self._n_iters)

    def keep(self, step: int, state: TrainState) -> None:
        """Saves the averages in the background, unless they are there: a run that goes on may come by again."""
        averages = self._planned.of(state)
        there = all_agree(step in steps(self.directory))
        if not (there and all_agree(self.holds(step, averages))):
            self.save(step, averages, overwrite=there)


class NoSnapshots(NoCheckpoints, AverageSnapshots):
    """Snapshots of a run that saves none: nothing is due."""
