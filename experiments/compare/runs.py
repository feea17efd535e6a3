"""Contents of workdirs besides their weights, and how their configs differ."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from score_sde.config import PLACES
from score_sde.errors import UsageError, warn
from score_sde.io import workdir
from score_sde.io.metrics_log import read_lines

ELSEWHERE = (*PLACES, "metrics.statistics")  # the latter is told by a protocol's fingerprint
DIGITS = 12  # of a digest of data


class Run(NamedTuple):
    """A run: its flattened config, with keys added since, and the flattened data and versions of its last launch.
    metrics: the lines of metrics.jsonl. reports: of evaluations, by their folders."""

    name: str
    directory: Path
    config: dict[str, Any]
    launch: dict[str, Any]
    metrics: list[dict[str, float]]
    reports: dict[str, dict[str, Any]]


def read(directories: Sequence[Path]) -> list[Run]:
    """Raises `UsageError` unless these are two workdirs or more, each named once."""
    if len(directories) < 2:
        raise UsageError("There is nothing to compare: name two workdirs or more.")
    seen: dict[Path, Path] = {}
    for directory in directories:
        same = seen.setdefault(directory.resolve(), directory)
        if same is not directory:
            raise UsageError(f"{directory} is named twice (as {same}); name each workdir once.")
    for directory in directories:
        if not workdir.read(directory, "config.json"):
            raise UsageError(f"{directory} is no workdir: it has no config.json; name folders that were trained in.")
    return [_read(directory, name) for directory, name in zip(directories, names(directories), strict=True)]


def _read(directory: Path, name: str) -> Run:
    launch = workdir.read(directory, "launch.json")
    data = workdir.flatten({"launch": {"data": launch.get("data", {})}})
    digits = {key: value[:DIGITS] if isinstance(value, str) else value for key, value in data.items()}
    reports = {path.parent.name: _report(path) for path in sorted(directory.glob("*/report.json"))}
    return Run(
        name,
        directory,
        workdir.flatten(workdir.completed(workdir.read(directory, "config.json"))),
        digits | workdir.flatten({"launch": {"versions": launch.get("versions", {})}}),
        read_lines(directory / "metrics.jsonl"),
        {folder: report for folder, report in reports.items() if report.get("checkpoints")},
    )


def _report(path: Path) -> dict[str, Any]:
    """{} if it is none of an evaluation, which a warning says."""
    try:
        return workdir.read(path.parent, path.name)
    except UsageError as error:
        warn(f"{error} The page leaves it out.")
        return {}


def names(directories: Sequence[Path]) -> list[str]:
    """The shortest end of each path that is the end of no other."""
    paths = [Path(os.path.abspath(directory)).parts for directory in directories]

    def name(i: int) -> str:
        others = paths[:i] + paths[i + 1 :]
        lengths = range(1, len(paths[i]) + 1)
        n = next((n for n in lengths if all(other[-n:] != paths[i][-n:] for other in others)), len(paths[i]))
        return str(Path(*paths[i][-n:]))

    return [name(i) for i in range(len(paths))]


def differences(runs: Sequence[Run]) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of `differing`, of configs and launches: those that may move a number; those of `ELSEWHERE` and wandb."""
    rows = differing([run.config for run in runs]) + differing([run.launch for run in runs])
    places = [row for row in rows if is_place(row[0])]
    return [row for row in rows if row not in places], places


def is_place(key: str) -> bool:
    return key in ELSEWHERE or key.startswith("wandb.")


def differing(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each key whose values are not all the same: the key, and its value in each of them, "-" for none."""
    missing = object()
    rows = []
    for key in sorted({key for config in configs for key in config}):
        values = [config.get(key, missing) for config in configs]
        if any(value != values[0] for value in values):
            rows.append([key, *("-" if value is missing else str(value) or '""' for value in values)])
    return rows
