"""The page of a sweep: its table, parallel coordinates, curves, samples of the best, and what has failed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from score_sde.experiments.sweep.results import Row, curve, footnotes, label, samples, short, table, trained, varied

from score_sde.evaluation.figure_names import short_names
from score_sde.io import html_page

INTERVALS = (
    "± is half the width of a 95 % interval: over seeds by Student's t, or with one seed over images. "
    "Figures are of the last checkpoint evaluated."
)
APART = "Distances of different brackets are of other features, statistics or numbers of samples, and do not compare."


def write(folder: Path, title: str, rows: Sequence[Row], commands: Sequence[str]) -> Path:
    """Writes `folder`/report.html and returns its path."""
    head, lines = table(rows)
    runs = [run for row in rows for run in row.runs]
    body = [html_page.note(INTERVALS), html_page.division("wide", html_page.table(head, lines))]
    body += [html_page.note(footnote) for footnote in footnotes(rows)]
    if any(" [" in name for row in rows for name in row.figures):
        body.append(html_page.note(APART))
    failures = [[label(row.point), sentence] for row in rows for sentence in row.failures]
    if failures:
        body += [html_page.heading("Failed"), html_page.table(["run", "why"], failures)]
    if len(rows) > 1 and (drawing := _parallel(rows)):
        body += [
            html_page.heading("Parallel coordinates"),
            html_page.figure("a line a point; dark is the best", drawing),
        ]
    curves = []
    for name in ("eval_loss", "training_loss"):
        curves_of_name = {label(trained(run)): (*curve(run, name), None) for run in runs}  # a training once
        curves_of_name = {key: points for key, points in curves_of_name.items() if len(points[0]) > 1}
        if curves_of_name:
            curves.append(html_page.figure(f"{name} against updates", html_page.chart(curves_of_name, "updates", name)))
    body += [html_page.heading("Curves"), html_page.division("grids", *curves)] if curves else []
    sheets = [html_page.figure(label(row.point), sheet) for row in rows[:3] if (sheet := samples(row.runs[0]))]
    body += (
        [html_page.heading("Samples of the first in the table"), html_page.division("grids", *sheets)] if sheets else []
    )
    body += [
        html_page.heading("Runs"),
        html_page.table(["run", "workdir"], [[label(run.point), str(run.workdir)] for run in runs]),
    ]
    body += [html_page.heading("Commands"), html_page.verbatim(commands)]
    html_page.write(folder / "report.html", title, body)
    return folder / "report.html"


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
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(rows)))
    for i in reversed(range(len(rows))):  # the best on top
        heights = [positions[i] for _, positions, _ in axes]
        panel.plot(range(len(axes)), heights, color=colours[i], linewidth=2.5 if i == 0 else 1.2)
    for x, (_, _, ticks) in enumerate(axes):
        panel.axvline(x, color="#999", linewidth=0.8)
        for height, text in _apart(ticks):
            panel.annotate(text, (x, height), (4, 0), textcoords="offset points", fontsize=7, va="center")
    panel.set_xticks(range(len(axes)), [name.replace(" (", "\n(") for name, _, _ in axes], fontsize=8)
    panel.set_yticks([])
    panel.set_xlim(-0.2, len(axes) - 0.5)
    panel.spines[:].set_visible(False)
    return html_page.svg(drawing)


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
