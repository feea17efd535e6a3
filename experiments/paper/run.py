"""A table of the paper: its cells as runs of a sweep, made where asked for, and filled with what there is."""

import functools
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.experiments.paper import report
from score_sde.experiments.paper.cells import DISTANCE, SCORE, Cell, Table, judge, picked
from score_sde.experiments.paper.tables import SCALES, TABLES
from score_sde.experiments.sweep import job as program
from score_sde.experiments.sweep import results, runs
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.results import Figure
from score_sde.experiments.sweep.run import drive
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.space import Point, Space

from score_sde.io.checkpoints import steps

PROGRAM = (sys.executable, "-m", "score_sde")
AUTHORS = "authors"  # the folder of workdirs that were imported from the authors' checkpoints


class Filled(NamedTuple):
    """A cell with what there is of it. ours: over seeds; None where no run is complete. why: runs have failed.

    samples, real: image elements of its samples and of real images, or "".
    """

    cell: Cell
    ours: Figure | None
    authors: Figure | None
    nfe: Figure | None
    hardware: str
    seconds: float | None
    fingerprint: str
    why: str
    commands: tuple[str, ...]
    samples: str
    real: str


def table(
    name: str,
    scale: str,
    folder: Path,
    *,
    seeds: Sequence[int] = (),
    common: Point | None = None,
    best: bool = False,
    start: Any = None,
    retries: int = 1,
) -> int:
    """Prints a table and writes its page; 0, or 1 if a run has failed.

    seeds: that each network is trained with, default the config's. common: other config values for all cells. best: of
    several checkpoints the least distance counts, as in the paper, instead of the last one. start: a launcher, which
    makes what there is not.
    """
    whole = TABLES[name](SCALES[scale])
    sweep = _sweep(whole, scale, seeds, common or {}, best)
    of_cells = [runs.plan(sweep, folder, _points(sweep, i)) for i in range(len(whole.cells))]
    all_runs = [run for of_cell in of_cells for run in of_cell]
    failures: dict[str, str] = {}
    if start is not None:
        names = {run.id: cell for cell, of_cell in zip(whole.cells, of_cells, strict=True) for run in of_cell}

        def named(run: Run, job: Job) -> str:
            cell = names[run.id]
            seed = f", seed {run.point['seed']}" if "seed" in run.point else ""
            return (f"{cell.row}, {cell.column}" if job.mode == "eval" else cell.config) + seed

        _, failures = drive(all_runs, start, retries, f"{name}, {scale} scale", named)
    filled = [
        _filled(cell, of_cell, _authors(sweep, cell, scale, folder), failures, best)
        for cell, of_cell in zip(whole.cells, of_cells, strict=True)
    ]
    verdicts = [judge(finding, functools.partial(_figure_at, filled)) for finding in whole.findings]
    report.tell(name, whole, scale, filled, verdicts)
    page = report.write(folder, name, whole, scale, filled, verdicts)
    print(f"Open {page}")
    return 1 if failures else 0


def _sweep(whole: Table, scale: str, seeds: Sequence[int], common: Point, best: bool) -> Sweep:
    points = tuple(cell.options | {"config": _file(cell, scale)} for cell in whole.cells)
    last = {} if best else {"eval.begin_ckpt": -1}
    return Sweep(space=Space(points), seeds=tuple(seeds), common=last | common, program=PROGRAM)


def _file(cell: Cell, scale: str) -> str:
    return cell.config if scale == "paper" else f"experiments/paper/toy.py:{cell.config}"


def _points(sweep: Sweep, i: int) -> list[Point]:
    """The points of one cell, for each seed."""
    return [sweep.space.points[i] | ({"seed": seed} if sweep.seeds else {}) for seed in sweep.seeds or (0,)]


def _authors(sweep: Sweep, cell: Cell, scale: str, folder: Path) -> Run | None:
    """The evaluation of the authors' checkpoint, which is of CIFAR-10."""
    if scale != "paper":
        return None
    point = cell.options | {"config": _file(cell, scale)}
    only = Sweep(space=sweep.space, common=sweep.common, modes=("eval",), program=PROGRAM)
    return runs.resolve(only, point, folder, directory=folder / AUTHORS / cell.config.replace("/", "_"))


def _filled(cell: Cell, ours: Sequence[Run], authors: Run | None, failures: dict[str, str], best: bool) -> Filled:
    choose = _distance if best and cell.figure in (DISTANCE, SCORE) else None
    with_figures = [(run, figures) for run in ours if (figures := results.figures(run, choose=choose))]
    values = [value for _, figures in with_figures if (value := picked(figures, cell.figure))]
    nfe = [figures["NFE"] for _, figures in with_figures if "NFE" in figures]
    theirs = picked(results.figures(authors), cell.figure) if authors else None
    missing = [run for run in ours if not run.finished]
    commands = [runs.line(job.command) for run in missing for job in run.jobs if not job.finished]
    if authors and not theirs:
        if not steps(authors.workdir / "checkpoints"):
            file = next(flag for flag in authors.jobs[0].command if flag.startswith("--config="))
            load = ("python", "-m", "score_sde", "--mode=import", "--from=CHECKPOINT", file)
            commands.append(runs.line((*load, f"--workdir={authors.workdir}")))
        commands.append(runs.line(authors.jobs[0].command))
    measured = [run for run, _ in with_figures]
    return Filled(
        cell,
        results.over_seeds(values) if values else None,
        results.over_seeds([theirs]) if theirs else None,
        results.over_seeds(nfe) if nfe else None,
        ", ".join(dict.fromkeys(device for run in measured for device in _devices(run))),
        sum(filter(None, map(_seconds, measured))) or None,
        ", ".join(dict.fromkeys(results.fingerprint_of(run) for run in measured if results.fingerprint_of(run))),
        next((failures[run.id] for run in ours if run.id in failures), ""),
        tuple(commands),
        results.samples(measured[0]) if measured else "",
        results.real(measured[0]) if measured else "",
    )


def _distance(figures: Mapping[str, Any]) -> float:
    """The figure whose least value is the best checkpoint's."""
    distance = picked(figures, DISTANCE)
    return distance["mean"] if distance else math.inf


def _devices(run: Run) -> list[str]:
    """Kinds, with their number where it is not 1."""
    kinds = run.report.get("devices", [])
    return [f"{kinds.count(kind)} x {kind}" if kinds.count(kind) > 1 else kind for kind in dict.fromkeys(kinds)]


def _seconds(run: Run) -> float | None:
    """Seconds of its jobs, by their launcher; None for one that was not launched here."""
    times = [program.read(job.status).get("seconds") for job in run.jobs]
    return None if None in times else sum(times)


def _figure_at(filled: Sequence[Filled], place: tuple[str, str]) -> Figure | None:
    return next((each.ours for each in filled if (each.cell.row, each.cell.column) == place), None)
