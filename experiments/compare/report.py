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
CHART = (5.0, 3.2)  # three stand in a row

DIFFERENCES = (
    "Figures minus those of {first}, of the same folder or else its first that compares. ± is the root of the sum of "
    "squares of both standard errors; on the same images it is conservative: what is hard for one is hard for both."
)
HOURS = (
    "Hours are since a run's first line. Time between two lines counts up to {pause} times what their updates take at "
    "the median, so that the pause of a run that was stopped and continued does not count, nor the rest of a long save "
    "or sheet of samples. Of more than {points} lines, a point is the mean of consecutive ones."
)
SAME_NOISE = (
    "From the same noise: a column is one sample, and x_1 in it the same normal numbers, times each SDE's standard "
    "deviation at t = 1. What a sampler draws later is the same where samplers and their numbers of steps are."
)


def write(out: Path, runs: Sequence[Run], drawn: Sequence[Drawn] = (), missing: dict[str, str] | None = None) -> None:
    """The page. drawn: samples; missing: why there are none of a run."""
    evaluations = figures.evaluations(runs)
    body = [_table(*_overview(runs))]
    body += [html_page.heading("Configs"), *_configs(runs)]
    body += [html_page.heading("Metrics"), *_metrics(runs)]
    body += [html_page.heading("Evaluations"), *_evaluations(runs, evaluations)]
    if drawn or missing:
        body += [html_page.heading("Samples"), *_samples(drawn, missing or {})]
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> html_page.Element:
    """A table that is as wide as its text, whatever the page's width."""
    return html_page.division("wide", html_page.table(head, rows))


def _overview(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for run in runs:
        saved = checkpoints.steps(run.directory / "checkpoints")
        updates = f"{max(line['step'] for line in run.metrics):,}" if run.metrics else "-"
        rows.append([run.name, str(run.directory), updates, f"{saved[-1]:,}" if saved else "-"])
    return ["run", "folder", "updates", "last checkpoint"], rows


def _configs(runs: Sequence[Run]) -> list[html_page.Element]:
    moving, places = differences(runs)
    head = ["config", *(run.name for run in runs)]
    body = [_table(head, moving)] if moving else [html_page.note("Nothing differs that could move a number.")]
    if places:
        body += [html_page.note("Where files are, and what else moves no number:"), _table(head, places)]
    return body


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
    body.append(html_page.division("charts", *charts))
    return [*body, html_page.note(HOURS.format(pause=curves.PAUSE, points=curves.POINTS))]


def _chart(runs: Sequence[Run], name: str, axis: str) -> html_page.Element:
    of_runs = {run.name: curves.curve(run, name, axis) for run in runs}
    y = np.concatenate([y for _, y, _ in of_runs.values()])
    y = y[np.isfinite(y)]
    return html_page.chart(of_runs, axis, name, log=bool(len(y) and y.min() > 0 and y.max() > 10 * y.min()), size=CHART)


def _evaluations(runs: Sequence[Run], evaluations: Sequence[figures.Evaluation]) -> list[html_page.Element]:
    if not any(each.checkpoints for each in evaluations):
        return [html_page.note("No run has an evaluation: --mode=eval makes one.")]
    body = [
        html_page.note(
            "Last checkpoints, EMA weights. ± is one standard error. Distances are named with their protocol."
        ),
        _table(["", *(each.column for each in evaluations)], figures.table(evaluations)),
        *map(html_page.note, figures.names(evaluations)[1]),
    ]
    others, rows = figures.against_first(evaluations)
    if rows:
        body += [html_page.note(DIFFERENCES.format(first=runs[0].name)), _table(["difference", *others], rows)]
    evaluated = [each.column for each in evaluations if each.checkpoints]
    if options := figures.options(evaluations):
        body += [html_page.note("How the evaluations differ:"), _table(["config", *evaluated], options)]
    protocols = figures.protocols(evaluations)
    if len(protocols) > 1:
        text = "Distances of different protocols do not compare. The protocols differ in:"
        body += [html_page.note(text), _table(["", *protocols], differing(list(protocols.values())))]
    if charts := [_over_checkpoints(*named) for named in figures.over_checkpoints(evaluations).items()]:
        body += [html_page.heading("Over checkpoints"), html_page.division("charts", *charts)]
    return body


def _over_checkpoints(name: str, of_columns: dict[str, html_page.Curve]) -> html_page.Element:
    return html_page.figure(f"{name}, ± two standard errors", html_page.chart(of_columns, "step", name, size=CHART))


def _samples(drawn: Sequence[Drawn], missing: dict[str, str]) -> list[html_page.Element]:
    body = [html_page.note(f"No samples of {run}: {reason}") for run, reason in missing.items()]
    sheets = [html_page.figure(f"{each.run}: {each.about}", _sheet(each.pixels)) for each in drawn]
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
        sheets.append(html_page.figure(caption, _sheet(pixels, columns)))
    return sheets


def _sheet(pixels: Pixels, columns: int | None = None) -> html_page.Element:
    return html_page.picture(images.grid(pixels, columns), max(1, EACH // pixels.shape[2]))
