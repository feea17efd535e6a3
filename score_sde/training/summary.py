"""Summaries of a training on stderr: how it runs, before its first update, and what to do next, after its last."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import jax

from score_sde import data
from score_sde.config import Config
from score_sde.errors import show
from score_sde.io import workdir
from score_sde.training.build import Classification, Experiment, parameter_counts

NAMED = 3  # classes that are named


def at_start(
    experiment: Experiment | Classification,
    directory: Path,
    train_set: data.Source,
    eval_set: data.Source,
    start: int,
    privacy: str = "",
) -> None:
    """Prints devices, data, network, updates, checkpoints and log of a training, which begins after `start` updates.

    privacy: the budget in words, of a private training.
    """
    config = experiment.config
    rows = [
        ("devices", _devices(config.training.precision)),
        ("data", _data(experiment, train_set, eval_set)),
        ("network", _network(experiment)),
        ("updates", _updates(config.training, start)),
        *([("privacy", privacy)] if privacy else []),
        ("checkpoints", _checkpoints(config.training, directory, start)),
        *_averages(config, directory),
        ("log", f"{directory / 'metrics.jsonl'}, {_every(config.training.log_freq)}"),
    ]
    if start < config.training.n_iters:
        rows.append(("to stop", "Ctrl-C saves a checkpoint; the same command goes on from it"))
    show([f"Training in {directory}", *_table(rows)])


def at_end(experiment: Experiment | Classification, directory: Path, sheet: Path | None, privacy: str = "") -> None:
    """Prints where the checkpoint and the sheet of samples are, and commands that use them. privacy: as above."""
    last, place = workdir.saved_steps(directory)[-1], shlex.quote(str(directory))
    rows = [("checkpoint", str(directory / "checkpoints" / str(last)))]
    rows += [("privacy", privacy)] if privacy else []
    if isinstance(experiment, Experiment):
        rows += [("samples", str(sheet))] if sheet and sheet.exists() else []
        rows.append(("draw more", f"score_sde --mode=sample --workdir={place}"))
    else:
        rows.append(("guide", f"samples of a score network by --config.guidance.classifier={place}"))
    rows.append(("evaluate", f"score_sde --mode=eval --workdir={place}"))
    show([f"Trained: {last:,} update{'s' * (last > 1)} in {directory}", *_table(rows)])


def _averages(config: Config, directory: Path) -> list[tuple[str, str]]:
    every = config.ema.snapshot_freq
    return [("averages", f"{directory / 'averages'}, {_every(every)}; --mode=ema makes others")] if every else []


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name:12s} {text}" for name, text in rows]


def _every(n: int) -> str:
    return f"every {n:,} updates" if n > 1 else "every update"


def _devices(precision: str) -> str:
    device, n, processes = jax.devices()[0], jax.device_count(), jax.process_count()
    several = (
        (f"{n} x " if n > 1 else "") + device.device_kind + (f" of {processes} processes" if processes > 1 else "")
    )
    exact = precision == "tf32" and device.platform == "cpu"
    return f"{several}, precision {precision}" + (", which is float32 here" if exact else "")


def _data(experiment: Experiment | Classification, train_set: data.Source, eval_set: data.Source) -> str:
    config = experiment.config
    if line := data.summary(config.data.path or config.data.dataset, train_set, eval_set):
        return line
    shape, names = "x".join(map(str, experiment.image_shape)), train_set.class_names
    classes = f" in {len(names):,} classes ({_some(names)})" if names else ""
    unused = ", not used by the network" if names and "labels" not in experiment.cond_entries else ""
    images = f"{len(train_set):,} images of {shape}{classes}{unused}"
    return f"{config.data.dataset}, {images}; {len(eval_set):,} to evaluate on"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)


def _network(experiment: Experiment | Classification) -> str:
    learned, _ = parameter_counts(experiment.param_shapes)
    process = type(experiment.sde).__name__
    return f"{experiment.config.model.name}, {learned:,} parameters, under {process}"


def _updates(training: Config, start: int) -> str:
    n, size = training.n_iters, f"{training.batch_size:,} images each"
    if start >= n:
        made = f"all {n:,} are made" if start == n else f"{start:,} are made, more than training.n_iters={n}"
        return f"{made}; a larger training.n_iters goes on from there"
    return f"{n:,} of {size}, " + (f"going on from step {start:,}" if start else "a new run")


def _checkpoints(training: Config, directory: Path, start: int) -> str:
    folder, n = directory / "checkpoints", training.n_iters
    resume, keep = training.snapshot_freq_for_preemption, training.snapshot_freq
    if start // resume == (n - 1) // resume and start // keep == (n - 1) // keep:
        return (
            f"{folder}, none before the end, as training.snapshot_freq_for_preemption={resume} and "
            f"training.snapshot_freq={keep}"
        )
    last = f"the last {training.keep_last} are kept" if training.keep_last > 1 else "the last is kept"
    often = f"{_every(resume)} ({last})" if resume < n and resume % keep else ""
    for_ever = f"{_every(keep)} (kept for ever)" if keep < n else ""
    return f"{folder}, {' and '.join(filter(None, (often, for_ever)))}"
