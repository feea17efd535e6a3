"""One life of a run: the command line in a process of its own, killed at a moment, and started again until it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from score_sde.errors import UsageError
from score_sde.io.checkpoints import steps
from score_sde.runtime.clone import PACKAGE

CONFIG = Path(__file__).with_name("config.py")
PHASES = ("train", "eval")
POLL = 0.004  # seconds
TRIES = 30
PROGRAM = (sys.executable, "-m", "score_sde")


class Run(NamedTuple):
    """A folder with the workdir and the logs of its processes; the data are shared."""

    folder: Path
    data_dir: Path
    overrides: Sequence[str] = ()

    @property
    def workdir(self) -> Path:
        return self.folder / "run"

    def log(self, phase: str) -> Path:
        return self.folder / f"{phase}.log"

    def arguments(self, phase: str) -> list[str]:
        """Arguments of the command line."""
        flags = [f"--config={CONFIG}", f"--config.data.data_dir={self.data_dir}", *self.overrides]
        return [*flags, f"--workdir={self.workdir}", f"--mode={phase}"]

    def start(self, phase: str) -> subprocess.Popen:
        """The command line; `log(phase)` is begun anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*PROGRAM, *self.arguments(phase)]
        with self.log(phase).open("w", encoding="utf-8") as log:
            return subprocess.Popen(command, env=environment(self.data_dir.parent), stdout=log, stderr=log)

    def forget(self, phase: str) -> None:
        """Removes what `phase` has written."""
        shutil.rmtree(self.workdir / ("eval" if phase == "eval" else ""), ignore_errors=True)


def environment(cache: Path) -> dict[str, str]:
    """The environment of a process: programs compiled by one serve all."""
    here = {"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])}
    return (
        {
            "JAX_COMPILATION_CACHE_DIR": str((cache / "jax").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        | os.environ
        | here
    )


class Aim(NamedTuple):
    """A moment to kill at: uniform within `seconds` after `seen(run)` has reached one of `marks`."""

    name: str
    phase: str
    seen: Callable[[Run], int]
    marks: Sequence[int]
    seconds: float
    weight: float = 1.0


class Kill(NamedTuple):
    """A kill. steps_lost: updates after the checkpoint that the next start went on from; None for evaluations.
    too_late: moments drawn before this one, at which the process had ended.
    """

    phase: str
    aim: str
    hit: str
    restored: int | None
    steps_lost: int | None
    too_late: int
    problem: str


def saving(run: Run) -> int:
    """The step of an unfinished save, 0 if there is none."""
    return _unfinished(run.workdir / "checkpoints")


def averaging(run: Run) -> int:
    """The step of an unfinished snapshot of averages, 0 if there is none."""
    return _unfinished(run.workdir / "averages")


def _unfinished(folder: Path) -> int:
    names = [path.name for path in folder.glob("*orbax-checkpoint-tmp*")]
    return max((int(name.split(".")[0]) for name in names if name.split(".")[0].isdecimal()), default=0)


def drawing(run: Run) -> int:
    """The step of the last sheet of samples that was begun in training."""
    return max(map(int, re.findall(r"samples at step (\d+)", _text(run.log("train")))), default=0)


def begun(run: Run) -> int:
    """Number that is 0, and 1 from the first sign of work."""
    return int((run.workdir / "config.json").exists())


def evaluating(run: Run) -> int:
    """Number of parts of the evaluation that were begun: loss, bits/dim, samples; of each snapshot."""
    return len(parts(run))


def files(run: Run) -> int:
    """Number of files that the evaluation has written."""
    return _files(run.workdir / "eval")


def pictures(run: Run) -> int:
    """Number of files of samples that the training has written."""
    return _files(run.workdir / "samples")


BEGUN = {"train": begun, "eval": evaluating}


def parts(run: Run) -> list[str]:
    """Parts of the evaluation, by the first lines of their progress."""
    return re.findall(r"^(loss|bits/dim|sampling)[^:\n]*: 0 of ", _text(run.log("eval")), re.MULTILINE)


def reached(run: Run) -> int:
    """The last step in metrics.jsonl."""
    return max(map(int, re.findall(r'^{"step": (\d+),', _text(run.workdir / "metrics.jsonl"), re.MULTILINE)), default=0)


def kill(run: Run, phase: str, aim: Aim, rng: np.random.Generator) -> str | None:
    """Starts a phase and kills it: where it was hit, or None if it had ended by then."""
    mark, delay = rng.choice(aim.marks), rng.uniform(0, aim.seconds)
    with run.start(phase) as process:
        try:
            while process.poll() is None and aim.seen(run) < mark:
                time.sleep(POLL)
            if process.poll() is None:
                time.sleep(delay)
        finally:
            process.kill()
        status = process.wait()  # 0: it had ended by then
    if status not in (0, -signal.SIGKILL):
        raise UsageError(f"{phase} ended with status {status} before it was killed; look at {run.log(phase)}.")
    return _where(run, phase) if status else None


def finish(run: Run, phase: str) -> tuple[str, float]:
    """Runs a phase until it ends: what went wrong, if anything, and the seconds since the first sign of work."""
    with run.start(phase) as process:
        try:
            while process.poll() is None and not BEGUN[phase](run):
                time.sleep(POLL)
            started = time.monotonic()
            status = process.wait()
        finally:
            process.kill()
    last = (_text(run.log(phase)).strip().splitlines() or [""])[-1]
    return f"{phase} ended with status {status}: {last}" if status else "", time.monotonic() - started


def live(run: Run, aims: Sequence[Aim], rng: np.random.Generator) -> list[Kill]:
    """Each phase, killed once and gone on with until its end."""
    kills = []
    for phase in PHASES:
        mine = [aim for aim in aims if aim.phase == phase]
        weights = np.array([aim.weight for aim in mine])
        hit, late = None, -1
        while hit is None:
            late += 1
            if late == TRIES:
                raise UsageError(f"{TRIES} kills of {phase} in {run.folder} came too late; look at {run.log(phase)}.")
            run.forget(phase)
            aim = mine[rng.choice(len(mine), p=weights / weights.sum())]
            hit = kill(run, phase, aim, rng)
        run.log(phase).rename(run.folder / f"{phase}_killed.log")
        done = reached(run)
        problem, _ = finish(run, phase)
        restored = _restored(run) if phase == "train" else None
        lost = None if restored is None else max(0, done - restored)
        kills.append(Kill(phase, aim.name, hit, restored, lost, late, problem))
        if problem:
            break
    return kills


def _restored(run: Run) -> int | None:
    """The step that the last training process began at: the first count of its progress."""
    count = re.search(r"training: ([\d,]+) of ", _text(run.log("train")))
    return int(count[1].replace(",", "")) if count else None


def _where(run: Run, phase: str) -> str:
    if phase == "eval":
        done = parts(run)
        return f"{done[-1] if done else 'before its first part'}, {files(run)} files written"
    where = [f"step {reached(run)} reached, {max(steps(run.workdir / 'checkpoints'), default='nothing')} saved"]
    if saving(run):
        where.append(f"in the save of {saving(run)}")
    if averaging(run):
        where.append(f"in the averages of {averaging(run)}")
    step = drawing(run)
    if step and not (run.workdir / f"samples/snapshots/step_{step:08d}.png").exists():
        where.append(f"in the samples of {step}")
    return ", ".join(where)


def _files(folder: Path) -> int:
    """Finished ones, in a folder that is being written to."""
    return sum(name.endswith((".npz", ".png", ".json")) for _, _, names in os.walk(folder) for name in names)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
