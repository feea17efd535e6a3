"""A sweep as a file for `wandb sweep`, whose agents then choose the points and start this program for each.

A point starts as any other run of the sweep does, so that one that is finished is not run again, whoever chose it.
"""

from pathlib import Path
from typing import Any

import yaml
from score_sde.experiments.sweep.definition import Sweep
from score_sde.experiments.sweep.runs import plain
from score_sde.experiments.sweep.space import Point

from score_sde.io import atomic_files


def export(sweep: Sweep, path: str, folder: Path, target: Path) -> None:
    """Writes the file. A full grid becomes its parameters; of any other space the parameter is the point's number."""
    points = sweep.points()
    keys = list(points[0])
    values = {key: list({str(point.get(key)): point.get(key) for point in points}.values()) for key in keys}
    content: dict[str, Any] = {"method": "grid", "metric": {"name": "eval_loss", "goal": "minimize"}}
    command = ["${env}", "python", "-m", "score_sde.experiments.sweep", path, f"--folder={folder}"]
    if _is_grid(points, values):
        content["parameters"] = {f"config.{key}": {"values": [plain(v) for v in of]} for key, of in values.items()}
    else:
        content["parameters"] = {"point": {"values": list(range(len(points)))}}
    content["command"] = [*command, "${args}"]
    atomic_files.replace(
        target, lambda file: file.write(yaml.safe_dump(content, sort_keys=False).encode()), "--wandb_file"
    )


def _is_grid(points: tuple[Point, ...], values: dict[str, list]) -> bool:
    """Whether the points are all combinations of their values."""
    size = 1
    for of_key in values.values():
        size *= len(of_key)
    return bool(values) and "config" not in values and len({str(point) for point in points}) == size == len(points)
