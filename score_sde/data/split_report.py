"""Report on how a user's own data set was read: its splits, where its labels come from, and the files left out."""

from collections.abc import Mapping
from typing import NamedTuple

KINDS = 6  # kinds of files that are named


class SplitReport(NamedTuple):
    """Report on how one split was read, for `loading.summary`.

    part: "from valid/", or "held out". labels: where the labels come from, or why there are none. left_out: number
    of unread files of each kind. notes: other facts on how they were read.
    """

    part: str = ""
    labels: str = ""
    left_out: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()


def counted(kinds: Mapping[str, int]) -> str:
    """Numbers of each kind in words, `4 .heic, 2 hidden`, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    more = sum(number for _, number in ordered[KINDS:])
    return ", ".join([f"{number:,} {kind}" for kind, number in ordered[:KINDS]] + [f"{more:,} others"] * bool(more))
