"""The table of the cells with their commands, and the page with samples, all made from results.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_sde.experiments.compare.report import aligned
from score_sde.experiments.sweep import results

from score_sde.evaluation.report import text as figure_text
from score_sde.io import atomic_files, html_page, workdir

if TYPE_CHECKING:
    from score_sde.experiments.sweep.runs import Run

TABLE = "table.md"
NOT_RUN = "not run"
HEAD = ("cell", "updates", "minutes", "images/s", "bits/dim", "samples by", "distance", "of held-out images")
NOTES = (
    "± is one standard error: over test images for bits/dim, over samples for distances; each cell is one training. "
    "Minutes are those of training with start and compilation. Distances are Fréchet distances on features that were "
    "trained on the data set; they are not FID, and those of the two data sets do not compare. The last column is the "
    "same distance of as many test images."
)
Result = Mapping[str, Any]


def text(result: Result) -> str:
    """The table for a terminal, and the command of each cell."""
    failed = [f"Failed: {cell}: {of['failed']}" for cell, of in result["cells"].items() if of["failed"]]
    return "\n".join([*failed, aligned(HEAD, rows(result)), "", NOTES, "", *map(command, result["cells"])])


def markdown(result: Result) -> str:
    """The same for a README."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows(result))]
    commands = "\n".join(["```sh", *map(command, result["cells"]), "```"])
    devices = dict.fromkeys(device for of in result["cells"].values() for device in of["devices"])
    where = f"Devices: {', '.join(devices)}." if devices else "Nothing in this table has been run."
    return (
        "\n\n".join([where, "\n".join(lines), NOTES, "<!-- needs: half an hour for each cell -->\n" + commands]) + "\n"
    )


def write(folder: Path, result: Result, planned: "Mapping[str, Mapping[str, Run]] | None" = None) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path."""
    content = markdown(result)
    atomic_files.replace(folder / TABLE, lambda file: file.write(content.encode()), "--folder")
    failures = {cell: of["failed"] for cell, of in result["cells"].items() if of["failed"]}
    body = [html_page.warning(f"Failed: {cell}: {why}") for cell, why in failures.items()]
    body += [html_page.table(list(HEAD), rows(result)), html_page.note(NOTES), *_samples(planned or {})]
    for cell, of in result["cells"].items():
        body.append(html_page.folded(f"Commands of {cell}", html_page.verbatim([command(cell), *of["commands"]])))
    versions = next((of["versions"] for of in result["cells"].values() if of["versions"]), {})
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(versions)))))
    html_page.write(folder / "report.html", "What two cores give in half an hour", body, "--folder")
    return folder / "report.html"


def command(cell: str) -> str:
    """The command that fills a cell."""
    return f"score_sde --mode=experiment --name=half_hour --cells={cell}"


def rows(result: Result) -> list[list[str]]:
    """A line for each cell and sampler."""
    lines = []
    for cell, of in result["cells"].items():
        trained = [cell, *_training(of), _bits(of["bits/dim"])]
        for i, (sampler, measured) in enumerate((of["samples"] or {NOT_RUN: None}).items()):
            lines.append([*(trained if i == 0 else [""] * len(trained)), sampler, *_distances(measured)])
    return lines


def _training(of: Mapping[str, Any]) -> list[str]:
    """Updates, minutes, and images a second."""
    if not of["updates"]:
        return [NOT_RUN, "-", "-"]
    seconds = of["training_seconds"]
    if not seconds:
        return [f"{of['updates']:,}", "-", "-"]
    return [f"{of['updates']:,}", f"{seconds / 60:.1f}", f"{of['updates'] * of['batch_size'] / seconds:.0f}"]


def _bits(bits: Mapping[str, Any] | None) -> str:
    if not bits:
        return NOT_RUN
    return f"{figure_text(bits)} ({bits['images']:,} images)"


def _distances(measured: Mapping[str, Any] | None) -> list[str]:
    if measured is None:
        return ["-", "-"]
    held_out = measured["held_out"]
    return [figure_text(measured["distance"]), figure_text(held_out) if held_out else "-"]


def _samples(planned: "Mapping[str, Mapping[str, Run]]") -> list[html_page.Element]:
    """A sheet for each cell and sampler, and real images of each data set."""
    figures: dict[str, list[html_page.Element]] = {}
    for cell, of_cell in planned.items():
        sheets = [(name, run, sheet) for name, run in of_cell.items() if (sheet := results.samples(run))]
        of_data = figures.setdefault(cell.rsplit("_", 1)[0], [])
        if sheets and not of_data and (real := results.real(sheets[0][1])):
            of_data.append(html_page.figure("Test images", real))
        of_data += [html_page.figure(f"{cell}, {name}", sheet) for name, _, sheet in sheets]
    return [
        part
        for data, shown in figures.items()
        if shown
        for part in (html_page.heading(f"Samples: {data}"), html_page.division("grids", *shown))
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
