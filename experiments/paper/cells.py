"""Tables of the paper: cells, each a config with options, a figure of it, and the paper's number."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from score_sde.experiments.sweep.results import Figure
from score_sde.experiments.sweep.space import Point

# A figure of an evaluation by what it is called in a table: the first of these whose name begins so. A distance is FID
# on Inception's features, and by another name on others.
DISTANCE = ("fid", "frechet_distance")
SCORE = ("inception_score",)
BITS = ("bits/dim",)
BOUND = ("bound on bits/dim",)
SHORT = {DISTANCE: "distance", SCORE: "IS", BITS: "bits/dim", BOUND: "bound"}
Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One number. row, column: where it stands. config: by its path under configs/. options: on top of it."""

    row: str
    column: str
    config: str
    figure: Names
    paper: str = ""
    options: Point = dataclasses.field(default_factory=dict)


class Comparison(NamedTuple):
    """A claim that the first figure, by row and column, is less than the second."""

    less: tuple[str, str]
    more: tuple[str, str]


class Finding(NamedTuple):
    """A sentence of the paper on a table, as comparisons of its cells."""

    claim: str
    comparisons: tuple[Comparison, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table. about: a sentence. curve: whether its distances are drawn against evaluations."""

    title: str
    about: str
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...] = ()
    curve: bool = False


class Verdict(NamedTuple):
    """Verdict on a finding: numbers of comparisons for and against it, undecided and not run, and their differences."""

    claim: str
    word: str
    counts: dict[str, int]
    differences: list[str]


def judge(finding: Finding, figure: Callable[[tuple[str, str]], Figure | None]) -> Verdict:
    """A comparison is decided when the 95 % interval of the difference leaves out 0.

    The interval is of independent figures; those of one network and the same noise are closer than it says.
    """
    counts = {"for": 0, "against": 0, "undecided": 0, "not run": 0}
    differences = []
    for less, more in finding.comparisons:
        a, b = figure(less), figure(more)
        named = f"{', '.join(more)} minus {', '.join(less)}"
        if a is None or b is None:
            counts["not run"] += 1
            differences.append(f"{named}: not run")
            continue
        difference, half = b.mean - a.mean, ((a.half or 0) ** 2 + (b.half or 0) ** 2) ** 0.5
        outcome = "undecided" if abs(difference) <= half else "for" if difference > 0 else "against"
        counts[outcome] += 1
        differences.append(f"{named}: {difference:+.3g} ± {half:.2g}")
    return Verdict(finding.claim, _word(counts), counts, differences)


def _word(counts: Mapping[str, int]) -> str:
    if counts["not run"]:
        return "not run"
    if counts["against"]:
        return "not reproduced" if not counts["for"] else "reproduced in part"
    if not counts["for"]:
        return "undecided"
    return "reproduced" if not counts["undecided"] else "reproduced where decided"


def comparisons(less: Sequence[tuple[str, str]], more: Sequence[tuple[str, str]]) -> tuple[Comparison, ...]:
    """Comparisons of pairs."""
    return tuple(Comparison(a, b) for a, b in zip(less, more, strict=True))


def picked(figures: Mapping[str, Any], names: Names) -> Any | None:
    """The figure that goes by one of these names, which may go on in brackets."""
    for name in names:
        for full_name, value in figures.items():
            if full_name == name or full_name.startswith(f"{name}["):
                return value
    return None
