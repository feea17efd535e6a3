"""The comparison as a page, and its tables as text for a terminal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from score_sde.experiments.compare import curves, figures
from score_sde.experiments.compare.runs import Run, differences, differing
from score_sde.experiments.compare.samples import Drawn

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.io import checkpoints, html_page

EACH = 64  # pixels of the page that an image is wide, if it is smaller
COLUMNS = 16  # of the sheet of all runs
NAMED = 4  # keys in the line of a folded table

LAST = "Last checkpoints, EMA weights. ± is one standard error. Distances are named with their protocol."
BEST = " A star marks the best mean of a column; a difference within the errors decides nothing."
DIFFERENCES = (
    "Each figure minus that of {first}. ± adds both standard errors as independent ones. On the same images this is "
    "conservative, because images that are hard for one model are hard for the other. If {first} has several "
    "evaluations, the one in a folder of the same name counts, or else the first that compares."
)
HOURS = (
    "Hours count from the first line of a run. The time between two lines counts up to {pause} times the usual time of "
    "their updates, so that pauses, long saves and sheets of samples do not count. If a run has more than {points} "
    "lines, each point is the mean of consecutive ones."
)
SAME_NOISE = (
    "All runs start from the same noise. A column is one sample: its x_1 is the same normal numbers, times the "
    "standard deviation of each SDE at t = 1. The noise that samplers draw later is the same if the samplers and their "
    "numbers of steps are."
)


def write(
    out: Path,
    runs: Sequence[Run],
    drawn: Sequence[Drawn] = (),
    missing: dict[str, str] | None = None,
    real: Sequence[Drawn] = (),
) -> None:
    """The page. drawn: samples; missing: why there are none of a run; real: images of the data."""
    evaluations = figures.evaluations(runs)
    body = [html_page.note(f"The reference is {runs[0].name}."), *_evaluations(runs, evaluations)]
    if drawn or missing:
        body += [html_page.heading("Samples"), *_samples(drawn, missing or {}, real)]
    body += [html_page.heading("Curves"), *_metrics(runs)]
    if charts := [_over_checkpoints(*named) for named in figures.over_checkpoints(evaluations).items()]:
        body += [html_page.heading("Over checkpoints"), html_page.division("grids", *charts)]
    body += [html_page.heading("What differs"), *_differing(runs, evaluations)]
    body.append(html_page.folded("Workdirs", html_page.table(*_overview(runs))))
    html_page.write(out, f"Comparison of {', '.join(run.name for run in runs)}", body, "--out")


def text(runs: Sequence[Run]) -> str:
    """Runs, what their configs differ in, figures of their last checkpoints and differences of these."""
    evaluations = figures.evaluations(runs)
    columns = [run.name for run in runs]
    moving, places = differences(runs)
    parts = [aligned(*_overview(runs))]
    parts.append(aligned(["config", *columns], moving + places) if moving + places else "Configs do not differ.")
    if any(each.checkpoints for each in evaluations):
        parts.append(aligned(["evaluation", *(each.column for each in evaluations)], figures.table(evaluations)))
        others, rows = figures.against_first(evaluations)
        parts += [aligned([f"minus {runs[0].name}", *others], rows)] if rows else []
        parts += ["\n".join(footnotes)] if (footnotes := figures.names(evaluations)[1]) else []
    return "\n\n".join(parts) + "\n"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in columns of their own width."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _overview(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for run in runs:
        saved = checkpoints.steps(run.directory / "checkpoints")
        updates = f"{max(line['step'] for line in run.metrics):,}" if run.metrics else "-"
        rows.append([run.name, str(run.directory), updates, f"{saved[-1]:,}" if saved else "-"])
    return ["run", "folder", "updates", "last checkpoint"], rows


def _differing(runs: Sequence[Run], evaluations: Sequence[figures.Evaluation]) -> list[html_page.Element]:
    """Folded tables of what differs: configs, evaluations, and protocols of distances."""
    moving, places = differences(runs)
    names = [run.name for run in runs]
    if not moving:
        body = [html_page.note("Nothing differs that could move a number.")]
    else:
        body = [html_page.folded(f"Configs: {_keys(moving)}", html_page.table(["config", *names], moving))]
    if places:
        head = f"Where files are, and what else moves no number: {_keys(places)}"
        body.append(html_page.folded(head, html_page.table(["config", *names], places)))
    evaluated = [each.column for each in evaluations if each.checkpoints]
    if options := figures.options(evaluations):
        table = html_page.table(["config", *evaluated], options)
        body.append(html_page.folded(f"How the evaluations were made: {_keys(options)}", table))
    protocols = figures.protocols(evaluations)
    if len(protocols) > 1:
        rows = differing(list(protocols.values()))
        note = html_page.note("Distances of different protocols do not compare. The protocols differ in:")
        head = f"Protocols of the distances: {_keys(rows)}"
        body.append(html_page.folded(head, note, html_page.table(["", *protocols], rows)))
    return body


def _keys(rows: Sequence[Sequence[str]]) -> str:
    """The first keys of a table of what differs, and how many more there are."""
    keys = [row[0] for row in rows]
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def _metrics(runs: Sequence[Run]) -> list[html_page.Element]:
    names = curves.scalars(runs)
    if not names:
        return [html_page.note("No run has metrics.")]
    body = []
    unlike = figures.unlike(figures.LOSS, [run.config for run in runs])
    if unlike and any("loss" in name for name in names):
        body.append(
            html_page.note(f"Losses are not comparable between all of these runs, which differ in {', '.join(unlike)}.")
        )
    charts = [
        html_page.figure(f"{name} against {axis}", _chart(runs, name, axis)) for name in names for axis in curves.AXES
    ]
    body.append(html_page.division("grids", *charts))
    return [*body, html_page.note(HOURS.format(pause=curves.PAUSE, points=curves.POINTS))]


def _chart(runs: Sequence[Run], name: str, axis: str) -> html_page.Element:
    of_runs = {run.name: curves.curve(run, name, axis) for run in runs}
    y = np.concatenate([y for _, y, _ in of_runs.values()])
    y = y[np.isfinite(y)]
    return html_page.chart(of_runs, axis, name, log=bool(len(y) and y.min() > 0 and y.max() > 10 * y.min()))


def _evaluations(runs: Sequence[Run], evaluations: Sequence[figures.Evaluation]) -> list[html_page.Element]:
    """A row for each evaluation with its figures, the best of each marked, and the differences from the reference."""
    if not any(each.checkpoints for each in evaluations):
        return [html_page.note("No run has an evaluation: --mode=eval makes one.")]
    head, *rows = _transposed(["run", *(each.run for each in evaluations)], figures.table(evaluations))
    short, footnotes = figures.names(evaluations)
    best = {short[name]: place for name, place in figures.best(evaluations).items()}
    marks = {(row, head.index(name)): "best" for name, row in best.items()}
    body = [html_page.table(head, rows, marks=marks, sortable=True), html_page.note(LAST + (BEST if marks else ""))]
    body += map(html_page.note, footnotes)
    others, of_figures = figures.against_first(evaluations)
    if of_figures:
        head, *rows = _transposed(["difference", *others], of_figures)
        body += [html_page.heading(f"Difference from {runs[0].name}", 3), html_page.table(head, rows)]
        body.append(html_page.note(DIFFERENCES.format(first=runs[0].name)))
    return body


def _transposed(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The columns of a table, that of the heads first."""
    return list(zip(head, *rows, strict=True))


def _over_checkpoints(name: str, of_columns: dict[str, html_page.Curve]) -> html_page.Element:
    return html_page.figure(f"{name}, ± two standard errors", html_page.chart(of_columns, "step", name))


def _samples(drawn: Sequence[Drawn], missing: dict[str, str], real: Sequence[Drawn]) -> list[html_page.Element]:
    """Sheets of each run and of real images, and beneath them the runs' samples from the same noise in rows."""
    body = [html_page.note(f"No samples of {run}: {reason}") for run, reason in missing.items()]
    named = [(f"{len(each.pixels)} samples of {each.run}", each) for each in drawn]
    named += [(f"{len(each.pixels)} real images", each) for each in real]
    sheets = [html_page.figure(f"{each.run}: {each.about}", _sheet(each.pixels, alt)) for alt, each in named]
    body.append(html_page.division("grids", *sheets))
    shapes = dict.fromkeys(each.pixels.shape[1:] for each in drawn)
    if len(shapes) > 1:
        body.append(html_page.note("Images of different shapes do not stand in one sheet."))
    for shape in shapes:
        same = [each for each in drawn if each.pixels.shape[1:] == shape]
        if len(same) > 1:
            body += [html_page.note(SAME_NOISE), *_side_by_side(same)]
    return body


def _side_by_side(drawn: Sequence[Drawn]) -> list[html_page.Element]:
    """Sheets of `COLUMNS` samples, a row for each run."""
    n, rows = len(drawn[0].pixels), ", ".join(each.run for each in drawn)
    sheets = []
    for start in range(0, n, COLUMNS):
        pixels = np.concatenate([each.pixels[start : start + COLUMNS] for each in drawn])
        columns = len(pixels) // len(drawn)
        caption = f"Samples {start} to {start + columns - 1}; rows from the top: {rows}"
        sheets.append(html_page.figure(caption, _sheet(pixels, caption, columns)))
    return sheets


def _sheet(pixels: Pixels, alt: str, columns: int | None = None) -> html_page.Element:
    return html_page.picture(images.grid(pixels, columns), alt, max(1, EACH // pixels.shape[2]))
