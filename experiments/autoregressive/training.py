"""Training of a transformer over pixels in a workdir, through the package's training loop."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.autoregressive.density import Density, check_levels

from score_sde import data, ema, images
from score_sde.array_types import Array, Keys, Pixels, PyTree
from score_sde.cond import Cond
from score_sde.config import AnyConfig
from score_sde.errors import UsageError
from score_sde.io import atomic_files, workdir
from score_sde.io.checkpoints import Retention
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded, program
from score_sde.runtime.memory import enough_memory
from score_sde.training import launch
from score_sde.training.coupling import update_key
from score_sde.training.loop import Training, fit
from score_sde.training.nan_guard import DivergenceError
from score_sde.training.run import accumulated, load_data
from score_sde.training.state import NAN_GRADIENTS, TrainState, apply_gradients

CHUNK = 1000  # images whose bytes are checked at a time


def train(config: AnyConfig, directory: str | Path, overrides: Mapping[str, Any] | None = None) -> None:
    """Trains until `training.n_iters` updates are made, from the last checkpoint if there is one.

    overrides: values changed on the command line, kept in launch.json. Raises `UsageError` before anything is written,
    for a workdir of another config or other data too, and where the loss is no longer finite; `Stopped` after a signal,
    with a last checkpoint.
    """
    directory, density, options = expanded(directory), Density(config), config.training
    sharding.check_divisible("training.batch_size", options.batch_size, options.accumulate)
    sharding.check_groups(options.fsdp)
    ema.chosen(density.profiles, config.sampling.ema)
    workdir.check_same_run(directory, config.to_dict())
    atomic_files.check_writable(directory)
    sources = {name: load_data(config, train=name == "training") for name in ("training", "evaluation")}
    for source in sources.values():
        _check_data(density, source)
    described = {name: {"images": len(each), each.digested: each.digest()} for name, each in sources.items()}
    placement = sharding.fully_sharded(density.state_shapes, options.fsdp)
    init = program(density.init_state, out_shardings=placement)
    with atomic_files.locked(directory, "train"):
        workdir.check_same_run(directory, config.to_dict())
        workdir.check_same_data(directory, config.data.path, described)
        mirrored = config.wandb.mode != "disabled"
        of_data = {name: getattr(sources["training"], name) for name in ("class_names", "licence")}
        record = launch.record(directory, overrides or {}, described, {}, {}, **of_data, mirrored=mirrored)
        workdir.write(directory, launch.NAME, record)
        workdir.write(directory, "config.json", config.to_dict())
        with enough_memory(f"a training at training.batch_size={options.batch_size}", _advice):
            fit(
                _training(density, directory, *sources.values(), init, placement),
                directory,
                Retention(options.keep_last, options.snapshot_freq, options.keep_best),
                wandb=config.wandb.to_dict() | {"id": record["run_id"]},
                config=config.to_dict(),
                profile=config.profile,
            )


def update_of(density: Density) -> Callable[..., tuple[TrainState, Array]]:
    """The update (state, pixels, cond) -> (state, mean bits/dim or NaN); its randomness depends on seed and step."""
    config = density.config

    def mean_loss(params: PyTree, keys: Keys, pixels: Pixels, cond: Cond | None) -> Array:
        if config.data.random_flip:
            flipped = images.random_flip(stream(keys, Stream.FLIP), pixels.astype(jnp.float32))
            pixels = flipped.astype(jnp.uint8)
        return density.bits_per_dim(params, pixels, labels_of(cond), stream(keys, Stream.DROPOUT)).mean()

    def update(state: TrainState, pixels: Pixels, cond: Cond | None = None) -> tuple[TrainState, Array]:
        keys = sample_keys(update_key(config.seed, state.step), jnp.arange(len(pixels)))
        in_parts = accumulated(jax.value_and_grad(mean_loss), config.training.accumulate)
        loss, grads = in_parts(state.params, keys, pixels, cond)
        grads = NAN_GRADIENTS[config.optim.nan_gradients](grads)
        return apply_gradients(state, loss, grads, density.optimizer, density.profiles)

    return update


def labels_of(cond: Cond | None) -> Array | None:
    """The labels of a condition, None without any."""
    return None if cond is None else cond["labels"]


def _training(
    density: Density,
    directory: Path,
    train_set: data.Source,
    eval_set: data.Source,
    init: Callable[[], TrainState],
    placement: PyTree,
) -> Training:
    """The description of the training, for `fit`."""
    config, options, entries = density.config, density.config.training, density.cond_entries
    profile = ema.chosen(density.profiles, config.sampling.ema)
    bits = sharding.pmap(density.bits_per_dim, in_axes=(None, 0, 0), out_axes=None)

    def evaluate(state: TrainState, step: int) -> float:
        """The mean bits/dim of one batch of images that are not trained on, by the averaged weights."""
        indices = data.batch_indices(len(eval_set), options.batch_size, seed=config.seed, step=step)
        pixels, cond = data.on_devices(eval_set, indices, entries)
        averaged = ema.average(density.profiles, state.ema_params, profile)
        return float(bits(averaged, pixels, labels_of(cond)).mean())

    def diverged(problem: DivergenceError) -> UsageError:
        return UsageError(
            f"Training diverged: the loss, a gradient or a parameter is not finite at step {problem.step}; train with "
            f"a lower optim.lr in another --workdir than {directory}."
        )

    return Training(
        "training",
        init=init,
        like=sharding.like(density.state_shapes, placement),
        batch=data.batch_fn(train_set, options.batch_size, seed=config.seed, entries=entries),
        update=sharding.pmap(
            update_of(density), in_axes=(placement, 0, 0), out_axes=(placement, None), donate_argnums=(0,)
        ),
        diverged=diverged,
        n_iters=options.n_iters,
        log_freqs=(options.log_freq,),
        save_freqs=(options.snapshot_freq, options.snapshot_freq_for_preemption),
        eval_freqs=(options.eval_freq,),
        shown="{:.4f} bits/dim",
        skip=options.nonfinite == "skip",
        evaluate=evaluate,
    )


def _advice() -> str:
    on_accelerators = ", compute it in parts by training.accumulate, or set training.remat=True"
    return "lower training.batch_size" + (on_accelerators if jax.default_backend() != "cpu" else "")


def _check_data(density: Density, source: data.Source) -> None:
    """Raises `UsageError` for images of other classes than the network's, or with bytes that it has no levels for."""
    if density.num_classes and density.num_classes != source.num_classes:
        raise UsageError(
            f"{density.config.data.dataset} has {source.num_classes} classes; set "
            f"model.num_classes={source.num_classes} instead of {density.num_classes}."
        )
    if density.network.levels < 256:
        for first in range(0, len(source), CHUNK):
            check_levels(density, source.take(np.arange(first, min(first + CHUNK, len(source)))).images)
