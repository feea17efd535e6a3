"""Runs of points: each is a training and its evaluations, known by the hash of its resolved config.

Points whose configs differ only in what may change after training (`sampling`, `guidance`, `eval`, `metrics`) share one
workdir, so that they are trained once; each is evaluated into a folder of its own. Where files are, and how many
devices there are, is no part of a hash. A job is finished when its files say so, whoever made them.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.space import Point

from score_sde.cli import command_line
from score_sde.config import KEYS, PLACES, keys
from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.io.checkpoints import steps
from score_sde.metrics import fingerprint

CONFIG = "config"  # the key of a point that is the config file
BUDGET = "training.n_iters"
# What moves no number: of the machine, or of what is told and kept.
ELSEWHERE = {
    *PLACES,
    "training.log_freq",
    "training.keep_last",
    "training.snapshot_freq_for_preemption",
}
EVALUATED = ("sampling", "guidance", "eval", "metrics")


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of the program. folder: that it writes in the workdir. until: updates that it makes there."""

    mode: str
    name: str
    workdir: Path
    folder: str
    until: int
    command: tuple[str, ...]

    @property
    def finished(self) -> bool:
        if self.mode == "eval":
            return bool(self.report().get("complete"))
        return self.step >= self.until

    @property
    def step(self) -> int:
        """The step of the last checkpoint."""
        return max(steps(self.workdir / self.folder / "checkpoints"), default=0)

    def report(self) -> dict[str, Any]:
        """The report of an evaluation; {} while there is none."""
        return workdir.read(self.workdir / self.folder, "report.json")

    @property
    def log(self) -> Path:
        return self.workdir / "jobs" / f"{self.name}.log"

    @property
    def status(self) -> Path:
        """The file in which `experiments.sweep.job` records its state."""
        return self.workdir / "jobs" / f"{self.name}.json"

    @property
    def key(self) -> tuple[Path, str]:
        """The key of a job, equal for the same job of other points."""
        return self.workdir, self.name


@dataclasses.dataclass(frozen=True)
class Run:
    """A point, resolved. jobs: in order; each needs the one before."""

    point: Point
    config: ConfigDict
    jobs: tuple[Job, ...]

    @property
    def workdir(self) -> Path:
        return self.jobs[0].workdir

    @property
    def id(self) -> str:
        return "-".join(dict.fromkeys([self.workdir.name, self.jobs[-1].name]))

    @property
    def finished(self) -> bool:
        return all(job.finished for job in self.jobs)

    @property
    def report(self) -> dict[str, Any]:
        """The report of its evaluation, once that is complete; {} before, or without one."""
        report = self.jobs[-1].report() if self.jobs[-1].mode == "eval" else {}
        return report if report.get("complete") else {}


def plan(sweep: Sweep, folder: Path, points: Sequence[Point] | None = None, budget: int | None = None) -> list[Run]:
    """A run for each point of the sweep, or for each of `points`, in workdirs under the folder.

    budget: of successive halving, the number of updates. Raises `UsageError` for a key or value that no config has.
    """
    return [resolve(sweep, point, folder, budget) for point in (sweep.points() if points is None else points)]


def resolve(sweep: Sweep, point: Point, folder: Path, budget: int | None = None, directory: Path | None = None) -> Run:
    """The run of one point. directory: another workdir than that of its hash under the folder. Raises as `plan`."""
    values = sweep.common | point
    if budget is not None:
        values |= {BUDGET: budget, "eval.begin_ckpt": -1}
    file = values.pop(CONFIG, sweep.config)
    if not file:
        raise UsageError("No config file: give the sweep one, as config=..., or each point, under the key 'config'.")
    flags = {key: flag(key, value) for key, value in values.items()}
    config = parsed(file, list(flags.values()))
    if config.wandb.mode != "disabled" and not config.wandb.group:
        config.wandb.group = folder.absolute().name
        flags["wandb.group"] = flag("wandb.group", config.wandb.group)
    flat = workdir.flatten(config.to_dict())
    number = flat[BUDGET]
    of_training = {key: value for key, value in flat.items() if not is_evaluated(key) and not key.startswith("wandb.")}
    if "train_dequantizer" not in sweep.modes:
        of_training = {key: value for key, value in of_training.items() if not key.startswith("dequantizer.")}
    if budget is not None:
        del of_training[BUDGET]  # the budgets of a point are one training, which goes on
    directory = directory or folder / digest(of_training)
    in_evaluation = digest({key: value for key, value in flat.items() if is_evaluated(key)} | {BUDGET: number})
    of_mode = {
        "train": (f"train-{number}", "", number),
        "train_dequantizer": ("train_dequantizer", "dequantizer", flat["dequantizer.n_iters"]),
        "eval": (f"eval-{in_evaluation}", f"eval-{in_evaluation}", number),
    }
    jobs = []
    for mode in sweep.modes:
        name, written, until = of_mode[mode]
        used = [text for key, text in flags.items() if _is_used(mode, key)]
        target = [f"--eval_folder={written}"] if mode == "eval" else []
        command = (*sweep.program, f"--config={file}", f"--workdir={directory}", f"--mode={mode}", *target, *used)
        jobs.append(Job(mode, name, directory, written, until, command))
    return Run(point, config, tuple(jobs))


def parsed(file: str, flags: Sequence[str]) -> ConfigDict:
    """The config of a file with flags, checked as the program's own command line. Raises `UsageError`."""
    return command_line.parse(["sweep", f"--config={file}", *flags]).config


def flag(key: str, value: Any) -> str:
    """A flag that sets a config value. Raises `UsageError` for a value that no flag can have."""
    value = plain(value)
    if not isinstance(value, (str, bool, int, float)):
        raise UsageError(f"{key}={value!r} cannot be set; give a number, text, truth value, or tuple of these.")
    return f"--config.{key}={value}"


def plain(value: Any) -> Any:
    """A tuple as the text that a flag takes; others as they are."""
    if isinstance(value, (tuple, list)):
        return f"({','.join(map(str, value))}{',' if len(value) == 1 else ''})"
    return value


def line(command: Sequence[str]) -> str:
    """A command as a shell takes it; this Python as `python`."""
    return shlex.join("python" if word == sys.executable else word for word in command)


def digest(values: Mapping[str, Any]) -> str:
    """Digest of values that are not at their defaults, without those of `ELSEWHERE`.

    A key that a later version adds is at its default, so runs keep their ids and a sweep goes on.
    """
    chosen = {key: value for key, value in values.items() if not _is_default(key, value)}
    return fingerprint({key: value for key, value in chosen.items() if key not in ELSEWHERE})


def _is_default(key: str, value: Any) -> bool:
    default = KEYS[key].default if key in KEYS else None  # arguments of classes are None where a config sets none
    return keys.plain(value) == keys.plain(default)


def _is_used(mode: str, key: str) -> bool:
    """Whether a mode needs to be told a value: one training, whatever its points, is one command."""
    if mode == "train":
        return not is_evaluated(key)
    # The workdir has the rest.
    return key in ELSEWHERE or is_evaluated(key) or key.startswith(("wandb.", "dequantizer."))


def is_evaluated(key: str) -> bool:
    """Whether a value is none of the training's."""
    return key.split(".")[0] in EVALUATED
