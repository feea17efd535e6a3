"""Modes that train a run, or evaluate and sample what it has trained."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from absl.flags import FlagValues

from score_sde.cli.command_line import name_or_set, names_first, overrides
from score_sde.conditioning.grammar import KINDS, parts
from score_sde.config import FREE_SECTIONS, OF_MACHINE, Config, check
from score_sde.config.import_paths import lowered
from score_sde.errors import UsageError, tell, warn
from score_sde.evaluation import evaluate as evaluation
from score_sde.inference.conditional_samplers import unused_option
from score_sde.inference.train_dequantizer import train_dequantizer as fit_dequantizer
from score_sde.io import workdir
from score_sde.runtime.sharding import is_first
from score_sde.training import run as training
from score_sde.training import sigma_data
from score_sde.training.pieces import complete


def train(values: FlagValues) -> None:
    """Trains in the workdir, with the overrides of its earlier launches."""
    directory = Path(values.workdir)
    repeated = _going_on(directory, values.config, overrides(values), values.allow_change)
    training.train(values.config, directory, repeated, values.allow_change)


def evaluate(values: FlagValues) -> None:
    """Evaluates snapshots of the workdir."""
    config = _of_workdir(Path(values.workdir), values.config, overrides(values))
    if config.eval.enable_sampling:
        _tell_unused(config, overrides(values))
    evaluation.evaluate(config, values.workdir, values.eval_folder, values.out)


def sample(values: FlagValues) -> None:
    """Draws samples of the workdir's last checkpoint."""
    config = _of_workdir(Path(values.workdir), values.config, overrides(values))
    _tell_unused(config, overrides(values))
    evaluation.sample(config, values.workdir, values.out)


def train_dequantizer(values: FlagValues) -> None:
    """Fits a variational dequantization to the workdir's last checkpoint."""
    config = _of_workdir(Path(values.workdir), values.config, overrides(values))
    fit_dequantizer(config, values.workdir)


def of_workdir(values: FlagValues) -> Config:
    """The config of a command line whose workdir has been trained. Raises `UsageError` if it describes another run."""
    return _of_workdir(Path(values.workdir), values.config, overrides(values))


def _of_workdir(directory: Path, config: Config, overrides: dict) -> Config:
    """The workdir's config, with `sampling`, `eval` and `wandb` from the command line.

    The overrides of the training's command line need not be repeated. Raises `UsageError` where the command line
    describes another run.
    """
    workdir.checkpoint_steps(directory)
    _repeat(directory, config, lambda key: key not in overrides)
    workdir.inherit(directory, config, overrides)
    complete(config)
    sigma_data.inherit(directory, config)
    workdir.check_same_run(directory, config.to_dict())
    stored = workdir.stored_config(directory)
    flat = workdir.flatten(stored.to_dict())
    for key, value in workdir.flatten(overrides).items():
        if key.split(".")[0] not in FREE_SECTIONS and key not in OF_MACHINE and flat.get(key) != value:
            sections = ", ".join(f"{section}.*" for section in FREE_SECTIONS)
            raise UsageError(
                f"{key}={value!r} cannot be changed after training; only {sections}, {', '.join(OF_MACHINE)} can."
            )
    with stored.unlocked():
        for section in FREE_SECTIONS:
            stored[section] = config[section]
        stored.update_from_flattened_dict({key: overrides[key] for key in OF_MACHINE if key in overrides})
    return stored


def _going_on(directory: Path, config: Config, overrides: dict, allowed: list[str]) -> dict:
    """The overrides of a training; where it goes on, with those of its earlier launches, which come into the config.

    Keys of the machine, such as where data are, are as given now.
    """
    if not workdir.checkpoints.steps(directory / "checkpoints"):
        return overrides
    before = workdir.flatten(config.to_dict())
    repeated = _repeat(directory, config, lambda key: key not in {*overrides, *allowed, *OF_MACHINE})
    changes = [f"{key}={value}" for key, value in repeated.items() if before.get(key) != value]
    if changes and is_first():
        tell(f"going on with the values of this run's earlier command lines: {', '.join(changes)}")
    return repeated | overrides


def _repeat(directory: Path, config: Config, wanted: Callable[[str], bool]) -> dict:
    """Sets values that earlier launches overrode, for the wanted keys, and returns them."""
    repeated, earlier = {}, workdir.read(directory, "launch.json").get("overrides", {})
    for key, value in names_first(earlier):
        # A key that the current file lacks belongs to another config; the check of the run reports it.
        with contextlib.suppress(UsageError):
            if wanted(key):
                name_or_set(config, key, value)
                repeated[key] = value
    return repeated


def _tell_unused(config: Config, overrides: dict) -> None:
    """Warns of options on the command line that have no effect on samples."""
    check(config)
    method, observed = lowered(config.sampling.method), not KINDS.keys().isdisjoint(parts(config.sampling.condition))
    read = (
        "method",
        "num_samples",
        "batch_size",
        "condition",
        "same_noise",
        "ema",
        "save",
        "start",
        "samples_each",
        "noise",
    )  # by the program itself
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if section in ("sampling", "guidance") and name not in read and is_first():
            reason = unused_option(name, config.sampling, config.guidance, method, observed=observed)
            if reason:
                warn(f"{key}={value} changes nothing: {reason}.")
