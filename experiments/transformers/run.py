"""Trains and evaluates the four models with several seeds, compares them, and writes results.json and the page."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_sde.experiments.sweep import runs
from score_sde.experiments.sweep.run import commands, drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point
from score_sde.experiments.transformers import costs, measure, page, report
from score_sde.experiments.transformers.config import AUTOREGRESSIVE, MODELS, data_of, parameters, size

from score_sde.errors import UsageError, one_of
from score_sde.io import workdir
from score_sde.metrics import fingerprint

RESULTS = "results.json"
CONFIG = "experiments/transformers/config.py"
PROGRAM = (sys.executable, "-m", "score_sde")
TRAIN = dict.fromkeys(MODELS, ("--mode=train",))
TRAIN |= {AUTOREGRESSIVE: ("--mode=experiment", "--name=autoregressive", "--steps=train")}
DRAW = (sys.executable, "-m", "score_sde.experiments.transformers.draw")
Runs = dict[str, list[Run]]  # of a model, one for each seed


def run(
    folder: Path,
    start: Any,
    *,
    dataset: str = "digits",
    models: Sequence[str] = MODELS,
    seeds: int = 3,
    num_samples: int = 512,
    num_filled: int = 96,
    common: Point | None = None,
    retries: int = 1,
) -> int:
    """Makes what there is not, by a launcher, and compares what there is; 0, or 1 if a run has failed.

    start: None makes nothing. num_samples: of each model. num_filled: test images that it fills in. common:
    config values of all runs. Raises `UsageError` for a model that there is not, and where there are no figures.
    """
    chosen = [one_of("model", model, MODELS) for model in models]
    draws = {"num_samples": num_samples, "num_filled": num_filled}
    planned = _planned(folder, dataset, chosen, seeds, draws, common or {})
    every = [each for of_model in planned.values() for each in of_model]
    failures: dict[str, str] = {}
    if start is not None:
        _, failures = drive(every, start, retries, "transformers", _name)
    finished = {name: [each for each in of_model if each.report] for name, of_model in planned.items()}
    if not any(finished.values()):
        why = next(iter(failures.values()), "run without --report")
        raise UsageError(f"No model is trained and evaluated, so there is nothing to report: {why.rstrip('.')}.")
    drawn = {name: measure.read(of_model) for name, of_model in finished.items() if of_model}
    result = measure.collected(folder, finished, drawn)
    result |= {"dataset": dataset, "seeds": seeds, "failed": failures}
    result["costs"] = costs.measured(folder, finished, may_run=start is not None)
    workdir.write(folder, RESULTS, result)
    print(report.text(result))
    shown = page.write(folder, result, drawn, commands(every))
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables for a README. Open {shown}")
    return 1 if failures else 0


def _planned(
    folder: Path, dataset: str, models: Sequence[str], seeds: int, draws: Mapping[str, int], common: Point
) -> Runs:
    """A training and its draws for each model and seed."""
    target = parameters(_config("unet", data_of(dataset, "unet") | common))
    planned = {}
    for name in models:
        values = data_of(dataset, name) | common
        if name != "unet":
            fitted = size(name, _config(name, values), target)._asdict()
            values = {f"model.{key}": value for key, value in fitted.items()} | values
        planned[name] = [_run(folder, name, values | {"seed": seed}, draws) for seed in range(seeds)]
    return planned


def _config(name: str, values: Point) -> Any:
    return runs.parsed(f"{CONFIG}:{name}", [runs.flag(key, value) for key, value in values.items()])


def _run(folder: Path, name: str, values: Point, draws: Mapping[str, int]) -> Run:
    """The run of a model with these config values; its folders are known by the values that they depend on."""
    config = _config(name, values)
    flat = workdir.flatten(config.to_dict())
    directory, until = folder / f"{name}-{values['seed']}-{runs.digest(flat)}", config.training.n_iters
    flags = [runs.flag(key, value) for key, value in values.items()]
    train = (*PROGRAM, *TRAIN[name], f"--config={CONFIG}:{name}", f"--workdir={directory}", *flags)
    drawn = f"drawn-{fingerprint(dict(draws))}"
    numbers = [f"--{key}={value}" for key, value in draws.items()]
    draw = (*DRAW, f"--model={name}", f"--workdir={directory}", f"--out={directory / drawn}", *numbers)
    jobs = (
        Job("train", f"train-{until}", directory, "", until, train),
        Job("eval", drawn, directory, drawn, until, draw),
    )
    return Run({"model": name, "seed": values["seed"]}, config, jobs)


def _name(run: Run, job: Job) -> str:
    """The name of a job in the display."""
    part = "" if job.mode == "train" else ", draws"
    return f"{report.NAMES[run.point['model']]}{part}, seed {run.point['seed']}"
