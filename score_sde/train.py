"""Training: one loop from the last checkpoint, or from the start, to config.training.n_iters updates."""

import math
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from score_sde import data, images, parallel, workdir
from score_sde.array_types import Array, Pixels, PyTree
from score_sde.build import Experiment
from score_sde.checkpoints import Checkpoints, steps
from score_sde.errors import UsageError
from score_sde.progress import Runner, bar, reporter
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.state import TrainState, apply_gradients
from score_sde.writer import Writer


def train_step(experiment: Experiment) -> Callable[[TrainState, Pixels], tuple[TrainState, Array]]:
    """(state, pixels) -> (state, mean loss): a function of the seed, the state's step and the batch only."""
    config = experiment.config

    def step(state: TrainState, pixels: Pixels) -> tuple[TrainState, Array]:
        key = stream(stream(jax.random.key(config.seed), Stream.TRAIN), state.step)
        keys = sample_keys(stream(key, Stream.SAMPLE), jnp.arange(len(pixels)))
        x = experiment.augment(keys, images.to_unit(pixels))

        def mean_loss(params: PyTree) -> Array:
            return experiment.loss(params, keys, x, dropout_key=stream(key, Stream.DROPOUT)).mean()

        loss, grads = jax.value_and_grad(mean_loss)(state.params)
        return apply_gradients(state, grads, experiment.optimizer, config.optim.ema_rate), loss

    return step


def train(config: ConfigDict, directory: str | Path, overrides: Mapping[str, Any] | None = None) -> None:
    """Trains until `n_iters` updates are made, going on from the last checkpoint if there is one.

    overrides: what was changed on the command line, kept in launch.json so that `eval` and `sample` need not repeat it.
    Raises `UsageError` before anything is written, and when the loss is no longer finite.
    """
    directory = Path(directory)
    training = config.training
    experiment = Experiment(config)
    parallel.check_divisible("training.batch_size", training.batch_size)
    parallel.check_groups(training.fsdp)
    workdir.check_same_run(directory, config.to_dict())
    train_set, eval_set = load_data(config, train=True), load_data(config, train=False)

    workdir.write(directory, "config.json", config.to_dict())
    earlier = workdir.read(directory, "launch.json")
    run_id = earlier.get("run_id", secrets.token_hex(4))
    launch = {"run_id": run_id, "overrides": dict(overrides or {}), "versions": workdir.versions()}
    imported = earlier.get("imported")
    workdir.write(directory, "launch.json", launch | ({"imported": imported} if imported else {}))
    shapes = jax.eval_shape(experiment.init_state)
    placement = parallel.fully_sharded(shapes, training.fsdp)
    update = parallel.pmap(
        train_step(experiment), in_axes=(placement, 0), out_axes=(placement, None), donate_argnums=(0,)
    )
    evaluate = parallel.pmap(experiment.eval_losses, in_axes=(None, 0, None, 0), out_axes=None)
    total = jax.jit(lambda params: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)))
    sample = Runner(experiment.sampler)
    checkpoint_steps = steps(directory / "checkpoints")

    keep = [imported["step"]] if imported else []
    with Checkpoints(directory / "checkpoints", keep_every=training.snapshot_freq, keep=keep) as checkpoints:
        if checkpoint_steps:
            like = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, placement)
            state = checkpoints.load(checkpoint_steps[-1], like)
        else:
            state = jax.jit(experiment.init_state, out_shardings=placement)()
        start = int(state.step)
        logged = Writer(directory, start, config.wandb.to_dict() | {"id": run_id}, config.to_dict())
        with logged as writer, bar("training", training.n_iters, "step", initial=start) as progress:
            for number, batch in data.batches(train_set, training.batch_size, seed=config.seed, start_step=start):
                if number >= training.n_iters:
                    break
                state, loss = update(state, *parallel.split(batch.images))
                step = number + 1  # updates made
                progress.update()

                if step % training.log_freq == 0 or step == training.n_iters:
                    loss = _finite(float(loss), step, directory)
                    writer.scalars(step, training_loss=loss)
                    progress.set_postfix_str(f"loss {loss:.4g}", refresh=False)

                if step % training.eval_freq == 0:
                    indices = data.batch_indices(len(eval_set), training.batch_size, seed=config.seed, step=step)
                    held_out = parallel.split(data.take(eval_set, indices).images, np.arange(len(indices)))
                    losses = evaluate(state.ema_params, held_out[0], step, held_out[1])
                    writer.scalars(step, eval_loss=_finite(float(losses.mean()), step, directory))

                snapshot = step % training.snapshot_freq == 0
                if snapshot or step % training.snapshot_freq_for_preemption == 0 or step == training.n_iters:
                    _finite(float(total(state.params)), step, directory)  # never save what cannot be gone on from
                    checkpoints.save(step, state)

                if snapshot and training.snapshot_sampling:
                    sheet = _sample_sheet(experiment, sample, state, step, directory)
                    writer.image(step, "samples", sheet)


def load_data(config: ConfigDict, *, train: bool) -> data.Source:
    options = config.data
    return data.load(
        options.dataset,
        train=train,
        image_size=options.image_size,
        num_channels=options.num_channels,
        data_dir=options.data_dir,
    )


def _sample_sheet(experiment: Experiment, sample: Runner, state: TrainState, step: int, directory: Path) -> np.ndarray:
    """One batch of samples with the EMA parameters, written to samples/snapshots/ as .npz and .png."""
    key = stream(stream(jax.random.key(experiment.config.seed), Stream.SAMPLE), step)
    keys = sample_keys(key, jnp.arange(experiment.config.training.batch_size))
    with bar(f"samples at step {step}", len(keys), "img") as progress:
        x, _ = sample(state.ema_params, keys, experiment.prior(keys), reporter(progress, len(keys)))
    pixels = images.to_pixels(experiment.scaling.to_unit(x))
    folder = directory / "samples" / "snapshots"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"step_{step:08d}.npz", images=pixels)
    sheet = images.grid(pixels)
    images.write_png(folder / f"step_{step:08d}.png", sheet)
    return sheet


def _finite(value: float, step: int, directory: Path) -> float:
    """`value`, a loss or the sum of all parameters. Raises `UsageError` if it is not finite."""
    if math.isfinite(value):
        return value
    saved = steps(directory / "checkpoints")
    advice = f"the last good checkpoint is of step {saved[-1]}" if saved else "there is no checkpoint yet"
    raise UsageError(
        f"Training diverged: a loss or a parameter is {value} at step {step}; {advice}. "
        "Train with a lower optim.lr, or with optim.grad_clip set, in another --workdir."
    )
