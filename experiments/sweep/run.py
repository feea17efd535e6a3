"""A sweep from its file to its table."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from score_sde.experiments.sweep import report, results, runs
from score_sde.experiments.sweep.definition import Halving, Sweep
from score_sde.experiments.sweep.drive import Drive
from score_sde.experiments.sweep.live import Display
from score_sde.experiments.sweep.local import Local
from score_sde.experiments.sweep.runs import Job, Run
from score_sde.experiments.sweep.slurm import Slurm
from score_sde.experiments.sweep.space import Point

from score_sde.errors import UsageError
from score_sde.io import atomic_files

LAUNCHERS = ("local", "slurm", "print")


def launcher(name: str, folder: Path, slots: int | None, devices: int | None, options: Mapping[str, str]) -> Any:
    """The launcher of this name; this process leaves the accelerators alone, and its jobs share what they compile.

    Raises `UsageError` for what there is not.
    """
    for flag, value in (("slots", slots), ("devices", devices)):
        if value is not None and value < 1:
            raise UsageError(f"--{flag}={value} must be at least 1.")
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((folder / ".jax_cache").absolute()))
    if name == "slurm":
        return Slurm(folder, slots, devices or 0, options)
    if options:
        raise UsageError("--slurm=NAME=VALUE belongs to --launcher=slurm.")
    return Local(os.environ, slots, devices or 1)


def named(texts: list[str]) -> dict[str, str]:
    """Options NAME=VALUE of --slurm."""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--slurm={text} is not NAME=VALUE, as in --slurm=partition=gpu.")
    return dict(text.split("=", 1) for text in texts)


def run(sweep: Sweep, path: Path, folder: Path, start: Any, retries: int) -> int:
    """Makes every run that is not made, by a launcher; prints the table and writes it: 0, or 1 if a run has failed.

    path: of its file, of which a copy is kept.
    """
    first = runs.plan(sweep, folder, budget=sweep.halving and sweep.halving.budgets[0])
    with atomic_files.locked(folder, "sweep"):
        text = path.read_bytes()
        atomic_files.replace(folder / "sweep.py", lambda file: file.write(text))
        all_runs, failures = (
            halved(sweep, folder, start, retries) if sweep.halving else drive(first, start, retries, path.stem)
        )
        by = (sweep.halving.by, sweep.halving.best) if sweep.halving else (sweep.by, sweep.best)
        return conclude(folder, path.stem, all_runs, failures, *by)


def one(sweep: Sweep, point: Point, folder: Path, start: Any, retries: int) -> int:
    """Makes the run of one point, beside others that may be under way."""
    runs_of_point, failures = drive([runs.resolve(sweep, point, folder)], start, retries, results.label(point))
    show(*results.table(results.rows(runs_of_point, failures)))
    for sentence in failures.values():
        print(f"failed: {sentence}")
    return 1 if failures else 0


def drive(
    runs: Sequence[Run], start: Any, retries: int, title: str, name: Callable[[Run, Job], str] | None = None
) -> tuple[list[Run], dict[str, str]]:
    """The same runs, and the sentences of those that have failed, by their ids. name: as of `Display`."""
    with Display(runs, title, name) as display:
        driven = Drive(runs, start, retries)
        driven(display)
    return list(runs), {each.id: driven.failure(each) for each in runs if driven.failure(each)}


def halved(sweep: Sweep, folder: Path, start: Any, retries: int) -> tuple[list[Run], dict[str, str]]:
    """Successive halving: the runs of all budgets."""
    halving, points = sweep.halving, list(sweep.points())
    all_runs: list[Run] = []
    failures: dict[str, str] = {}
    for budget in halving.budgets:
        rung = runs.plan(sweep, folder, points, budget)
        _, failed = drive(rung, start, retries, f"{budget:,} updates")
        all_runs, failures = all_runs + rung, failures | failed
        points = survivors(halving, rung, failed)
    return all_runs, failures


def survivors(halving: Halving, rung: Sequence[Run], failures: Mapping[str, str]) -> list[Point]:
    """The points, with all their seeds, that go on: the best by the mean over seeds. One that failed does not."""
    rows = results.rows(rung, failures, halving.by, halving.best)
    ranked = [row for row in rows if halving.by in row.figures and not row.failures]
    measured = {name for row in rows for name in row.figures}
    if measured and not ranked and halving.by not in measured:
        raise UsageError(f"Halving goes by '{halving.by}', and evaluations give: {', '.join(sorted(measured))}.")
    chosen = ranked[: math.ceil(len(rows) / halving.keep)]
    return [each.point for row in chosen for each in row.runs]


def missing(sweep: Sweep, folder: Path) -> list[Run]:
    """The runs to make next; with successive halving those of the first budget that is not finished."""
    points = None
    for budget in sweep.halving.budgets if sweep.halving else (None,):
        rung = runs.plan(sweep, folder, points, budget)
        if not all(each.finished for each in rung):
            return [each for each in rung if not each.finished]
        points = survivors(sweep.halving, rung, {}) if sweep.halving else None
    return []


def conclude(
    folder: Path, title: str, all_runs: Sequence[Run], failures: Mapping[str, str], by: str = "", best: str = "least"
) -> int:
    """Prints the table and what has failed; writes table.csv, runs.csv and report.html."""
    rows = results.rows(all_runs, failures, by, best)
    names = {name for row in rows for name in row.figures}
    if by and names and by not in names:
        raise UsageError(f"The table is to be sorted by '{by}', and there are: {', '.join(sorted(names))}.")
    show(*results.table(rows))
    for footnote in results.footnotes(rows):
        print(footnote)
    for row in rows:
        for sentence in row.failures:
            print(f"failed: {results.label(row.point)}: {sentence}")
    for name, text in (("table.csv", results.table_csv(rows)), ("runs.csv", results.runs_csv(all_runs))):
        atomic_files.replace(folder / name, lambda file, text=text: file.write(text.encode()), "--folder")
    page = report.write(folder, title, rows, commands(all_runs), by, best)
    print(f"± : 95 % interval over seeds, or with one seed over images. {folder / 'table.csv'}, runs.csv. Open {page}")
    return 1 if failures else 0


def commands(chosen: Sequence[Run]) -> list[str]:
    """Commands of a shell: a line for each training with all that follows it."""
    chains: dict[Path, dict[tuple, str]] = {}
    for each in chosen:
        for job in each.jobs:
            chains.setdefault(each.workdir, {}).setdefault(job.key, runs.line(job.command))
    return [" && ".join(chain.values()) for chain in chains.values()]


def show(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table on the terminal, as wide as it is in a file."""
    table = Table(box=box.SIMPLE)
    for name in head:
        table.add_column(Text(name), no_wrap=True)  # brackets in a name are no markup
    for line in lines:
        table.add_row(*map(Text, line))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=10_000).print(table, crop=False)
