"""What was taken as what, and what was left out, of data whose splits and labels are not known beforehand."""

from collections.abc import Mapping
from typing import NamedTuple

KINDS = 6  # that are named


class Taken(NamedTuple):
    """What one split was read from, as `loading.summary` says it.

    part: "from valid/", or "held out". labels: what gives them, or why there are none. left_out: the number of things
    of each kind that are not read.
    """

    part: str = ""
    labels: str = ""
    left_out: Mapping[str, int] = {}


def counted(kinds: Mapping[str, int]) -> str:
    """`4 .heic, 2 hidden`: the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    more = sum(number for _, number in ordered[KINDS:])
    return ", ".join([f"{number:,} {kind}" for kind, number in ordered[:KINDS]] + [f"{more:,} others"] * bool(more))
