"""Sheets of samples in training: at every kept checkpoint, one batch of samples is drawn and written as a picture.

Samples of a network that takes text are of captions of the evaluation split.
"""

import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import data, images
from score_sde.array_types import PyTree
from score_sde.cond import Cond, restricted, takes_text
from score_sde.errors import UsageError, warn
from score_sde.io import atomic_files
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.preemption import Stopped
from score_sde.runtime.progress import bar, reporter
from score_sde.sampling.runner import Runner
from score_sde.training.build import Experiment
from score_sde.training.loop import Running


def path_of(directory: Path, step: int) -> Path:
    """The picture of the sheet at a step."""
    return directory / "samples" / "snapshots" / f"step_{step:08d}.png"


def cond_of(experiment: Experiment, source: data.Source, n: int) -> Cond | None:
    """Condition of a snapshot's sheet: that of the source's images for a network that takes their captions.

    Otherwise None if the network has learned to sample without one, classes in turn, or that of the source's images.
    """
    cond, numbers = experiment.cond_in_turn(n), np.arange(n) % len(source)
    if captions_of(experiment, source, 1) is not None:
        numbers = data.scattered(len(source), np.arange(n))
    elif cond is None or list(cond) == ["labels"]:
        return cond
    return restricted(source.take(numbers).cond, experiment.cond_entries)


def captions_of(experiment: Experiment, source: data.Source, n: int) -> list[str] | None:
    """The captions of a snapshot's sheet; None for a network or a source without text."""
    numbers = data.scattered(len(source), np.arange(n))
    return source.captions(numbers) if takes_text(experiment.cond_entries) else None


def sampler(experiment: Experiment) -> Runner:
    """The programs that draw sheets, functions of parameters and a condition."""
    return Runner(lambda params, cond: experiment.sampler(params, cond=cond))


def draw(
    experiment: Experiment,
    sample: Runner,
    source: data.Source,
    params: PyTree,
    step: int,
    directory: Path,
    run: Running,
) -> None:
    """Draws one batch of samples with these parameters, and writes it to samples/snapshots/ as .npz and .png."""
    key = stream(stream(jax.random.key(experiment.config.seed), Stream.SAMPLE), step)
    keys = sample_keys(key, jnp.arange(experiment.config.training.batch_size))
    with bar(f"samples at step {step}", len(keys), "img") as progress:
        report = reporter(progress, len(keys))

        def tell(fraction: float) -> None:
            if not sharding.all_agree(not run.notice.number):
                raise Stopped(run.notice.number or signal.SIGTERM)
            report(fraction)

        conditions = (cond_of(experiment, source, len(keys)),)
        x, _ = sample(params, keys, experiment.prior(keys), tell, conditions=conditions)
    pixels = images.to_pixels(experiment.scaling.to_unit(x))
    names = source.class_names if list(conditions[0] or ()) == ["labels"] else None
    sheet = images.in_turn(pixels, names, max(1, 64 // pixels.shape[2])) if names else images.grid(pixels)
    if captions := captions_of(experiment, source, len(keys)):
        sheet = images.captioned(pixels, captions)
    path = path_of(directory, step)
    try:
        atomic_files.replace(path.with_suffix(".npz"), lambda file: np.savez(file, images=pixels))
        atomic_files.replace(path, lambda file: images.write_png(file, sheet))
    except UsageError as error:
        warn(f"{error} Training goes on.")
    run.writer.image(step, "samples", sheet)
