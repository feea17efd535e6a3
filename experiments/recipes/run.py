"""Runs the sweep of recipes, compares them, and writes results.json and the page."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.paper.cells import DISTANCE, picked
from score_sde.experiments.recipes import comparisons, report, sweep
from score_sde.experiments.recipes.config import RECIPES
from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep import results, runs
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.run import commands, drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point

from score_sde.errors import UsageError, one_of
from score_sde.io import workdir

RESULTS = "results.json"
Runs = dict[str, dict[str, list[Run]]]  # of a figure and a recipe, one for each seed
PROGRAM = sweep.sweep.program


def run(
    folder: Path,
    start: Any,
    *,
    recipes: Sequence[str] = tuple(RECIPES),
    seeds: int = 3,
    common: Point | None = None,
    retries: int = 1,
) -> int:
    """Makes what there is not, by a launcher, and compares what there is; 0, or 1 if a run has failed.

    start: None makes nothing. common: config values of all runs. Raises `UsageError` for a recipe that there is not,
    where there are no figures, and for distances that do not compare.
    """
    planned = _planned(folder, [one_of("recipe", recipe, RECIPES) for recipe in recipes], seeds, common or {})
    all_runs = [each for of_figure in planned.values() for of_recipe in of_figure.values() for each in of_recipe]
    failures: dict[str, str] = {}
    if start is not None:
        _, failures = drive(all_runs, start, retries, "recipes", functools.partial(_name, planned))
    result = collected(planned, failures)
    workdir.write(folder, RESULTS, result)
    print(report.text(result))
    page = report.write(folder, result, planned, commands(all_runs))
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables for a README. Open {page}")
    return 1 if failures else 0


def _planned(folder: Path, recipes: Sequence[str], seeds: int, common: Point) -> Runs:
    every = Sweep(space=sweep.sweep.space, seeds=tuple(range(seeds)), common=common, program=PROGRAM)
    return {
        figure: {
            recipe: runs.plan(every, folder, [point | {"seed": seed, "config": file} for seed in every.seeds])
            for recipe, file in ((recipe, sweep.file_of(recipe)) for recipe in recipes)
        }
        for figure, point in sweep.FIGURES.items()
    }


def _name(planned: Runs, run: Run, job: Job) -> str:
    """The name of a job in the display."""
    for figure, of_figure in planned.items():
        for recipe, of_recipe in of_figure.items():
            if run in of_recipe:
                what = recipe if job.mode == "train" else f"{recipe}, {figure}"
                return f"{what}, seed {run.point['seed']}"
    return run.id


def collected(planned: Runs, failures: Mapping[str, str]) -> dict[str, Any]:
    """The figures of the runs that are complete, and comparisons of the recipes that have all of their seeds."""
    finished = [run for of in planned.values() for of_recipe in of.values() for run in of_recipe if run.report]
    if not finished:
        why = next(iter(failures.values()), "run without --report")
        raise UsageError(f"No run of the recipes is complete, so there is nothing to report: {why.rstrip('.')}.")
    if len(bases := {results.basis(run) for run in finished} - {""}) > 1:
        raise UsageError(
            f"The distances are by {len(bases)} kinds of features or statistics and do not compare; use a new --folder "
            "and one config.metrics.dir."
        )
    figures = {figure: _figures(figure, of_figure) for figure, of_figure in planned.items()}
    compared = {figure: _compared(figure, figures[figure], planned[figure]) for figure in figures}
    one = next((run for run in finished if results.protocol(run)), finished[0])
    entry = one.report["checkpoints"][-1]
    return {
        "seeds": len(next(iter(next(iter(planned.values())).values()))),
        "updates": one.config.training.n_iters,
        "batch_size": one.config.training.batch_size,
        "num_samples": one.config.eval.num_samples,
        "features": results.protocol(one).get("features", ""),
        "baselines": entry.get("sampling", {}).get("metrics", {}).get("baselines", {}),
        "devices": sorted({device for run in finished for device in run.report.get("devices", [])}),
        "versions": one.report.get("versions", {}),
        "seconds": sum(_seconds(planned).values()),
        "failed": dict(failures),
        "figures": figures,
        **{name: {figure: each[name] for figure, each in compared.items()} for name in ("comparisons", "unequal")},
    }


def _figures(figure: str, of_figure: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Values and standard errors of each recipe, in the order of the seeds, and evaluations where samples are drawn."""
    rows: dict[str, Any] = {}
    for recipe, of_recipe in of_figure.items():
        values = [value for run in of_recipe if (value := _value(figure, run))]
        if not values:
            continue
        nfe = [result["NFE"]["mean"] for run in of_recipe if "NFE" in (result := results.figures(run))]
        rows[recipe] = {
            "values": [value["mean"] for value in values],
            "errors": [value["standard_error"] for value in values],
            "nfe": sum(nfe) / len(nfe) if nfe else None,
        }
    return rows


def _value(figure: str, run: Run) -> dict[str, Any] | None:
    return picked(results.figures(run), (sweep.BITS,) if figure == sweep.BITS else DISTANCE)


def _compared(figure: str, rows: Mapping[str, Any], of_figure: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Comparisons of the recipes that have all seeds: of bits/dim themselves, and of logarithms of distances."""
    seeds = max((len(of_recipe) for of_recipe in of_figure.values()), default=0)
    names = [recipe for recipe, row in rows.items() if len(row["values"]) == seeds]
    if len(names) < 2 or seeds < 2:
        return {"comparisons": [], "unequal": None}
    values, images = np.array([rows[name]["values"] for name in names]), None
    if figure == sweep.BITS:
        images = np.array([[bits_of_images(run) for run in of_figure[name]] for name in names])
    else:
        values = np.log(values)
    pairs = comparisons.compare(names, values, images)
    return {"comparisons": comparisons.as_values(pairs), "unequal": comparisons.unequal(values)}


def bits_of_images(run: Run) -> np.ndarray:
    """Bits/dim of each test image, which its evaluation has kept."""
    folder = run.workdir / run.jobs[-1].folder
    step = run.report["checkpoints"][-1]["step"]
    files = sorted((folder / f"step_{step:08d}").glob("bits_per_dim.*.npz"))
    return np.concatenate([np.load(file)["bits_per_dim"] for file in files])


def _seconds(planned: Runs) -> dict[Path, float]:
    """Seconds of every job, by its file."""
    every = [run for of in planned.values() for of_recipe in of.values() for run in of_recipe]
    return {job.status: program.read(job.status).get("seconds", 0.0) for run in every for job in run.jobs}
