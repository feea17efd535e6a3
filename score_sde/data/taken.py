"""Report on how a data set of one's own was read: which folders are splits, which files labels, what was left out."""

from collections.abc import Mapping
from typing import NamedTuple

KINDS = 6  # that are named


class Taken(NamedTuple):
    """Report on how one split was read, for `loading.summary`.

    part: "from valid/", or "held out". labels: where they come from, or why there are none. left_out: the number of
    files of each kind that are not read.
    """

    part: str = ""
    labels: str = ""
    left_out: Mapping[str, int] = {}


def counted(kinds: Mapping[str, int]) -> str:
    """Numbers of each kind in words, `4 .heic, 2 hidden`, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    more = sum(number for _, number in ordered[KINDS:])
    return ", ".join([f"{number:,} {kind}" for kind, number in ordered[:KINDS]] + [f"{more:,} others"] * bool(more))
