"""A table of the paper on the terminal, and as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from score_sde.experiments.paper import toy
from score_sde.experiments.paper.cells import SHORT, Table, Verdict
from score_sde.experiments.sweep.results import text
from score_sde.experiments.sweep.run import show

from score_sde.io import html_page, workdir

if TYPE_CHECKING:
    from score_sde.experiments.paper.run import Filled

HEAD = ("row", "column", "figure", "paper", "authors' checkpoint", "ours", "NFE", "hardware", "hours", "fingerprint")
NOT_RUN = "not run"
DIGITS = 6  # of a fingerprint in the page
AT_TOY_SCALE = (
    f"Toy scale: 8x8 digits, small networks, N = {toy.NUM_SCALES}, distance on features of a network trained on the "
    "digits. The paper's numbers are of CIFAR-10 and FID: what compares is which cell is less, not the numbers."
)
INTERVALS = "Ours is with a 95 % interval: over seeds by Student's t, or with one seed over samples or images."


def cells(each: "Filled") -> list[str]:
    """A line of the table."""
    hours = NOT_RUN if each.seconds is None else f"{each.seconds / 3600:.3g}"
    ours = f"failed: {each.why}" if each.why else NOT_RUN if each.ours is None else text(each.ours)
    return [
        each.cell.row,
        each.cell.column,
        SHORT[each.cell.figure],
        each.cell.paper or "-",
        NOT_RUN if each.authors is None else text(each.authors),
        ours,
        "-" if each.nfe is None else text(each.nfe),
        each.hardware or "-",
        hours if each.ours is not None else "-",
        each.fingerprint or "-",
    ]


def tell(name: str, whole: Table, scale: str, filled: Sequence["Filled"], verdicts: Sequence[Verdict]) -> None:
    print(f"{whole.title}. {whole.about}")
    if scale == "toy":
        print(AT_TOY_SCALE)
    print(INTERVALS)
    show(HEAD, [cells(each) for each in filled])
    for verdict in verdicts:
        print(f"{verdict.word}: {verdict.claim}.{_counts(verdict)}")
        for difference in verdict.differences if verdict.counts["not run"] < len(verdict.differences) else ():
            print(f"    {difference}")
    commands = missing(filled)
    if commands:
        print(
            f"\nCells without a run would be filled by `python -m experiments.paper {name} --scale={scale} --run`, or"
        )
        print(*commands, sep="\n")


def missing(filled: Sequence["Filled"]) -> list[str]:
    """The commands that would fill what is not run, each once."""
    return list(dict.fromkeys(command for each in filled for command in each.commands))


def write(
    folder: Path, name: str, whole: Table, scale: str, filled: Sequence["Filled"], verdicts: Sequence[Verdict]
) -> Path:
    """Writes `folder`/NAME-SCALE.html and returns its path."""
    rows, columns = (list(dict.fromkeys(getattr(each.cell, of) for each in filled)) for of in ("row", "column"))
    at = {(each.cell.row, each.cell.column): each for each in filled}

    def cell(row: str, column: str) -> str:
        each = at.get((row, column))
        if each is None:
            return ""
        paper = f" ({each.cell.paper})" if each.cell.paper else ""
        return (NOT_RUN if each.ours is None else text(each.ours)) + paper

    body = [html_page.note(whole.about)] + ([html_page.note(AT_TOY_SCALE)] if scale == "toy" else [])
    body.append(html_page.table(["", *columns], [[row, *(cell(row, column) for column in columns)] for row in rows]))
    body.append(html_page.note(f"{INTERVALS} In brackets the paper's number."))
    body += _samples(filled)
    if whole.curve and (curves := _curves(filled)):
        chart = html_page.chart(curves, "network evaluations", "distance", log=True, log_x=True)
        body += [html_page.heading("Curves"), html_page.figure("distance, with 95 % intervals", chart)]
    body += _claims(verdicts)
    body.append(html_page.heading("Cells"))
    body.append(html_page.table(list(HEAD), [_shortened(cells(each)) for each in filled]))
    if commands := missing(filled):
        body.append(html_page.folded("Commands that fill what was not run", html_page.verbatim(commands)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.versions())))
    path = folder / f"{name}-{scale}.html"
    html_page.write(path, f"{whole.title} ({scale} scale)", body)
    return path


def _samples(filled: Sequence["Filled"]) -> list[html_page.Element]:
    """Each sheet of samples once, and real images beside them."""
    sheets = {each.samples: html_page.figure(f"{each.cell.row}, {each.cell.column}", each.samples) for each in filled}
    drawn = [sheet for samples, sheet in sheets.items() if samples]
    if not drawn:
        return []
    real = next((each.real for each in filled if each.real), "")
    drawn += [html_page.figure("Real images of the evaluation split", real)] if real else []
    return [html_page.heading("Samples"), html_page.division("grids", *drawn)]


def _claims(verdicts: Sequence[Verdict]) -> list[html_page.Element]:
    """The paper's claims with their verdicts, and the differences that each verdict rests on."""
    if not verdicts:
        return []
    lines = [[verdict.word, verdict.claim + _counts(verdict)] for verdict in verdicts]
    body = [html_page.heading("What the paper finds"), html_page.table(["", "claim"], lines)]
    return body + [html_page.folded(verdict.claim, html_page.verbatim(verdict.differences)) for verdict in verdicts]


def _shortened(cells_of_line: list[str]) -> list[str]:
    """A line of the table of cells whose fingerprints show their first digits; the mouse shows them whole."""
    *line, fingerprints = cells_of_line
    return [*line, html_page.abbreviated(fingerprints[:DIGITS], fingerprints) if fingerprints != "-" else "-"]


def _counts(verdict: Verdict) -> str:
    return f" ({', '.join(f'{count} {word}' for word, count in verdict.counts.items() if count)})"


def _curves(filled: Sequence["Filled"]) -> dict[str, html_page.Curve]:
    """Distance against evaluations of each row; `html_page.chart` draws bars of twice what it is given."""
    curves: dict[str, html_page.Curve] = {}
    for row in dict.fromkeys(each.cell.row for each in filled):
        points = [each for each in filled if each.cell.row == row and each.ours and each.nfe]
        points.sort(key=lambda each: each.nfe.mean)
        if points:
            x, y = [each.nfe.mean for each in points], [each.ours.mean for each in points]
            curves[row] = (x, y, [(each.ours.half or 0) / 2 for each in points])
    return curves
