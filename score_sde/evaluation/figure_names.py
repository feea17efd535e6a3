"""Short names of figures for tables, and footnotes with the fingerprints that they leave out.

A report names a distance by its features and their digest, `frechet_distance[features=trained-7bb6f4a4]`, and a table
of several protocols adds the protocol's fingerprint. A table shows "Fréchet (trained)", and the rest once, beneath it.
"""

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
