"""Short names of figures for tables, footnotes with the fingerprints that they leave out, and which value is better.

A report names a distance by its features and their digest, `frechet_distance[features=trained-7bb6f4a4]`, and a table
of several protocols adds the protocol's fingerprint. A table shows "Fréchet (trained)", and the rest once, beneath it.
"""

import math
import re
from collections.abc import Iterable, Sequence

from score_sde.metrics.features import kind

TITLES = {
    "frechet_distance": "Fréchet",
    "frechet_distance_infinity": "Fréchet, infinitely many",
    "kernel_distance": "kernel distance",
    "cmmd": "CMMD",
    "inception_score": "Inception score",
}
NAME = re.compile(
    r"(?P<name>\w+)(\[(?P<of>features|splits)=(?P<value>[^\]]+)\])?(?P<more>, [^(\[]*)?"
    r"( [(\[](?P<fingerprint>[0-9a-f]{12})[)\]])?"
)
HIGHER = ("accuracy", "inception_score", "precision", "recall")  # first words of figures that should be high
DIGITS = 4  # of a fingerprint in a name, at least


def short_names(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Short names of figures, by their names, and footnotes: those of one table, as they differ in one table.

    from score_sde.evaluation.figure_names import short_names

    names, footnotes = short_names(["fid", "frechet_distance[features=trained-7bb6f4a4]"])  # Fréchet (trained)
    """
    names = list(dict.fromkeys(names))
    parts = {name: match.groupdict() for name in names if (match := NAME.fullmatch(name))}
    features = _numbered([each["value"] for each in parts.values() if each["of"] == "features"])
    fingerprints = _shortened([each["fingerprint"] for each in parts.values() if each["fingerprint"]])
    short = {}
    for name, each in parts.items():
        title = TITLES.get(each["name"], each["name"]) if each["of"] else each["name"]
        of = {"features": features.get(each["value"]), "splits": f"{each['value']} splits", None: None}[each["of"]]
        protocol = fingerprints.get(each["fingerprint"])
        short[name] = title + (f" ({of})" if of else "") + (each["more"] or "") + (f" ({protocol})" if protocol else "")
    notes = [f"{shown}: features {whole}." for whole, shown in features.items() if shown != whole]
    notes += [f"{shown}: fingerprint {whole}." for whole, shown in fingerprints.items() if shown != whole]
    return {name: short.get(name, name) for name in names}, notes


def best_of(name: str, means: Sequence[float | None]) -> int | None:
    """The place of the best mean of a figure: the lowest, or the highest of those in `HIGHER`.

    None unless two means or more are numbers, or where the best ones are equal.

        from score_sde.evaluation.figure_names import best_of

        place = best_of("recall[features=trained-7bb6f4a4]", [0.2, None, 0.5])  # 2
    """
    sign = -1 if re.split(r"[\[, ]", name)[0] in HIGHER else 1
    numbers = [(sign * mean, place) for place, mean in enumerate(means) if mean is not None and math.isfinite(mean)]
    ranked = sorted(numbers)
    return ranked[0][1] if len(ranked) > 1 and ranked[0][0] < ranked[1][0] else None


def _numbered(names: Sequence[str]) -> dict[str, str]:
    """The kinds of features by their whole names, with a number where a kind has several digests."""
    of_kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        of_kinds.setdefault(kind(name), []).append(name)
    return {
        name: each if len(whole) == 1 else f"{each} {number}"
        for each, whole in of_kinds.items()
        for number, name in enumerate(whole, 1)
    }


def _shortened(fingerprints: Sequence[str]) -> dict[str, str]:
    """The first digits of each fingerprint, as many as tell them apart."""
    different = list(dict.fromkeys(fingerprints))
    digits = next((n for n in range(DIGITS, 12) if len({each[:n] for each in different}) == len(different)), 12)
    return {each: each[:digits] for each in different}
