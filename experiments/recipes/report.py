"""Tables, sentences and the page of a comparison of recipes, all of them made from results.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.recipes import comparisons
from score_sde.experiments.recipes.comparisons import LEVEL, Comparison
from score_sde.experiments.recipes.panels import drawing
from score_sde.experiments.recipes.sweep import BITS
from score_sde.experiments.sweep import results

from score_sde.evaluation.report import text as figure_text
from score_sde.io import atomic_files, html_page, workdir

if TYPE_CHECKING:
    from score_sde.experiments.recipes.run import Runs

TABLE = "table.md"
NAMES = {"vp": "VP", "subvp": "sub-VP", "ve": "VE", "edm": "EDM", "edm2": "EDM2-style", "flow": "flow"}
NORMAL = 1.96
Result = Mapping[str, Any]


def text(result: Result) -> str:
    """The table and the sentences, for a terminal."""
    parts = [settings(result), *(f"Failed: {why}" for why in dict.fromkeys(result["failed"].values()))]
    return "\n".join([*parts, "", aligned(head(result), rows(result)), "", *notes(result), "", *sentences(result)])


def markdown(result: Result) -> str:
    """The same for a README."""
    lines = [_line(head(result)), _line(["---"] * len(head(result))), *map(_line, rows(result))]
    return "\n\n".join([settings(result), "\n".join(lines), *notes(result), *sentences(result)]) + "\n"


def write(folder: Path, result: Result, planned: "Runs | None" = None, commands: Sequence[str] = ()) -> Path:
    """Writes `folder`/table.md and report.html, and returns the latter's path."""
    content = markdown(result)
    atomic_files.replace(folder / TABLE, lambda file: file.write(content.encode()), "--folder")
    body = [html_page.warning(f"Failed: {why}") for why in dict.fromkeys(result["failed"].values())]
    body += [html_page.note(settings(result)), html_page.table(head(result), rows(result), sortable=True)]
    body += [
        *map(html_page.note, notes(result)),
        html_page.figure("Every dot is a seed.", drawing(result["figures"], name, log)),
    ]
    body.append(html_page.heading("Differences between recipes"))
    for figure, sentence in zip(result["figures"], sentences(result), strict=True):
        body.append(html_page.note(sentence))
        if pairs := compared(result, figure):
            line = [[name(each.first), name(each.second), *_cells(figure, each)] for each in pairs]
            table = html_page.table(["first", "second", _difference(figure), "p", "p by Holm", ""], line, sortable=True)
            body.append(html_page.folded(f"All {len(pairs)} pairs", table))
    body += _samples(planned or {})
    if commands:
        body.append(html_page.folded("Commands", html_page.verbatim(commands)))
    body.append(html_page.folded("Versions", html_page.listing(workdir.flatten(dict(result["versions"])))))
    html_page.write(folder / "report.html", "Seven recipes on the digits", body, "--folder")
    return folder / "report.html"


def settings(result: Result) -> str:
    """A sentence on what all runs share."""
    hours = f"{result['seconds'] / 60:.0f} minutes of jobs" if result["seconds"] else "times not recorded"
    return (
        f"{result['seeds']} seeds, {result['updates']:,} updates of {result['batch_size']} images, "
        f"{result['num_samples']} samples; features {result['features'] or 'none'}; "
        f"{', '.join(result['devices'])}, {hours}."
    )


def head(result: Result) -> list[str]:
    return ["recipe", *(figure if figure == BITS else f"distance, {figure}" for figure in result["figures"])]


def rows(result: Result) -> list[list[str]]:
    """A row for each recipe, and one for held-out images."""
    recipes = list(dict.fromkeys(recipe for of_figure in result["figures"].values() for recipe in of_figure))
    lines = [
        [name(recipe), *(_cell(of_figure.get(recipe), figure) for figure, of_figure in result["figures"].items())]
        for recipe in recipes
    ]
    for row, of_row in result["baselines"].items():
        distance = next((each for key, each in of_row.items() if key.startswith(("fid", "frechet_distance"))), None)
        if distance:
            shown = [f"{row} ({of_row['images']})"]
            lines.append(shown + ["" if figure == BITS else figure_text(distance) for figure in result["figures"]])
    return lines


def notes(result: Result) -> list[str]:
    """Two paragraphs on how to read the table."""
    return [
        "± is half the width of a 95 % interval over seeds, by Student's t. In brackets is half the width of the mean "
        "95 % interval of one training: over test images for bits/dim, over samples for distances. NFE are "
        "evaluations of the adaptive ODE. Distances are Fréchet distances on features that were trained on the digits, "
        "the same ones for all recipes; they are not FID. The rows beneath the recipes are of noise and of held-out "
        "images, with one standard error.",
        f"A difference is significant if its p value, corrected by Holm for all pairs in one figure, is at most "
        f"{LEVEL}. Seeds are blocks: the error of a difference is that of the residuals of all recipes and seeds. For "
        "bits/dim the error over test images is added; distances are compared by their logarithms. Intervals of "
        "differences are of each alone, at 95 %.",
    ]


def sentences(result: Result) -> list[str]:
    """A paragraph for each figure on which differences are significant and which are not."""
    return [_sentence(result, figure) for figure in result["figures"]]


def compared(result: Result, figure: str) -> list[Comparison]:
    return [Comparison(**each) for each in result["comparisons"][figure]]


def log(figure: str) -> bool:
    """Whether a figure is drawn on a logarithmic axis."""
    return figure != BITS


def name(recipe: str) -> str:
    return NAMES.get(recipe, recipe)


def _sentence(result: Result, figure: str) -> str:
    pairs = compared(result, figure)
    title = "Bits/dim" if figure == BITS else f"Distance, {figure}"
    if not pairs:
        return f"{title}: differences are not tested, as that needs two recipes with two seeds each."
    return comparisons.sentence(title, pairs, result["unequal"][figure], name)


def _difference(figure: str) -> str:
    return "first minus second" if figure == BITS else "first divided by second"


def _cells(figure: str, each: Comparison) -> list[str]:
    if figure == BITS:
        shown = f"{each.difference:+.3f} ± {each.half:.3f}"
    else:
        low, middle, high = np.exp([each.difference - each.half, each.difference, each.difference + each.half])
        shown = f"{middle:.3g} ({low:.3g} to {high:.3g})"
    return [shown, f"{each.p:.2g}", f"{each.holm:.2g}", "significant" if each.significant else ""]


def _cell(row: Mapping[str, Any] | None, figure: str) -> str:
    if row is None:
        return "not run"
    each = results.over_seeds(
        [{"mean": value, "standard_error": error} for value, error in zip(row["values"], row["errors"], strict=True)]
    )
    errors = [error for error in row["errors"] if error is not None]
    within = f" ({NORMAL * np.mean(errors):.2g})" if errors else ""
    adaptive = figure.startswith("ODE") and row["nfe"]
    return results.text(each) + within + (f", NFE {row['nfe']:.0f}" if adaptive else "")


def _samples(planned: "Runs") -> list[html_page.Element]:
    """Samples of each recipe with the first seed, and real images."""
    body: list[html_page.Element] = []
    for figure, of_figure in planned.items():
        first = {recipe: of_recipe[0] for recipe, of_recipe in of_figure.items() if figure != BITS}
        sheets = [
            html_page.figure(name(recipe), sheet) for recipe, run in first.items() if (sheet := results.samples(run))
        ]
        if sheets:
            body.append(html_page.folded(f"Samples: {figure}", html_page.division("grids", *sheets)))
    return [html_page.heading("Samples"), *body] if body else []


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
