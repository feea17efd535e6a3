"""The files that a run leaves, compared with another run's: every bit of state, numbers and pictures, but no times."""

import hashlib
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax

from score_sde.array_types import PyTree
from score_sde.errors import UsageError
from score_sde.io.checkpoints import Checkpoints, steps

OWN = ("launch.json",)  # holds a number drawn for each run
SAVED = ("checkpoints", "averages")  # folders of trees
WORKING = ("*.tmp", "*.lock")  # of a process at work
_one_at_a_time = threading.Lock()


class Contents(NamedTuple):
    """Digests of each file, of each array of each checkpoint and snapshot of averages, and the lines of metrics.jsonl.

    The lines are without their times.
    """

    digests: dict[str, str]
    metrics: list[str]


def contents(workdir: Path, like: PyTree, averages: PyTree = None) -> Contents:
    """The contents of a run's workdir; `like` is the tree of its state, of numpy arrays, `averages` of a snapshot's."""
    files = (path for path in sorted(workdir.rglob("*")) if path.is_file())
    digests = {}
    for path in files:
        name = path.relative_to(workdir)
        elsewhere = name.parts[0] in SAVED or str(name) == "metrics.jsonl"
        if not (elsewhere or str(name) in OWN or any(name.match(pattern) for pattern in WORKING)):
            digests[str(name)] = _digest(path.read_bytes())
    for folder, tree in zip(SAVED, (like, averages), strict=True):
        digests |= _checkpoints(workdir / folder, tree)
    return Contents(digests, _metrics(workdir / "metrics.jsonl"))


def differences(expected: Contents, actual: Contents) -> list[str]:
    """One sentence for each; empty if all is equal."""
    names = sorted(expected.digests.keys() | actual.digests.keys())
    said = [f"{name} is missing" for name in names if name not in actual.digests]
    said += [f"{name} should not be there" for name in names if name not in expected.digests]
    said += [
        f"{name} differs" for name, digest in actual.digests.items() if expected.digests.get(name, digest) != digest
    ]
    lines, now = Counter(expected.metrics), Counter(actual.metrics)
    said += [f"metrics.jsonl lacks {line}" for line in (lines - now)]
    said += [f"metrics.jsonl has {'twice' if line in lines else 'what it should not'}: {line}" for line in now - lines]
    if lines == now and expected.metrics != actual.metrics:
        said.append("metrics.jsonl has its lines in another order")
    return said


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _metrics(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [_without_time(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _without_time(line: str) -> str:
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError:
        return line  # cut short
    return json.dumps({name: value for name, value in values.items() if name != "time"})


def _checkpoints(folder: Path, like: PyTree) -> dict[str, str]:
    digests: dict[str, str] = {}
    if not steps(folder):
        return digests
    with _one_at_a_time, Checkpoints(folder) as checkpoints:
        for step in steps(folder):
            try:
                state = checkpoints.load(step, like)
            except UsageError as error:
                digests[f"{folder.name}/{step}"] = str(error)
                continue
            for path, leaf in jax.tree_util.tree_leaves_with_path(state):
                digests[f"{folder.name}/{step} {jax.tree_util.keystr(path)}"] = _digest(leaf.tobytes())
    return digests
