"""Results: figures of each run, and over seeds their mean with an interval."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats
from score_sde.experiments.sweep.runs import BUDGET, Run, is_evaluated
from score_sde.experiments.sweep.space import Point

from score_sde.evaluation import report
from score_sde.evaluation.figure_names import short_names
from score_sde.io.metrics_log import read_lines
from score_sde.metrics import fingerprint

LEVEL = 0.95
BASIS = ("num_samples", "features", "weights", "statistics", "statistics_of", "pixels", "image")  # of a distance


class Figure(NamedTuple):
    """A mean with half the width of its 95 % interval: over seeds (Student's t), or for one seed over images.

    half is None where nothing is known of the error. n: seeds.
    """

    mean: float
    half: float | None
    n: int


class Row(NamedTuple):
    """A point, over its seeds. failures: of its runs, in sentences."""

    point: Point
    updates: int
    runs: tuple[Run, ...]
    figures: dict[str, Figure]
    failures: tuple[str, ...]


def rows(runs: Sequence[Run], failures: Mapping[str, str], by: str = "", best: str = "least") -> list[Row]:
    """A row for each point, those with the largest budget first, then by a figure.

    failures: by the runs' ids. by: default the first figure there is.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        point = {key: value for key, value in run.point.items() if key != "seed"}
        groups.setdefault(json.dumps(point, default=str), []).append(run)
    bases = {basis(run) for run in runs} - {""}
    rows_of_points = []
    for group in groups.values():
        updates = max(run.config.training.n_iters for run in group)
        group = [run for run in group if run.config.training.n_iters == updates]
        point = {key: value for key, value in group[0].point.items() if key != "seed"}
        sentences = tuple(dict.fromkeys(failures[run.id] for run in group if failures.get(run.id)))
        rows_of_points.append(Row(point, updates, tuple(group), _over_seeds(group, apart=len(bases) > 1), sentences))
    by = sorted_by(rows_of_points, by)
    sign = 1 if best == "least" else -1

    def order(row: Row) -> tuple[float, float]:
        return -row.updates, sign * row.figures[by].mean if by in row.figures else math.inf

    return sorted(rows_of_points, key=order)


def sorted_by(rows: Sequence[Row], by: str = "") -> str:
    """The figure that a table is sorted by: the one asked for, or the first there is; "" where there are none."""
    return by or next((name for row in rows for name in row.figures), "")


def figures(
    run: Run, *, apart: bool = False, choose: Callable[[Mapping[str, Any]], float] | None = None
) -> dict[str, dict[str, Any]]:
    """Figures of the last checkpoint evaluated: name -> mean and standard error.

    apart: distances are named with what they are measured by, where a sweep has several. choose: of several checkpoints
    the one whose figures it gives the least number is taken instead.
    """
    entries = run.report.get("checkpoints") or [{}]
    entry = min(entries, key=lambda entry: choose(report.figures(entry))) if choose else entries[-1]
    measured = entry.get("sampling", {}).get("metrics", {})
    by_name = {}
    for name, figure in report.figures(entry).items():
        by_name[f"{name} [{basis(run)}]" if apart and name in measured else name] = figure
    if "sampling" in entry:
        by_name["NFE"] = {"mean": entry["sampling"]["nfe"], "standard_error": None}
    return by_name


def protocol(run: Run) -> dict[str, Any]:
    """The protocol of the distances of its last checkpoint."""
    entry = (run.report.get("checkpoints") or [{}])[-1]
    return entry.get("sampling", {}).get("metrics", {}).get("protocol", {})


def fingerprint_of(run: Run) -> str:
    """Fingerprint of its protocol; "" without distances."""
    measured_by = protocol(run)
    return fingerprint(measured_by) if measured_by else ""


def basis(run: Run) -> str:
    """A fingerprint of the features and statistics that measure its distances, whatever the sampler; "" without any."""
    measured_by = protocol(run)
    return fingerprint({key: measured_by.get(key) for key in BASIS}) if measured_by else ""


def _over_seeds(runs: Sequence[Run], *, apart: bool) -> dict[str, Figure]:
    of_runs = [by_name for run in runs if (by_name := figures(run, apart=apart))]
    names = dict.fromkeys(name for by_name in of_runs for name in by_name)
    return {name: over_seeds([by_name[name] for by_name in of_runs if name in by_name]) for name in names}


def over_seeds(values: Sequence[Mapping[str, Any]]) -> Figure:
    """The mean over seeds. values: mean and standard error of each."""
    means, n = [value["mean"] for value in values], len(values)
    mean = sum(means) / n
    if n == 1:
        error = values[0]["standard_error"]
        return Figure(mean, None if error is None else float(stats.norm.ppf((1 + LEVEL) / 2)) * error, 1)
    spread = math.sqrt(sum((value - mean) ** 2 for value in means) / (n - 1))
    return Figure(mean, float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread / math.sqrt(n), n)


def text(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if figure.half is None or (figure.half == 0 and figure.mean == round(figure.mean)):
        return f"{figure.mean:.5g}"
    return report.text({"mean": figure.mean, "standard_error": figure.half})


def varied(runs: Sequence[Run]) -> list[str]:
    """Keys of the points, in order, but for seeds."""
    return [key for key in dict.fromkeys(key for run in runs for key in run.point) if key != "seed"]


def short(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, or whole where two share that."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)}


def label(point: Point) -> str:
    names = short(list(point))
    return " ".join(f"{names[key]}={value}" for key, value in point.items()) or "as it is"


def trained(run: Run) -> Point:
    """The part of its point that concerns its training."""
    return {key: value for key, value in run.point.items() if not is_evaluated(key)}


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, for a terminal or a page."""
    runs = [run for row in rows for run in row.runs]
    keys, names = varied(runs), list(dict.fromkeys(name for row in rows for name in row.figures))
    several = len({row.updates for row in rows}) > 1
    head = [*short(keys).values(), *(["updates"] if several else []), "seeds", *short_names(names)[0].values()]
    lines = []
    for row in rows:
        n = max((figure.n for figure in row.figures.values()), default=0)
        seeds = str(n) if n == len(row.runs) else f"{n} of {len(row.runs)}"
        values = [str(row.point.get(key, "-")) for key in keys]
        cells = ["failed" if row.failures and not row.figures else text(row.figures.get(name)) for name in names]
        lines.append([*values, *([str(row.updates)] if several else []), seeds, *cells])
    return head, lines


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Footnotes of the table, to the short names of its figures."""
    return short_names(name for row in rows for name in row.figures)[1]


def table_csv(rows: Sequence[Row]) -> str:
    """The same in full precision: a line a point."""
    runs = [run for row in rows for run in row.runs]
    keys, names = varied(runs), list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = []
    for row in rows:
        line: dict[str, Any] = {key: row.point.get(key, "") for key in keys} | {BUDGET: row.updates}
        for name, figure in row.figures.items():
            line |= {name: figure.mean, f"{name} ±": "" if figure.half is None else figure.half, "seeds": figure.n}
        lines.append(line)
    return _csv([*keys, BUDGET, "seeds", *(column for name in names for column in (name, f"{name} ±"))], lines)


def runs_csv(runs: Sequence[Run]) -> str:
    """A line a run: what it differs in, its id and workdir, and its figures with standard errors."""
    lines, keys = [], list(dict.fromkeys(key for run in runs for key in run.point))
    for run in runs:
        line: dict[str, Any] = dict(run.point) | {"run": run.id, "workdir": run.workdir.name}
        line["fingerprint"] = fingerprint_of(run)
        for name, figure in figures(run).items():
            error = figure["standard_error"]
            line |= {name: figure["mean"], f"{name} standard error": "" if error is None else error}
        lines.append(line)
    columns = list(dict.fromkeys(key for line in lines for key in line if key not in keys))
    return _csv([*keys, *columns], lines)


def curve(run: Run, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a scalar in metrics.jsonl."""
    lines = read_lines(run.workdir / "metrics.jsonl")
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def samples(run: Run) -> str:
    """An image element of those of its last checkpoint; "" where there are none."""
    entries = run.report.get("checkpoints", [])
    return report.sheet(run.workdir / run.jobs[-1].folder, entries[-1]) if entries else ""


def real(run: Run) -> str:
    """An image element of real images that its evaluation has kept; "" where there are none."""
    return report.real_sheet(run.workdir / run.jobs[-1].folder) if run.jobs else ""


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
