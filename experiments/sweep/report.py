"""The page of a sweep: its table, samples of the best beside real images, curves, and what has failed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from score_sde.experiments.sweep.results import (
    Row,
    curve,
    footnotes,
    label,
    real,
    samples,
    short,
    sorted_by,
    table,
    trained,
    varied,
)

from score_sde.evaluation.figure_names import short_names
from score_sde.io import html_page

INTERVALS = (
    "± is half the width of a 95 % interval: over seeds by Student's t, or with one seed over images. "
    "Figures are of the last checkpoint evaluated."
)
BEST = " A star marks the best row, by {by}."
APART = "Distances of different brackets are of other features, statistics or numbers of samples, and do not compare."


def write(
    folder: Path, title: str, rows: Sequence[Row], commands: Sequence[str], by: str = "", best: str = "least"
) -> Path:
    """Writes `folder`/report.html and returns its path. by, best: the figure that the rows are sorted by, and how."""
    runs = [run for row in rows for run in row.runs]
    body = [*_failures(rows), *_table(rows, sorted_by(rows, by), best), *_samples(rows), *_curves(rows)]
    body.append(html_page.heading("Runs"))
    workdirs = [[label(run.point), str(run.workdir)] for run in runs]
    body.append(html_page.folded(f"Workdirs of {len(runs)} runs", html_page.table(["run", "workdir"], workdirs)))
    body.append(html_page.folded("Commands", html_page.verbatim(commands)))
    html_page.write(folder / "report.html", f"Sweep: {title}", body)
    return folder / "report.html"


def _failures(rows: Sequence[Row]) -> list[html_page.Element]:
    """The runs that have failed, before everything else."""
    failures = [[label(row.point), sentence] for row in rows for sentence in row.failures]
    if not failures:
        return []
    return [html_page.warning(f"Failed runs: {len(failures)}."), html_page.table(["run", "why"], failures)]


def _table(rows: Sequence[Row], by: str, best: str) -> list[html_page.Element]:
    """The table, sorted by a figure and with its best row marked, and its notes."""
    head, lines = table(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    order, marks = None, {}
    if by in names:
        order = (len(head) - len(names) + names.index(by), "ascending" if best == "least" else "descending")
        marks = {(0, None): "best"} if by in rows[0].figures and len(rows) > 1 else {}
    body = [html_page.table(head, lines, marks=marks, order=order, sortable=True)]
    body.append(html_page.note(INTERVALS + (BEST.format(by=short_names(names)[0][by]) if marks else "")))
    body += [html_page.note(footnote) for footnote in footnotes(rows)]
    if any(" [" in name for name in names):
        body.append(html_page.note(APART))
    return body


def _samples(rows: Sequence[Row]) -> list[html_page.Element]:
    """Samples of the first rows beside real images; nothing where none were drawn."""
    sheets = [html_page.figure(label(row.point), sheet) for row in rows[:3] if (sheet := samples(row.runs[0]))]
    if not sheets:
        return []
    beside = next((sheet for row in rows[:3] if (sheet := real(row.runs[0]))), "")
    sheets[1:1] = [html_page.figure("Real images of the evaluation split", beside)] if beside else []  # by the best
    return [html_page.heading("Samples of the first rows"), html_page.division("grids", *sheets)]


def _curves(rows: Sequence[Row]) -> list[html_page.Element]:
    """Losses of each training, and parallel coordinates of the points."""
    runs, charts = [run for row in rows for run in row.runs], []
    for name in ("eval_loss", "training_loss"):
        curves = {label(trained(run)): (*curve(run, name), None) for run in runs}  # a training once
        curves = {key: points for key, points in curves.items() if len(points[0]) > 1}
        if curves:
            charts.append(html_page.figure(f"{name} against updates", html_page.chart(curves, "updates", name)))
    body = [html_page.heading("Curves"), html_page.division("grids", *charts)] if charts else []
    if len(rows) > 1 and (drawing := _parallel(rows)):
        caption = "A line for each point; the thick one is the first row, and paler ones come later in the table."
        body += [html_page.heading("Parallel coordinates"), html_page.figure(caption, drawing)]
    return body


def _parallel(rows: Sequence[Row]) -> str:
    """An axis for each key that has several values, and for each figure; "" where no two rows have a figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row.figures]
    if len(rows) < 2:
        return ""
    axes: list[tuple[str, np.ndarray, list[tuple[float, str]]]] = []
    keys = varied([run for row in rows for run in row.runs])
    for key, name in short(keys).items():
        values = [row.point.get(key) for row in rows]
        if len({str(value) for value in values}) > 1:
            axes.append((name, *_positions(values)))
    names, _ = short_names(name for row in rows for name in row.figures)
    for name, shown in names.items():
        means = [row.figures[name].mean if name in row.figures else np.nan for row in rows]
        if np.nanmax(means) > np.nanmin(means):
            axes.append((shown, *_positions(means)))
    drawing, panel = plt.subplots(figsize=(max(6.0, 2.1 * len(axes)), 4.0), layout="constrained")
    shades = np.linspace(1, 0.25, len(rows))
    for i in reversed(range(len(rows))):  # the best on top
        heights = [positions[i] for _, positions, _ in axes]
        style = dict(color=html_page.COLOURS[0], alpha=shades[i], linewidth=3 if i == 0 else 1.2)
        panel.plot(range(len(axes)), heights, **style)
    for x, (_, _, ticks) in enumerate(axes):
        panel.axvline(x, color=html_page.SOFT, linewidth=0.8)
        for height, text in _apart(ticks):
            panel.annotate(text, (x, height), (4, 0), textcoords="offset points", fontsize=7, va="center")
    panel.set_xticks(range(len(axes)), [name.replace(" (", "\n(") for name, _, _ in axes], fontsize=8)
    panel.set_yticks([])
    panel.set_xlim(-0.2, len(axes) - 0.5)
    panel.spines[:].set_visible(False)
    return html_page.svg(drawing, f"Parallel coordinates of {', '.join(name for name, _, _ in axes)}")


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks that do not lie on one another."""
    kept: list[tuple[float, str]] = []
    for tick in sorted(ticks):
        if not kept or tick[0] - kept[-1][0] > 0.05:
            kept.append(tick)
    return kept


def _positions(values: Sequence) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights in [0, 1] of values, and ticks: numbers by their size, or its logarithm; others in order."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not numbers:
        names = sorted({str(value) for value in values})
        height = {name: i / max(1, len(names) - 1) for i, name in enumerate(names)}
        return np.array([height[str(value)] for value in values]), [(height[name], name) for name in names]
    sizes = np.array(values, float)
    low, high = np.nanmin(sizes), np.nanmax(sizes)
    scaled = np.log if low > 0 and high / low > 20 else np.asarray
    heights = (scaled(sizes) - scaled(low)) / (scaled(high) - scaled(low))
    distinct = sorted(set(sizes[~np.isnan(sizes)]))
    shown = distinct if len(distinct) <= 6 else [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
    return heights, [(float(heights[sizes == value][0]), f"{value:.4g}") for value in shown]
