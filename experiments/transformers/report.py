"""Tables and sentences of the comparison for a terminal and a README, all of them made from results.json."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.recipes import comparisons
from score_sde.experiments.recipes.comparisons import Comparison
from score_sde.experiments.sweep import results

from score_sde.evaluation.report import text as figure_text

TABLE = "table.md"
NAMES = {"unet": "U-Net", "uvit": "U-ViT", "dit": "DiT", "autoregressive": "autoregressive"}
PAIRS = (("uvit", "unet"), ("dit", "unet"), ("dit", "uvit"))
PAIRS += tuple(("autoregressive", name) for name in ("unet", "uvit", "dit"))
Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


class Figure(NamedTuple):
    """A figure that is tested. title: of its column. words: in sentences. better: "less", "more", or "" for neither."""

    title: str
    words: str
    better: str


FIGURES = {
    "bits": Figure("bits/dim", "bits/dim", "less"),
    "distance": Figure("distance", "distance", "less"),
    "distance_5": Figure("5", "distance after 5 evaluations", "less"),
    "distance_10": Figure("10", "distance after 10", "less"),
    "distance_20": Figure("20", "distance after 20", "less"),
    "recognised": Figure("recognised, %", "recognised samples", "more"),
    "classes": Figure("class shares", "class shares", "less"),
    "copies": Figure("nearness", "nearness to training images", ""),
    "filled_lower half": Figure("lower half, %", "filling the lower half", "more"),
    "filled_right half": Figure("right half, %", "filling the right half", "more"),
    "filled_random half": Figure("random half, %", "filling random pixels", "more"),
}
OF_SAMPLES = ("bits", "distance", "recognised", "classes", "copies")
OF_FILLED = tuple(name for name in FIGURES if name.startswith("filled_"))


def text(result: Result) -> str:
    """The tables and the sentences, for a terminal."""
    parts = [f"Failed: {why}" for why in dict.fromkeys(result["failed"].values())]
    parts += [settings(result), *(aligned(*table) for table in tables(result).values())]
    return "\n\n".join([*parts, *notes(result), *findings(result), *sentences(result)])


def markdown(result: Result) -> str:
    """The same for a README."""
    shown = [f"**{title}**\n\n{_markdown(*table)}" for title, table in tables(result).items()]
    return "\n\n".join([settings(result), *shown, *notes(result), *findings(result), *sentences(result)]) + "\n"


def settings(result: Result) -> str:
    """A sentence on what all trainings share."""
    return (
        f"{result['dataset']}: {result['seeds']} seeds, {result['updates']:,} updates of {result['batch_size']} "
        f"images, {result['num_samples']} samples, {result['num_filled']} images filled in; features "
        f"{result['features'] or 'none'}; {', '.join(result['devices'])}."
    )


def tables(result: Result) -> dict[str, Table]:
    """The tables by their titles."""
    return {
        "Figures": _of_models(result, OF_SAMPLES),
        "Distance by evaluations": _by_evaluations(result),
        "Half of an image filled in": _of_models(result, OF_FILLED),
        "Costs": _costs(result),
    }


def notes(result: Result) -> list[str]:
    """Paragraphs on how to read the tables."""
    judge = (
        f"A classifier that was trained on real images and on corrupted copies of them judges the samples. It is right "
        f"about {result['accuracy']:.1%} of the test images. Recognised are samples that are, in its eyes, more likely "
        "than not an intact image of one class. Class shares are the total variation between the classes of samples "
        "and of training images, 0 at best. An image that is filled in counts if the judge sees its true class."
    )
    lines = [
        "± is half the width of a 95 % interval over seeds, by Student's t. Bits/dim are exact for the autoregressive "
        "transformer, and those of the probability-flow ODE for the others. Distances are Fréchet distances on "
        "features trained on the data set; they are not FID. Nearness is the mean distance of a sample to the nearest "
        "training image over that to the nearest of as many test images: 1 without copying, 0 for copies.",
    ]
    if result["accuracy"] is not None:
        lines.append(judge)
    if result["levels"] < 256:
        pixels = result["reference"]["independent pixels"]["bits"]
        lines.append(
            f"The training images have only {result['levels']} of the 256 levels of a byte. The autoregressive "
            "transformer learns which levels there are. A diffusion model has a continuous density, and would need "
            f"narrow peaks for that. Even independent pixels, each with its own histogram, have {pixels:.2f} "
            "bits/dim. So bits/dim compare this more than the pictures."
        )
    return lines


def findings(result: Result) -> list[str]:
    """A sentence for each pair of models: in which figures the first is better, worse, or not told apart."""
    return [words for first, second in PAIRS if (words := _finding(result, first, second))]


def sentences(result: Result) -> list[str]:
    """A paragraph for each figure on which differences are significant and which are not."""
    tested = [
        (figure, pairs) for figure in FIGURES if figure in result["figures"] and (pairs := compared(result, figure))
    ]
    return [
        comparisons.sentence(capitalised(FIGURES[figure].words), pairs, result["unequal"][figure], NAMES.__getitem__)
        for figure, pairs in tested
    ] or ["Differences are not tested, as that needs two models with two seeds each."]


def compared(result: Result, figure: str) -> list[Comparison]:
    return [Comparison(**each) for each in result["comparisons"][figure]]


def verdict(result: Result, figure: str, first: str, second: str) -> str:
    """The first model against the second: "better" or "worse", "less" or "more" where neither is; "" for neither."""
    for each in compared(result, figure):
        if {each.first, each.second} == {first, second}:
            below = (each.difference < 0) == (each.first == first)
            how = "less" if below else "more"
            better = FIGURES[figure].better
            return "" if not each.significant else how if not better else "better" if how == better else "worse"
    return "not tested"


def capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def _finding(result: Result, first: str, second: str) -> str:
    found: dict[str, list[str]] = {}
    for figure in result["figures"]:
        found.setdefault(verdict(result, figure, first, second), []).append(FIGURES[figure].words)
    if set(found) == {"not tested"}:
        return ""
    parts = [f"{how} in {', '.join(found[how])}" for how in ("better", "worse", "less", "more") if how in found]
    if "" in found:
        parts.append(f"no difference shown in {', '.join(found[''])}")
    return f"{capitalised(NAMES[first])} against {NAMES[second]}: {'; '.join(parts)}."


def _of_models(result: Result, names: Sequence[str]) -> Table:
    """A row for each model, and one for each reference."""
    figures = [name for name in names if name in result["figures"]]
    head = ["", *(FIGURES[name].title for name in figures)]
    rows = [[NAMES[m], *(_cell(result["figures"][name].get(m)) for name in figures)] for m in result["evaluations"]]
    for reference, values in result["reference"].items():
        if any(name in values for name in figures):
            rows.append([reference, *(f"{values[name]:.3g}" if name in values else "" for name in figures)])
    return head, rows


def _by_evaluations(result: Result) -> Table:
    budgets = sorted({budget for of in result["curves"].values() for curve in of for budget, _ in curve})
    rows = []
    for model, curves in result["curves"].items():
        at = {budget: [dict(map(tuple, curve)).get(budget) for curve in curves] for budget in budgets}
        cells = [_cell(values) if None not in values else "" for values in at.values()]
        rows.append([NAMES[model], *cells])
    return ["evaluations of the network", *map(str, budgets)], rows


def _costs(result: Result) -> Table:
    head = ["", "parameters", "MFLOP an image forward", "MFLOP an image of an update", "ms an update"]
    head += ["evaluations for bits/dim", "evaluations a sample", "ms a sample"]
    rows = []
    for model, of in result["costs"].items():
        if "parameters" not in of:  # reported before it was measured
            rows.append([NAMES[model], *["not run"] * (len(head) - 1)])
            continue
        cells = [f"{of['parameters']:,}", *(f"{of[key] / 1e6:.1f}" for key in ("flops_forward", "flops_update"))]
        seconds = [each for each in of["seconds_an_update"] if each is not None]
        cells.append(_cell([1000 * each for each in seconds]) if seconds else "")
        cells += [f"{result['nfe_of_bits'][model]:.0f}", ", ".join(of["seconds_a_sample"])]
        rows.append([NAMES[model], *cells, ", ".join(f"{1000 * s:.3g}" for s in of["seconds_a_sample"].values())])
    return head, rows


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return "not run"
    if len(values) == 1 or not np.std(values):
        return f"{np.mean(values):.4g}"
    of = results.over_seeds([{"mean": value, "standard_error": None} for value in values])
    return figure_text({"mean": of.mean, "standard_error": of.half})


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
