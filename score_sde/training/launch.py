"""The record of a training's last launch, launch.json, from which later programs know what the config does not say."""

import collections
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from score_sde.errors import tell
from score_sde.io import workdir
from score_sde.runtime.sharding import is_first

NAME = "launch.json"


def record(
    directory: Path,
    overrides: Mapping[str, Any],
    described: Mapping[str, Any],
    code: Mapping[str, Any],
    changed: Mapping[str, tuple[Any, Any]],
    class_names: Sequence[str] | None,
    *,
    mirrored: bool,
    text: str = "",
    licence: str = "",
) -> dict[str, Any]:
    """The content of launch.json, after the launch that the file now describes.

    described: of each split of the data. code: files of a user's own pieces. changed: {key: (before, now)} of the
    changes that this launch makes. class_names: of the labels, if they have names. mirrored: whether Weights & Biases
    gets the metrics, and then a line on stderr tells of a copy. text: digest of the run's text condition.
    licence: of the training images, if it is known.
    """
    earlier, here = workdir.read(directory, NAME), place(directory)
    step = max(workdir.saved_steps(directory), default=0)
    changes = [{"step": step, "key": key, "from": old, "to": new} for key, (old, new) in changed.items()]
    history = earlier.get("changes", [])
    copied = is_copy(earlier.get("place"), here)
    if copied and mirrored and is_first():
        tell(f"{directory} is a copy of {earlier['place']['path']}, and gets a run of its own at Weights & Biases.")
    run_id = secrets.token_hex(4) if copied or "run_id" not in earlier else earlier["run_id"]
    content = {"run_id": run_id, "place": here, "overrides": dict(overrides), "data": dict(described)}
    content |= {"code": dict(code)} if code else {}
    content |= {"text": text} if text else {}
    content |= {"class_names": [str(name) for name in class_names]} if class_names else {}
    content |= {"licence": licence} if licence else {}
    content |= {"changes": history + [each for each in changes if each not in history]}
    kept = {key: earlier[key] for key in ("imported",) if key in earlier}
    devices = collections.Counter(device.device_kind for device in jax.devices())
    return content | {"versions": workdir.versions(), "devices": dict(devices)} | kept


def place(directory: Path) -> dict[str, Any]:
    """The identity of a workdir: its path, and the number of its folder in the file system (inode)."""
    inode = directory.stat().st_ino if directory.exists() else 0  # the disk of another process may lack it
    return {"path": str(directory.absolute()), "inode": inode}


def is_copy(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """Whether a workdir whose record says `before` was copied to where it is `now`.

    A folder that is moved keeps its inode, and one whose file system is mounted anew its path; a copy keeps neither.
    A move to another file system is a copy.
    """
    return before is not None and all(before[key] != now[key] for key in now)
