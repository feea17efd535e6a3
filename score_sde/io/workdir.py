"""The workdir, the folder that holds all of a run:

config.json     the resolved config
launch.json     overrides, versions, devices, data and names of classes of its last launch, the files of a user's own
                pieces and the file it was imported from, if any, and what was changed on the way: key, step, and the
                values before and after it; the place of the workdir, by which a copy is known
privacy.json    of a private training: its settings, by which `score_sde.training.privacy.spent` knows what it has spent
privacy_seed.json  the secret seed of its batches and noise; delete it before you give the workdir to others
text.json       of a run with captions: its tokenizer, with the words, and the length of captions
metrics.jsonl   one JSON object a line, each with its step
checkpoints/    one folder a step
averages/       snapshots of the power averages by `ema.snapshot_freq`, one folder a step
ema/            averages made of these after the fact by --mode=ema, one file each
weights.json    at the end of training: the averaged weights against the raw ones
diverged.json   of a training that was stopped by a loss or gradient that is not finite: the step and its batch
samples/        samples as .npz and .png, and index.json, which lists them
eval/           report.json, report.html, and a folder of rounds for each checkpoint
card.*          the model card as .md, .html and its picture; author.toml has its author's texts
*.lock          held by the process that writes there
dequantizer/    of variational dequantization: config.json, metrics.jsonl, checkpoints/
"""

import difflib
import importlib.metadata
import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from score_sde import __version__
from score_sde.config import (
    ALLOWED,
    FREE_KEYS,
    FREE_SECTIONS,
    INHERITED,
    NEWER,
    OF_ONE_CLASS,
    SECTIONS,
    Config,
    completed,
)
from score_sde.errors import UsageError, one_of
from score_sde.io import checkpoints, json_files
from score_sde.io.atomic_files import replace
from score_sde.io.json_files import ANY

# Keys that --allow_change may change during a training, since the state means the same under either value. DATA stands
# for other images, CODE for changed files that define import paths.
DATA, CODE = "data", "code"
CHANGEABLE = (DATA, CODE, *ALLOWED)
# Keys that best describe how two runs differ.
TELLING = ("process.name", "sde.name", "parameterization.name", "data.dataset", "model.name")
NAMED = 10  # differing keys in a message
# Forms of the files, by which a file of another program is told apart.
NEEDS = {  # in files of any version
    "config.json": ("training", "data", "model", "optim"),
    "dequantizer/config.json": ("nf", "num_res_blocks", "lr"),
}
FORMS = {
    "config.json": dict.fromkeys((section for section in SECTIONS if section), dict)
    | {section: {"name": str} for section in OF_ONE_CLASS},
    "launch.json": {
        "run_id": str,
        "overrides": dict,
        "versions": dict,
        "devices": {ANY: int},
        "changes": list,
        "data": {ANY: {"images": int}},
        "code": {ANY: {"path": str, "file": str, "digest": str}},
        "imported": {"step": int},
        "class_names": list,
        "text": str,
        "place": {"path": str, "inode": int},
    },
    "privacy.json": {"segments": list},
    "privacy_seed.json": {"seed": int},
    "report.json": {"config": dict, "checkpoints": list},
}
# Names of folders that hold other files.
TAKEN = ("checkpoints", "averages", "ema", "samples", "dequantizer", "profile", ".", "..")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The flattened config, {"training.n_iters": 1, ...}; tuples become lists, as in JSON."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def read(workdir: Path, name: str) -> dict[str, Any]:
    """Reads a JSON file of the workdir; {} if it is missing. Raises `UsageError` if it is cut short or another file."""
    return json_files.read(Path(workdir) / name, FORMS.get(name), NEEDS.get(name, ()))


def write(workdir: Path, name: str, content: Any) -> None:
    """Replaces a JSON file as a whole. Raises `UsageError` if it cannot."""
    text = json.dumps(content, indent=2) + "\n"
    replace(Path(workdir) / name, lambda file: file.write(text.encode()))


def stored_config(workdir: Path) -> Config:
    """The config of a workdir's last launch, completed with keys added since. Raises `UsageError` without one."""
    stored = read(workdir, "config.json")
    if not stored:
        raise UsageError(no_run(workdir, "it has no config.json"))
    try:
        return Config(completed(stored)).lock()
    except UsageError as error:
        raise UsageError(f"{Path(workdir) / 'config.json'} cannot be used: {' '.join(str(error).split())}") from error


def class_names(workdir: Path) -> tuple[str, ...]:
    """Names of the classes that the run was trained on; () if they have none, or its version kept none."""
    return tuple(read(workdir, "launch.json").get("class_names", ()))


def licence(workdir: Path) -> str:
    """The terms of the images that the run was trained on; "" if they are unknown, or its version kept none."""
    return read(workdir, "launch.json").get("licence", "")


def saved_steps(workdir: Path) -> list[int]:
    """Steps with a checkpoint, ascending."""
    return checkpoints.steps(Path(workdir) / "checkpoints")


def checkpoint_steps(workdir: Path) -> list[int]:
    """Steps with a checkpoint, ascending. Raises `UsageError` if there are none."""
    steps = saved_steps(workdir)
    if not steps or not read(workdir, "config.json"):
        near = nearest_run(workdir)
        raise UsageError(
            f"No checkpoint in {workdir}{near}; train first: --mode=train with the same --config and --workdir."
        )
    return steps


def no_run(workdir: Path, reason: str) -> str:
    """The sentence on a folder in which nothing was trained."""
    train = f"train first: --mode=train --config=NAME --workdir={workdir}"
    if Path(workdir).is_file():
        reason, train = "it is a file", "name the folder of a run"
    elif not Path(workdir).exists():
        reason = "there is no such folder"
    return f"There is no run in {workdir}, since {reason}{nearest_run(workdir)}; {train}."


def nearest_run(workdir: Path) -> str:
    """The hint ` (did you mean ...?)` at the folder of a run: a parent, a folder inside, or one of a similar name."""
    here = Path(workdir)
    if here.parent != here and here.parent.name and (here.parent / "config.json").is_file():
        return f" (did you mean '{here.parent}'?)"
    try:
        inside = [path.parent for path in sorted(here.glob("*/config.json"))][:1]
        beside = [path.parent.name for path in sorted(here.parent.glob("*/config.json")) if path.parent != here]
    except OSError:
        return ""
    if inside:
        return f" (did you mean '{inside[0]}'?)"
    similar = difflib.get_close_matches(here.name, beside, n=1, cutoff=0.5)
    return f" (did you mean '{here.parent / similar[0]}'?)" if similar else ""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened config without keys that may change between launches, and without new keys that have no effect."""
    flat = flatten(config)
    left_out = {*FREE_KEYS, *(key for key, default in NEWER.items() if flat.get(key, default) == default)}
    return {key: flat[key] for key in flat if key not in left_out and key.split(".")[0] not in FREE_SECTIONS}


def inherit(workdir: Path, config: Any, overrides: Collection[str]) -> None:
    """Copies the `INHERITED` values of a workdir with checkpoints into a config, except those in `overrides`."""
    if not saved_steps(workdir) or not (stored := read(workdir, "config.json")):
        return
    flat = flatten(completed(stored))
    config.update_from_flattened_dict({key: flat[key] for key in INHERITED if key in flat and key not in overrides})


def check_allowed(keys: Collection[str]) -> None:
    """Raises `UsageError` for a key that no training may change."""
    for key in keys:
        one_of("key of --allow_change", key, CHANGEABLE)


def check_same_run(
    workdir: Path, config: Mapping[str, Any], allowed: Collection[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """The allowed changes between the workdir's config and this one: {key: (before, now)}.

    allowed: keys of `CHANGEABLE`, for a training; None for other programs. Raises `UsageError` if keys other than
    `FREE_*` and `allowed` differ.
    """
    if not saved_steps(workdir):
        return {}
    stored, current = read(workdir, "config.json"), identity(config)
    if not stored:
        raise UsageError(f"{workdir} has checkpoints and no config.json; restore it, or start in a new --workdir.")
    stored = identity(completed(stored))
    changed = [key for key in sorted(stored.keys() | current.keys()) if stored.get(key) != current.get(key)]
    different = [key for key in changed if key not in (allowed or ())]
    if different:
        # First the most telling: the SDE, network or data set.
        named = sorted(different, key=lambda key: (key not in TELLING, key))[:NAMED]
        each = "; ".join(f"{key}={_value(stored, key)!r}, not {_value(current, key)!r}" for key in named)
        others = f"; and {len(different) - len(named)} more keys" if len(different) > len(named) else ""
        can = allowed is not None and set(different) <= set(CHANGEABLE)
        advice = f"; or go on with it, by --allow_change={','.join(changed)}" if can else ""
        raise UsageError(
            f"{workdir} was trained with {each}{others}. Leave these overrides out, and --config too, to go on as it "
            f"was; or train in another --workdir{advice}."
        )
    return {key: (_value(stored, key), _value(current, key)) for key in changed}


def _value(identity: Mapping[str, Any], key: str) -> Any:
    """The value of a key in an identity, which leaves defaults of newer keys out."""
    return identity.get(key, NEWER.get(key))


def check_same_data(
    workdir: Path, path: str, splits: Mapping[str, Mapping[str, Any]], allowed: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """The allowed changes of the data since the workdir's last launch: {DATA: (before, now)}, {} if none.

    path: of the data now; data that have moved are the same if their digest is. splits: a description of each split, by
    name; only facts that were recorded then are compared. Raises `UsageError` if the workdir has checkpoints, and was
    trained on other data.
    """
    if not saved_steps(workdir):
        return {}
    recorded = read(workdir, "launch.json").get("data", {})
    old_path = read(workdir, "config.json").get("data", {}).get("path", "")
    changed = {}
    for split, now in splits.items():
        before = recorded.get(split, {})
        both = before.keys() & now.keys()
        differ = any(before[key] != now[key] for key in both)
        comparable = bool(both - {"images"}) or Path(path) == Path(old_path)
        if not differ and comparable:
            continue
        changed[split] = before, now
        if DATA in allowed:
            continue
        if not differ:
            raise UsageError(
                f"Nothing tells whether data.path={path!r} holds the {split} data of {workdir}, whose digest "
                f"is of another kind, from {old_path!r}; put them there; or go on with these, by --allow_change={DATA}."
            )
        raise UsageError(
            f"The {split} data have changed since {workdir} was last trained on them: {before['images']:,} images "
            f"then, {now['images']:,} now; restore them, or train in another --workdir; or go on with these, by "
            f"--allow_change={DATA}."
        )
    return before_and_now(DATA, changed)


def before_and_now(kind: str, changed: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Pairs of values by key, as one change of this kind; {} without any."""
    before, now = ({key: both[i] for key, both in changed.items()} for i in (0, 1))
    return {kind: (before, now)} if changed else {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    by_package = {"score_sde": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            by_package[package] = "not installed"
    return by_package
