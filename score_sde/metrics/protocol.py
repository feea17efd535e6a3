"""Protocol of a distance: everything it depends on besides the model. Distances of two protocols do not compare."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError


@check_arguments
def fingerprint(protocol: Mapping[str, Any]) -> str:
    """The protocol's fingerprint, 12 hexadecimal digits that do not depend on the order of its keys."""
    try:
        text = json.dumps(protocol, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise UsageError(f"A protocol holds what JSON can, under texts as keys: {error}.") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@check_arguments
def check_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raises `UsageError`, naming the differences, if the figures of two protocols do not compare.

    Protocols compare if all their entries are equal, in any order.

        from score_sde.metrics import check_comparable

        check_comparable({"samples": 50_000, "split": "train"}, {"split": "train", "samples": 50_000})
    """
    different = [key for key in sorted(first.keys() | second.keys(), key=str) if first.get(key) != second.get(key)]
    if different:
        differences = "; ".join(f"{key}: {first.get(key)!r} and {second.get(key)!r}" for key in different)
        raise UsageError(
            f"These figures do not compare, by protocols {fingerprint(first)} and {fingerprint(second)}: "
            f"{differences}. Evaluate both by one protocol."
        )
