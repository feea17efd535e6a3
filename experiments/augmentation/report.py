"""Tables and sentences of the experiment for a terminal and a README, all of them made from results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from score_sde.experiments.augmentation.config import Transform
from score_sde.experiments.augmentation.measure import ROWS
from score_sde.experiments.compare.report import aligned
from score_sde.experiments.recipes import comparisons
from score_sde.experiments.recipes.comparisons import Comparison

TABLE = "table.md"
PAIRS = (("both", "real"), ("both", "real_classical"), ("both_classical", "real_classical"), ("generated", "real"))
Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


def text(result: Result) -> str:
    """The tables and the sentences, for a terminal."""
    return "\n\n".join([settings(result), *(aligned(*table) for table in tables(result).values()), *words(result)])


def markdown(result: Result) -> str:
    """The same for a README."""
    shown = [f"**{title}**\n\n{_markdown(*table)}" for title, table in tables(result).items()]
    return "\n\n".join([settings(result), *shown, *words(result)]) + "\n"


def words(result: Result) -> list[str]:
    return [*notes(result), copies(result), shares(result), *findings(result), *sentences(result)]


def settings(result: Result) -> str:
    """A sentence on what all rows share."""
    training, images = result["training"], result["images"]
    return (
        f"{result['dataset']}: {result['seeds']} seeds, {training['updates']:,} updates of {training['batch_size']} "
        f"images in every row, {result['each']} generated images of each class; {images['train']:,} training images, "
        f"{images['validation']:,} for validation, {images['test']:,} for the test; {', '.join(result['devices'])}, "
        f"{result['seconds'] / 60:.0f} minutes."
    )


def tables(result: Result) -> dict[str, Table]:
    """The tables by their titles."""
    counts = result["counts"]
    head = [f"{count} a class" for count in counts]
    rows = [
        [row.words, *(_cell(of["rows"].get(name)) for of in counts.values())]
        for name, row in ROWS.items()
        if any(name in of["rows"] for of in counts.values())
    ]
    by_share = next(iter(counts.values()))["shares"]
    of_shares = [[f"{float(share):.0%}", *(_cell(of["shares"][share]) for of in counts.values())] for share in by_share]
    return {
        "Accuracy on test images, %": (["trained on", *head], rows),
        "Accuracy by share of generated images, %": (["share", *head], of_shares),
    }


def notes(result: Result) -> list[str]:
    """Paragraphs on how to read the tables, and on who has seen which images."""
    return [
        "± is half the width of a 95 % interval over seeds, by Student's t; in brackets is the 95 % interval over test "
        "images. Test images are not transformed. CAS is the classification accuracy score: trained on generated "
        "images alone, tested on real ones.",
        result["generator"],
        f"Classical augmentation of {result['dataset']}: {transform(Transform(**result['transform']))}.",
        "The share of generated images is chosen by accuracy on the validation part of the training images, on which "
        "nothing is trained. It has more labelled images than rows with few real ones, which somebody with as few "
        "images would not have. No test image has a say.",
    ]


def transform(most: Transform) -> str:
    """Words on what classical augmentation does."""
    parts = [f"shifts up to {most.shift:.1%} of the side"]
    parts += [f"rotations up to {most.degrees:g} degrees"] if most.degrees else []
    parts += [f"sizes changed by up to {most.scale:.0%}"] if most.scale else []
    return ", ".join([*parts, "flips" if most.flip else "no flips, which may change what a picture shows"])


def copies(result: Result) -> str:
    """A sentence on generated images that copy real ones of the classifier."""
    of = [f"{np.mean(each['copies']):.1%} with {count} of each class" for count, each in result["counts"].items()]
    return (
        "Generated images that copy a real image of the classifier, which is nearer to them than a third of the "
        f"distance to the second nearest (Gu et al., 2023): {'; '.join(of)}. A generator that only copies cannot help."
    )


def shares(result: Result) -> str:
    """A sentence on the chosen shares."""
    of = [
        f"{float(each['share']):.0%} with {count} real images of each class (of all shares {each['best_share']:.0%})"
        for count, each in result["counts"].items()
    ]
    return f"Chosen shares of generated images: {'; '.join(of)}."


def findings(result: Result) -> list[str]:
    """A sentence for each number of real images: what generated ones add, lose, or are not shown to do."""
    lines = []
    for count, of in result["counts"].items():
        verdicts = [verdict(of, *pair) for pair in PAIRS]
        told = [
            f"{ROWS[first].words} against {ROWS[second].words}: {how}"
            for (first, second), how in zip(PAIRS, verdicts, strict=True)
            if how
        ]
        if told:
            lines.append(f"With {count} real images of each class, {'; '.join(told)}.")
    return lines


def verdict(of: Mapping[str, Any], first: str, second: str) -> str:
    """The first row against the second, by the corrected test; "" where it was not tested."""
    for each in compared(of):
        if {each.first, each.second} == {first, second}:
            better = (each.difference > 0) == (each.first == first)
            points = f"{100 * abs(each.difference):.1f} ± {100 * each.half:.1f} points"
            return f"{points} {'better' if better else 'worse'}" if each.significant else "no difference shown"
    return ""


def sentences(result: Result) -> list[str]:
    """A paragraph for each number of real images on which differences are significant and which are not."""
    return [
        comparisons.sentence(f"Accuracy, {count} a class", pairs, of["unequal"], lambda name: f"“{ROWS[name].words}”")
        for count, of in result["counts"].items()
        if (pairs := compared(of))
    ] or ["Differences are not tested, as that needs two seeds or more."]


def compared(of: Mapping[str, Any]) -> list[Comparison]:
    """The comparisons of a number of real images."""
    return [Comparison(**each) for each in of["comparisons"]]


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    half = "" if figure["half"] is None else f" ± {100 * figure['half']:.1f}"
    return f"{100 * figure['mean']:.1f}{half} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
