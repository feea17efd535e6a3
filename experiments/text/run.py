"""Trains a model of each set, draws from it, judges what is drawn, and writes results.json and the page."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_sde.experiments.sweep import runs
from score_sde.experiments.sweep.run import commands, drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point
from score_sde.experiments.text import measure, page, report
from score_sde.experiments.text.config import SETS
from score_sde.experiments.text.draw import Numbers, read

from score_sde.errors import UsageError, one_of
from score_sde.io import workdir
from score_sde.metrics import fingerprint

RESULTS = "results.json"
CONFIG = "experiments/text/config.py"
TRAIN = (sys.executable, "-m", "score_sde", "--mode=train")
DRAW = (sys.executable, "-m", "score_sde.experiments.text.draw")


def run(
    folder: Path,
    start: Any,
    sets: Sequence[str],
    numbers: Numbers,
    *,
    network: str = "unet",
    common: Point | None = None,
    retries: int = 1,
) -> int:
    """Makes what there is not of these sets, by a launcher, and judges what there is; 0, or 1 if a run has failed.

    start: None makes nothing. network: of all models, by its name in `config.NETWORKS`. common: config values of all
    runs. Raises `UsageError` for a set that there is not, for too few samples, and where there is nothing to judge.
    """
    for name, least in (("samples", 4), ("curve", 4)):
        if getattr(numbers, name) < least:
            raise UsageError(
                f"--{name}={getattr(numbers, name)} must be at least {least}, for both halves of captions."
            )
    if numbers.curve > numbers.samples:
        raise UsageError(f"--curve={numbers.curve} is more than --samples={numbers.samples}; take fewer.")
    planned = {name: plan(folder, one_of("set", name, SETS), numbers, network, common or {}) for name in sets}
    failures: dict[str, str] = {}
    if start is not None:
        _, failures = drive(list(planned.values()), start, retries, "text", _name)
    finished = {name: each for name, each in planned.items() if each.report}
    if not finished:
        why = next(iter(failures.values()), "run without --report")
        raise UsageError(f"No model is trained and drawn from, so there is nothing to report: {why.rstrip('.')}.")
    drawn = {name: read(each.workdir / each.jobs[-1].folder) for name, each in finished.items()}
    judged = {name: measure.collected(folder / name, each, drawn[name]) for name, each in finished.items()}
    result = {"sets": judged, "network": network, "numbers": numbers._asdict(), "failed": failures}
    workdir.write(folder, RESULTS, result)
    print(report.text(result))
    shown = page.write(folder, result, drawn, commands(list(planned.values())))
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables for a README. Open {shown}")
    return 1 if failures else 0


def plan(folder: Path, name: str, numbers: Numbers, network: str = "unet", common: Point | None = None) -> Run:
    """The training and the draws of a set; their folders are known by the values that they depend on."""
    flags = [runs.flag(key, value) for key, value in (common or {}).items()]
    file = f"{CONFIG}:{name}-{network}"
    config = runs.parsed(file, flags)
    directory = folder / f"{name}-{network}-{runs.digest(workdir.flatten(config.to_dict()))}"
    until, drawn = config.training.n_iters, f"drawn-{fingerprint(numbers._asdict())}"
    train = (*TRAIN, f"--config={file}", f"--workdir={directory}", *flags)
    each = [f"--{key}={value}" for key, value in numbers._asdict().items()]
    draw = (*DRAW, f"--set={name}", f"--workdir={directory}", f"--out={directory / drawn}", *each)
    jobs = (
        Job("train", f"train-{until}", directory, "", until, train),
        Job("eval", drawn, directory, drawn, until, draw),
    )
    return Run({"set": name}, config, jobs)


def _name(run: Run, job: Job) -> str:
    """The name of a job in the display."""
    return f"{run.point['set']}{'' if job.mode == 'train' else ', draws'}"
