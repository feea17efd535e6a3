"""The training loop, the same for scores, classifiers, dequantizers and feature networks."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from score_sde import data
from score_sde.array_types import Array
from score_sde.errors import UsageError
from score_sde.io.checkpoints import Checkpoints, NoCheckpoints, Retention
from score_sde.io.metrics_log import Writer
from score_sde.runtime import sharding
from score_sde.runtime.backend import program
from score_sde.runtime.preemption import Notice, Stopped
from score_sde.runtime.profiling import Profile
from score_sde.runtime.progress import bar
from score_sde.training.average_snapshots import FOLDER, AverageSnapshots, NoSnapshots, Schedule
from score_sde.training.nan_guard import DivergenceError, Losses, check_finite
from score_sde.training.state import TrainState

NO_MIRROR = {"mode": "disabled"}


class Running(NamedTuple):
    """The parts of a running loop that its hooks use. start: number of updates made before this launch."""

    start: int
    writer: Writer
    notice: Notice


class Training(NamedTuple):
    """The description of a training: functions, and how often the loop calls them, counted in updates.

    name: words on the progress bar.
    init: () -> the state before the first update, on the devices.
    like: shapes and shardings of the state, from `sharding.like`.
    batch: number of updates made -> the batch of the next one, on the devices; a function of that number alone.
    update: (state, *batch) -> (state, loss or NaN), compiled; it may overwrite the state, and counts its `step`.
    diverged: the user's error for a loss, a gradient or a parameter that is not finite.
    loss, shown: the loss's name in metrics.jsonl, and its format beside the progress bar.
    skip: whether to go on after an update that is not finite, counting it; `update` then leaves the state as it was.
    evaluate: (state, step) -> the loss of evaluation images, also before each save if the best are kept.
    begin: called with the number of updates made, before anything compiles. finish: called after the last update.
    draw: called after each save, and when a run goes on from `step`.
    averages: the schedule of snapshots of averages; None saves none.
    notes: step -> further numbers that are logged at each save.
    """

    name: str
    init: Callable[[], TrainState]
    like: TrainState
    batch: Callable[[int], tuple]
    update: Callable[..., tuple[TrainState, Array]]
    diverged: Callable[[DivergenceError], UsageError]
    n_iters: int
    log_freqs: tuple[int, ...]
    save_freqs: tuple[int, ...]
    eval_freqs: tuple[int, ...] = ()
    loss: str = "training_loss"
    shown: str = "loss {:.4g}"
    skip: bool = False
    evaluate: Callable[[TrainState, int], float] | None = None
    begin: Callable[[int], None] = lambda start: None
    finish: Callable[[TrainState, int], None] | None = None
    draw: Callable[[TrainState, int, Running], None] | None = None
    averages: Schedule | None = None
    notes: Callable[[int], dict[str, float]] = lambda step: {}


def fit(
    training: Training,
    folder: Path,
    retention: Retention | None,
    *,
    wandb: dict[str, Any] = NO_MIRROR,
    config: dict[str, Any] | None = None,
    profile: int = 0,
) -> TrainState:
    """Trains until `training.n_iters` updates are made, from the last checkpoint that can be read; returns the state.

    folder: of checkpoints/, averages/, metrics.jsonl and profile/; the caller has its lock. retention: the checkpoints
    to keep; None saves nothing. wandb, config: see `Writer`. profile: number of updates that are traced.

    Losses are read a few updates late, so that the host never waits for the devices. Raises `training.diverged`'s error
    where one is not finite, before such a state is saved; `UsageError` where the last checkpoint cannot be saved;
    `Stopped` after SIGTERM, SIGUSR1 or Ctrl-C, with a last checkpoint.
    """
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context

        # Restore: the last state that can be read, or a fresh one.
        checkpoints = enter(Checkpoints(folder / "checkpoints", retention) if retention else NoCheckpoints())
        averages = enter(_snapshots(training, folder, retention))
        state, start = _restored(training, checkpoints, averages)
        keeps_best = bool(retention and retention.best)

        # Watch: notices to stop, losses, sums of parameters.
        notice = enter(Notice())
        writer = enter(Writer(folder, start, wandb, config or {}))
        run = Running(start, writer, notice)
        losses = _watched(training, writer)
        total = program(lambda params: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)))
        largest = sharding.Largest()
        progress = enter(bar(training.name, training.n_iters, "step", initial=start))

        # Batches: from where the state is, read ahead by a thread.
        batches = enter(data.prefetched(training.batch, range(start, training.n_iters)))
        trace = enter(Profile(folder / "profile", profile))
        if start:
            _draw(training, state, start, run, checkpoints)
        for number, *batch in batches:
            # Update.
            trace.before(number - start, state)
            with jax.transfer_guard_device_to_host("disallow"):  # the host would wait
                state, loss = training.update(state, *batch)
            step = number + 1  # updates made
            progress.update()
            ends = step == training.n_iters
            saves = ends or _due(step, training.save_freqs)
            try:
                losses.add(step, loss)

                # Log.
                if ends or _due(step, training.log_freqs):
                    _log(training, losses.last(), step, writer, progress)
                    checkpoints.poll()

                # Evaluate.
                eval_loss = None
                if training.evaluate and (_due(step, training.eval_freqs) or (saves and keeps_best)):
                    losses.last()
                    eval_loss = check_finite(training.evaluate(state, step), step)
                    writer.scalars(step, eval_loss=eval_loss)
                if ends and training.finish:
                    training.finish(state, step)

                # Save, but never a state that is not finite.
                stop = largest(notice.number)
                saves = saves or bool(stop)
                if saves or averages.is_due(step):
                    losses.last()
                    check_finite(float(total(state.params)), step)
                    if saves and (notes := training.notes(step)):
                        writer.scalars(step, **notes)
                    writer.sync()
                    _save(checkpoints if saves else None, averages, step, state, eval_loss if keeps_best else None)
            except DivergenceError as problem:
                checkpoints.wait()  # so that the message names the last one
                raise training.diverged(problem) from None

            # Stop.
            if stop:
                saved = "which is saved" if checkpoints.wait() else "which is NOT saved"
                raise Stopped(stop, f" after step {step}, {saved}; the same command goes on from there")

            # Draw.
            _draw(training, state, step, run, checkpoints)
        if retention and not checkpoints.wait():
            raise UsageError(f"The last checkpoint is not saved; free space in {folder} and start this again.")
        return state


def _restored(
    training: Training, checkpoints: Checkpoints | NoCheckpoints, averages: AverageSnapshots
) -> tuple[TrainState, int]:
    """The last state that can be read, or a fresh one, and the number of its updates, which `begin` is told before."""
    state = checkpoints.load_last(training.like)
    start = int(state.step) if state else 0
    training.begin(start)
    if state and averages.is_due(start):  # a kill may have come between this checkpoint and its averages
        averages.keep(start, state)
    return state or training.init(), start


def _snapshots(training: Training, folder: Path, retention: Retention | None) -> AverageSnapshots:
    """The snapshots of averages under the folder, or none where none are planned, or nothing is saved."""
    if retention and training.averages:
        return AverageSnapshots(folder / FOLDER, training.averages, training.n_iters)
    return NoSnapshots()


def _log(training: Training, loss: float, step: int, writer: Writer, progress: Any) -> None:
    """Writes a finite loss to metrics.jsonl, and beside the progress bar."""
    if math.isfinite(loss):
        writer.scalars(step, **{training.loss: loss})
        progress.set_postfix_str(training.shown.format(loss), refresh=False)


def _save(
    checkpoints: Checkpoints | None, averages: AverageSnapshots, step: int, state: TrainState, loss: float | None
) -> None:
    """Begins to save the state, unless `checkpoints` is None, and its averages, if they are due.

    A run that goes on from a checkpoint does not make earlier averages again, so these are waited for.
    """
    if checkpoints is not None:
        averages.wait()
        checkpoints.save(step, state, loss)
    if averages.is_due(step):
        averages.keep(step, state)


def _watched(training: Training, writer: Writer) -> Losses:
    """The watch over the run's losses; it goes on counting the updates that were skipped before."""
    return Losses(
        skip=training.skip,
        skipped=int(writer.last.get("skipped_updates", 0)),
        tell=lambda step, count: writer.scalars(step, skipped_updates=count),
    )


def _due(step: int, freqs: tuple[int, ...]) -> bool:
    return any(step % each == 0 for each in freqs)


def _draw(training: Training, state: TrainState, step: int, run: Running, checkpoints: Checkpoints) -> None:
    if training.draw:
        try:
            training.draw(state, step, run)
        except Stopped:
            checkpoints.wait()
            raise
