"""Weights of averages that are made after the fact, from a workdir's snapshots of averages or from a file of them.

They are summed over the snapshots in float64, one saved average in memory at a time.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from score_sde import ema
from score_sde.array_types import PyTree
from score_sde.errors import UsageError, warn
from score_sde.io import atomic_files, checkpoints, workdir
from score_sde.io.digest import digest
from score_sde.training.average_snapshots import FOLDER, AverageSnapshots, power_profiles
from score_sde.training.posthoc import Combination, combination, used_steps

MADE = "ema"  # the folder of files
FACTS = "facts"  # the array that holds them, as JSON


@dataclasses.dataclass(frozen=True)
class Posthoc:
    """Averaged weights made after the fact, NumPy arrays of float32, and their digest.

    facts: step, profile, predicted error, and the averages that they were made of, with coefficients and digests.
    """

    params: PyTree
    digest: str
    facts: dict[str, Any]

    @property
    def error(self) -> float:
        """The predicted error of the profile: see `score_sde.training.posthoc.Combination`."""
        return self.facts["predicted_error"]


def saved_steps(directory: Path) -> list[int]:
    """Steps with a snapshot of averages, ascending."""
    return checkpoints.steps(directory / FOLDER)


def path_of(directory: Path, profile: ema.Power, step: int) -> Path:
    """The file of an average that was made after the fact."""
    return directory / MADE / f"step_{step:08d}_{profile.name.replace(':', '_')}.npz"


def last_step(directory: Path) -> int:
    """The last step with a snapshot of averages. Raises `UsageError` if there is none."""
    if steps := saved_steps(directory):
        return steps[-1]
    raise UsageError(
        f"{directory} has no snapshots of averages, of which others are made after the fact; train with "
        "ema.snapshot_freq above 0."
    )


def tracked(directory: Path, profiles: ema.Profiles) -> tuple[ema.Power, ...]:
    """The run's power profiles. Raises `UsageError` if there is none."""
    if powers := power_profiles(profiles):
        return powers
    raise UsageError(
        f"{directory} keeps no power average, of which others are made after the fact, but "
        f"{', '.join(each.name for each in profiles)}; train with ema.profiles=power:0.05 and power:0.1, say."
    )


def planned(directory: Path, profiles: ema.Profiles, profile: ema.Power, step: int) -> Combination:
    """The combination of saved averages that gives `profile` at `step`; reads no weights. Raises `UsageError`."""
    powers = tracked(directory, profiles)
    last_step(directory)
    return combination(powers, saved_steps(directory), profile, step)


def made(directory: Path, profiles: ema.Profiles, profile: ema.Power, step: int) -> Posthoc:
    """The average of `profile` at `step`, from the file of an earlier call, or from the snapshots.

    profiles: those of the run. Raises `UsageError` where it cannot be made, or a snapshot cannot be read.
    """
    if stored := _stored(directory, profile, step):
        return stored
    plan = planned(directory, profiles, profile, step)
    return _summed(directory, power_profiles(profiles), profile, step, plan)


def write(directory: Path, profile: ema.Power, step: int, average: Posthoc) -> Path:
    """Writes the file from which `made` reads the average, and returns its path."""
    path = path_of(directory, profile, step)
    arrays = {name: np.asarray(leaf) for name, leaf in _flat(average.params).items()}
    facts = np.array(json.dumps(average.facts | {"digest": average.digest}))
    atomic_files.replace(path, lambda file: np.savez(file, **{FACTS: facts}, **arrays))
    return path


def _summed(directory: Path, powers: Sequence[ema.Power], profile: ema.Power, step: int, plan: Combination) -> Posthoc:
    """The weights of a combination."""
    used = used_steps(saved_steps(directory), step)
    coefficients, error = plan
    if profile in powers and step in used:  # a tracked average itself, to the last bit
        coefficients, error = np.zeros_like(coefficients), 0.0
        coefficients[used.index(step), powers.index(profile)] = 1.0
    total: dict[str, np.ndarray] = {}
    sources = []
    with AverageSnapshots(directory / FOLDER) as saved:
        for number, row in zip(used, coefficients, strict=True):
            for power, coefficient in zip(powers, row, strict=True):
                if coefficient == 0:
                    continue
                part = saved.load_part(number, power.name)
                if part is None:
                    raise UsageError(f"The averages of step {number} in {saved.directory} lack {power.name}.")
                for name, leaf in _flat(part).items():
                    total[name] = total.get(name, 0.0) + coefficient * leaf.astype(np.float64)
                sources += [{"step": number, "profile": power.name, "coefficient": float(coefficient)}]
                sources[-1]["digest"] = saved.digest(number)
    params = traverse_util.unflatten_dict({name: leaf.astype(np.float32) for name, leaf in total.items()}, sep="/")
    facts = {"step": step, "profile": profile.name, "predicted_error": error, "averages": sources}
    return Posthoc(params, digest(params), facts | {"versions": workdir.versions()})


def _stored(directory: Path, profile: ema.Power, step: int) -> Posthoc | None:
    """The average in its file; None if there is none, or it is damaged or of other snapshots than those here."""
    path = path_of(directory, profile, step)
    if not path.exists():
        return None
    arrays = atomic_files.read_arrays(path)
    try:
        facts = json.loads(str(arrays.pop(FACTS)))
        params = traverse_util.unflatten_dict(arrays, sep="/")
        whole = facts.pop("digest") == digest(params) and (facts["step"], facts["profile"]) == (step, profile.name)
        digests = {each["step"]: each["digest"] for each in facts["averages"]}
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        warn(f"{path} is damaged; its average is made again.")
        return None
    here = set(saved_steps(directory)) & digests.keys()
    if here:
        with AverageSnapshots(directory / FOLDER) as saved:
            if any(saved.digest(number) != digests[number] for number in here):
                warn(f"{path} was made of other snapshots than those in {directory / FOLDER}; it is made again.")
                return None
    return Posthoc(params, digest(params), facts)


def _flat(params: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(params, sep="/").items()}
