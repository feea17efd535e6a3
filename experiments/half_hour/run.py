"""Trains and evaluates the cells, and writes results.json, a table and a page with samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_sde.experiments.half_hour import report
from score_sde.experiments.half_hour.config import CELLS
from score_sde.experiments.paper.cells import BITS, DISTANCE, picked
from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep import results, runs
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.run import drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point, Space

from score_sde.errors import one_of
from score_sde.io import workdir

RESULTS = "results.json"
IMAGES = 1000  # of the test set, the same ones for every recipe
LIKELIHOOD: Point = {"eval.enable_bpd": True, "eval.enable_sampling": False}
SAMPLES: Point = {"eval.enable_bpd": False, "eval.enable_sampling": True}
SAMPLERS: dict[str, Point] = {
    "dpmpp_2m_sde, 40 evaluations": {
        "sampling.method": "dpmpp_2m_sde",
        "sampling.grid": "log_snr",
        "sampling.num_steps": 39,
    },
    "dpmpp_2m, 35 evaluations": {"sampling.method": "dpmpp_2m", "sampling.grid": "log_snr", "sampling.num_steps": 34},
}
BITS_PER_DIM = "bits/dim"
PROGRAM = Sweep(space=Space(({},))).program


def run(
    folder: Path,
    start: Any,
    *,
    cells: Sequence[str] = CELLS,
    all_images: bool = False,
    common: Point | None = None,
    retries: int = 1,
) -> int:
    """Makes what there is not of these cells, by a launcher, and reports every cell; 0, or 1 if a run has failed.

    start: None makes nothing. all_images: bits/dim are those of the whole test set. common: config values of all runs.
    Raises `UsageError` for a cell that there is not.
    """
    for cell in cells:
        one_of("cell", cell, CELLS)
    planned = {cell: _planned(folder, cell, all_images, common or {}) for cell in CELLS}
    failures: dict[str, str] = {}
    if start is not None:
        chosen = [each for cell in cells for each in planned[cell].values()]
        names = {each.id: (cell, part) for cell in cells for part, each in planned[cell].items()}

        def named(each: Run, job: Job) -> str:
            cell, part = names[each.id]
            return cell if job.mode == "train" else f"{cell}, {part}"

        _, failures = drive(chosen, start, retries, "half_hour", named)
    result = {"cells": {cell: collected(cell, of_cell, failures) for cell, of_cell in planned.items()}}
    workdir.write(folder, RESULTS, result)
    print(report.text(result))
    page = report.write(folder, result, planned)
    print(f"{folder / RESULTS} has the figures, {folder / report.TABLE} the tables for a README. Open {page}")
    return 1 if failures else 0


def _planned(folder: Path, cell: str, all_images: bool, common: Point) -> dict[str, Run]:
    part = {} if all_images else {"eval.max_images": IMAGES}
    points = {BITS_PER_DIM: LIKELIHOOD} | {name: SAMPLES | sampler for name, sampler in SAMPLERS.items()}
    file = f"experiments/half_hour/config.py:{cell}"
    sweep = Sweep(space=Space(tuple(points.values())), config=file, common=part | common, program=PROGRAM)
    return dict(zip(points, runs.plan(sweep, folder), strict=True))


def collected(cell: str, of_cell: Mapping[str, Run], failures: Mapping[str, str]) -> dict[str, Any]:
    """The figures that there are of a cell."""
    runs_of_cell = list(of_cell.values())
    first, training = runs_of_cell[0], runs_of_cell[0].jobs[0]
    seconds = program.read(training.status).get("seconds") if training.finished else None
    samples = {}
    for name, run in of_cell.items():
        if name == BITS_PER_DIM or not run.report:
            continue
        figures = results.figures(run)
        measured = run.report["checkpoints"][-1]["sampling"]["metrics"]
        held_out = picked(measured.get("baselines", {}).get("held-out images", {}), DISTANCE)
        samples[name] = {"nfe": figures["NFE"]["mean"], "distance": picked(figures, DISTANCE), "held_out": held_out}
        samples[name] |= {"num_samples": run.config.eval.num_samples, "features": results.protocol(run).get("features")}
    bits = first.report["checkpoints"][-1]["bits_per_dim"] if first.report else None
    return {
        "updates": training.until if training.finished else None,
        "batch_size": first.config.training.batch_size,
        "training_seconds": seconds,
        BITS_PER_DIM: picked({BITS[0]: bits}, BITS) if bits else None,
        "samples": samples,
        "devices": sorted({device for run in runs_of_cell for device in run.report.get("devices", [])}),
        "versions": next((run.report["versions"] for run in runs_of_cell if "versions" in run.report), {}),
        "failed": next((failures[run.id] for run in runs_of_cell if run.id in failures), ""),
        "commands": [runs.line(job.command) for job in _jobs(runs_of_cell)],
    }


def _jobs(runs_of_cell: Sequence[Run]) -> list[Job]:
    """The jobs of a cell, each once."""
    return list({job.key: job for run in runs_of_cell for job in run.jobs}.values())
