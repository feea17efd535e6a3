"""Packages that score_sde needs and this Python lacks. Imports nothing heavy, and nothing that may be missing."""

import importlib.metadata
import re
import tomllib

from score_sde.errors import UsageError, warn
from score_sde.runtime import clone

OWN = "score_sde"
NOT_NEEDED = ("wandb",)  # imported only where config.wandb.mode asks for it


def check_installed() -> None:
    """Names all missing packages at once, so that they can be brought together.

    Raises `UsageError` if one of them is required by score_sde itself. Those that other packages require are a warning,
    because not all of them are used.
    """
    lacking = missing(requirements())
    said = ", ".join(name if by == OWN else f"{name} (for {by})" for name, by in lacking.items())
    if OWN in lacking.values():
        raise UsageError(f"This Python lacks {said}; install them, or put them on PYTHONPATH.")
    if lacking:
        warn(f"This Python lacks {said}; install them if an import fails.")


def requirements() -> list[str]:
    """Requirements of score_sde: of the clone, or else of the package that is installed."""
    described = clone.PACKAGE.parent / "pyproject.toml"
    if described.exists():
        return tomllib.loads(described.read_text(encoding="utf-8"))["project"]["dependencies"]
    return _without_markers(importlib.metadata.requires("score-sde") or [])


def missing(required: list[str], by: str = OWN) -> dict[str, str]:
    """Names of required packages that are not installed, each with the package that requires it."""
    waiting, seen, lacking = [(line, by) for line in required], set(NOT_NEEDED), {}
    while waiting:
        line, by = waiting.pop(0)
        name = re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            lacking[name] = by
            continue
        waiting += [(each, name) for each in _without_markers(needs)]
    return lacking


def _without_markers(required: list[str]) -> list[str]:
    """Requirements that hold everywhere: a marker is of an extra, of a platform or of another Python."""
    return [line for line in required if ";" not in line]
