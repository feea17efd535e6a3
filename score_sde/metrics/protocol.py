"""Protocol of a distance: everything it depends on besides the model. Distances of two protocols do not compare."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from score_sde.errors import UsageError


def fingerprint(protocol: Mapping[str, Any]) -> str:
    """The protocol's fingerprint, 12 hexadecimal digits that do not depend on the order of its keys."""
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raises `UsageError`, naming the differences, if the figures of two protocols do not compare.

    Protocols compare if all their entries are equal, in any order.

        from score_sde.metrics import check_comparable

        check_comparable({"samples": 50_000, "split": "train"}, {"split": "train", "samples": 50_000})
    """
    different = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
    if different:
        differences = "; ".join(f"{key}: {first.get(key)!r} and {second.get(key)!r}" for key in different)
        raise UsageError(
            f"These figures do not compare, by protocols {fingerprint(first)} and {fingerprint(second)}: "
            f"{differences}. Evaluate both by one protocol."
        )
