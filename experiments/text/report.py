"""Tables and sentences on how well captions are followed, for a terminal and a README, all made from results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from score_sde.experiments.compare.report import aligned
from score_sde.experiments.text.measure import GOALS
from score_sde.experiments.text.prompts import HALVES, OF_HALVES

TABLE = "table.md"
TITLES = {
    "scenes": "Scenes with one object",
    "scenes_three": "Scenes with up to three objects",
    "openmoji": "OpenMoji",
}
FIGURES = {
    "shape": "shape",
    "colour": "colour",
    "size": "size",
    "place": "place",
    "relation": "relation",
    "count": "number of objects",
    "pair": "shape and colour of one object",
    "together": "all that the caption says",
    "found": "nearest to its own picture",
    "tone": "tone of skin",
}
NOTE = (
    "Shares are in percent, with 95 % intervals by Wilson over samples or attributes of one training; another training "
    "would differ by more. Held out are captions that name a pair of attributes which no training image has (OpenMoji: "
    "names of evaluation pictures). The chance is the share when each picture gets the captions of other samples, and "
    "uniform is one over the number of values."
)
Result = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]


def text(result: Result) -> str:
    """The tables and sentences, for a terminal."""
    parts = [f"Failed: {why}" for why in dict.fromkeys(result["failed"].values())]
    for name, of in result["sets"].items():
        parts += [f"{TITLES[name]}. {settings(of)}", *sentences(of)]
        parts += [f"{title}\n{aligned(*table)}" for title, table in tables(of).items()]
    return "\n\n".join([*parts, NOTE])


def markdown(result: Result) -> str:
    """The same for a README."""
    parts = []
    for name, of in result["sets"].items():
        parts += [f"**{TITLES[name]}**", settings(of), *sentences(of)]
        parts += [f"{title}:\n\n{_markdown(*table)}" for title, table in tables(of).items()]
    return "\n\n".join([*parts, NOTE]) + "\n"


def settings(of: Result) -> str:
    """A sentence on the training and on what was drawn."""
    size, seconds = of["image_size"], of["seconds"]
    spent = [
        f"{what} {seconds[job] / 60:.0f} minutes"
        for job, what in (("train", "training"), ("draw", "drawing"))
        if seconds[job]
    ]
    captions = " and ".join(f"{n} {OF_HALVES[half]}" for half, n in of["captions"].items())
    return (
        f"{size}x{size} pixels, network {of['network']}, {of['updates']:,} updates of {of['batch_size']} images, "
        f"{captions} captions at each scale{''.join(f', {each}' for each in spent)}; {', '.join(of['devices'])}."
    )


def tables(of: Result) -> dict[str, Table]:
    """The tables of a set by their titles."""
    result = {
        f"At the best scale, {of['best']}": best(of),
        "By guidance scale": _by("scale", of["scales"]),
        f"By update, at scale {of['curve_scale']:g}": _by("updates", of["curve"]),
    }
    if of["swap"]:
        result["One noise under two captions"] = swaps(of)
    if of["negative"]:
        result["Negative captions"] = negatives(of)
    if of["bayes"]:
        result["Bayes' rule by likelihoods, for real images"] = bayes(of)
    return result


def figures(of: Result) -> list[str]:
    """The figures that a set has, since its captions name such things."""
    first = of["scales"][of["best"]]["seen"]["figures"]
    return [name for name in FIGURES if name in first and first[name]["n"]]


def best(of: Result) -> Table:
    """A row for each figure at the best scale, with its interval and its chances."""
    halves = of["scales"][of["best"]]
    head = ["", *(f"{OF_HALVES[half]}{what}" for half in HALVES for what in ("", ", chance")), "uniform"]
    rows = []
    for name in figures(of):
        each = [halves[half]["figures"][name] for half in HALVES]
        cells = [cell for figure in each for cell in (interval(figure), percent(figure["chance"]))]
        rows.append([FIGURES[name], *cells, percent(each[0]["uniform"])])
    if halves["seen"]["unreadable"]:
        rows.append(
            ["pictures that are no scene", *(c for h in HALVES for c in (interval(halves[h]["unreadable"]), "")), ""]
        )
    return head, rows


def swaps(of: Result) -> Table:
    """The shares of pairs with the same place and the same size, which no caption of a pair names."""
    rows = [
        [kind, attribute, str(same["n"]), percent(same["share"]), percent(same["chance"]), p_value(same["p"])]
        for kind, swap in of["swap"].items()
        for attribute, same in swap["same"].items()
    ]
    return ["the captions differ in", "the same", "pairs", "share", "chance", "p"], rows


def negatives(of: Result) -> Table:
    """Pictures with what the negative caption names, and with all of the caption, without it and with it."""
    head = [
        "caption",
        "negative caption",
        "shows the negative one: without",
        "with",
        "shows the caption: without",
        "with",
    ]
    rows = [
        [
            each["caption"],
            each["negative"],
            *(interval(each[of][side]) for of in ("avoided", "kept") for side in ("without", "with")),
        ]
        for each in of["negative"]
    ]
    return head, rows


def bayes(of: Result) -> Table:
    """The share of real images of which the likeliest value of an attribute is the true one."""
    rows = [[name, interval(each), percent(each["chance"]), str(each["n"])] for name, each in of["bayes"].items()]
    return ["attribute", "right", "chance", "images"], rows


def sentences(of: Result) -> list[str]:
    """Sentences on the goals, on held-out captions, and on swaps."""
    lines, shown = [], of["scales"][of["best"]]
    if of["objects"] == 1:
        for name, goal in GOALS.items():
            share = shown["seen"]["figures"][name]["share"]
            if share is not None:
                verdict = "reached" if share >= goal else "missed"
                lines.append(f"{FIGURES[name]}: {percent(share)} % of a goal of {100 * goal:.0f} %, {verdict}")
        lines = [f"Goals for seen captions: {'; '.join(lines)}."] if lines else []
    held_out = shown["held_out"]["figures"][of["main"]]
    if held_out["n"]:
        above = held_out["chance"] is not None and held_out["low"] > held_out["chance"]
        lines.append(
            f"Held-out captions, {FIGURES[of['main']]}: {interval(held_out)} %, with a chance of "
            f"{percent(held_out['chance'])} %: {'above chance' if above else 'not shown to be above chance'}."
        )
    if of["swap"]:
        words = "; ".join(f"{kind}: {interval(swap['right'])} %" for kind, swap in of["swap"].items())
        lines.append(f"Pictures with all that their caption says, of pairs whose captions differ in {words}.")
    if of.get("copies"):
        near = ", ".join(f"{of['copies'][half]:.2f} for {OF_HALVES[half]} captions" for half in HALVES)
        lines.append(f"Nearness to training pictures, 0 for copies and 1 for new pictures: {near}.")
    if of.get("licence"):
        lines.append(f"Training pictures: {of['licence']}")
    return lines


def percent(share: float | None) -> str:
    """A share in percent, without its sign; "" for None."""
    return "" if share is None else f"{100 * share:.1f}"


def interval(of: Result) -> str:
    """A share with its interval, in percent; "" where nothing was counted."""
    return f"{percent(of['share'])} ({percent(of['low'])} to {percent(of['high'])})" if of["n"] else ""


def p_value(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"


def _by(title: str, of_values: Mapping[str, Any]) -> Table:
    """A row for each value and half, with all figures in percent."""
    first = next(iter(of_values.values()))["seen"]
    names = [name for name in FIGURES if name in first["figures"] and first["figures"][name]["n"]]
    head = [title, "captions", *(FIGURES[name] for name in names)] + ["no scene"] * bool(first["unreadable"])
    rows = []
    for value, halves in of_values.items():
        for half in HALVES:
            cells = [percent(halves[half]["figures"][name]["share"]) for name in names]
            cells += [percent(halves[half]["unreadable"]["share"])] if first["unreadable"] else []
            rows.append([value, OF_HALVES[half], *cells])
    return head, rows


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
