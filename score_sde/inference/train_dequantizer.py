"""Training of variational dequantization: the score network stays fixed, and its dequantizer is fitted to it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from score_sde import data, images
from score_sde.array_types import Array, Pixels, PyTree
from score_sde.config import Config
from score_sde.ema import Ramp
from score_sde.errors import UsageError
from score_sde.inference.dequantizer import DEQUANTIZER
from score_sde.inference.pretrained import load
from score_sde.io import atomic_files, checkpoints, workdir
from score_sde.io.checkpoints import Retention
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded
from score_sde.runtime.memory import enough_memory
from score_sde.training.build import Dequantizing
from score_sde.training.loop import Training, fit
from score_sde.training.nan_guard import DivergenceError
from score_sde.training.run import load_data
from score_sde.training.state import TrainState, apply_gradients

AVERAGE = (Ramp(0.99),)  # short, since a training has hundreds to thousands of updates
IDENTITY = ("nf", "num_res_blocks", "batch_size", "lr", "num_times")  # may not change when a training goes on


def dequantizer_step(dequantizing: Dequantizing) -> Callable[[TrainState, PyTree, Pixels], tuple[TrainState, Array]]:
    """Update (state, parameters of the score, pixels) -> (state, mean bits/dim or NaN).

    Its randomness depends on seed and step only.
    """
    key = stream(stream(jax.random.key(dequantizing.experiment.config.seed), Stream.DEQUANTIZER), Stream.TRAIN)

    def step(state: TrainState, score_params: PyTree, pixels: Pixels) -> tuple[TrainState, Array]:
        keys = sample_keys(stream(key, state.step), jnp.arange(len(pixels)))

        def mean_loss(params: PyTree) -> Array:
            return dequantizing.loss(params, score_params, keys, images.to_unit(pixels)).mean()

        loss, grads = jax.value_and_grad(mean_loss)(state.params)
        return apply_gradients(state, loss, grads, dequantizing.optimizer, AVERAGE)

    return step


def train_dequantizer(config: Config, directory: str | Path) -> None:
    """Trains until `dequantizer.n_iters` updates are made, from the last checkpoint if there is one.

    The score is that of the workdir's last checkpoint at the start. Writes the folder DEQUANTIZER there. Raises
    `UsageError` before anything is written, and when the bound is no longer finite.
    """
    directory, options = expanded(directory), config.dequantizer
    if config.training.privacy:
        raise UsageError(
            "A variational dequantizer would learn from the training images without privacy; evaluate this run with "
            "eval.dequantization=uniform."
        )
    folder = directory / DEQUANTIZER
    sharding.check_divisible("dequantizer.batch_size", options.batch_size)
    stored = workdir.read(directory, f"{DEQUANTIZER}/config.json")
    start = max(checkpoints.steps(folder / "checkpoints"), default=0)
    _check_score(folder, stored, workdir.checkpoint_steps(directory), finished=start >= options.n_iters)
    model = load(directory, stored.get("score_step"), config)
    dequantizing = Dequantizing(model.experiment, options.to_dict())
    identity = {"score_step": model.step, "score_digest": model.digest, "score_ema": model.ema} | {
        key: options[key] for key in IDENTITY
    }
    _check_same(folder, stored, identity)
    train_set = load_data(config, train=True)

    step = sharding.pmap(
        dequantizer_step(dequantizing), in_axes=(None, None, 0), out_axes=(None, None), donate_argnums=(0,)
    )

    def diverged(problem: DivergenceError) -> UsageError:
        return UsageError(
            f"The dequantizer diverged: its bound or a gradient is not finite at step {problem.step}; remove {folder} "
            "and lower dequantizer.lr."
        )

    with atomic_files.locked(folder, "train"):
        workdir.write(folder, "config.json", identity)
        training = Training(
            "dequantizer",
            init=lambda: sharding.place(dequantizing.init_state()),
            like=sharding.like(dequantizing.state_shapes),
            batch=data.batch_fn(train_set, options.batch_size, seed=config.seed),
            update=lambda state, pixels, _: step(state, model.params, pixels),
            diverged=diverged,
            n_iters=options.n_iters,
            log_freqs=(options.log_freq, options.snapshot_freq),
            save_freqs=(options.snapshot_freq,),
            loss="bits_per_dim_bound",
            shown="bound {:.4f} bits/dim",
        )
        size = options.batch_size
        with enough_memory(f"a training at dequantizer.batch_size={size}", lambda: "lower dequantizer.batch_size"):
            fit(training, folder, Retention(), config=identity)
    print(f"Dequantizer: {folder}; --config.eval.dequantization=variational evaluates with it.")


def _check_score(folder: Path, stored: dict, available: list[int], *, finished: bool) -> None:
    """Raises `UsageError` if the score to which the folder's dequantizer is fitted is gone, or no longer the last."""
    fitted, last = stored.get("score_step", available[-1]), available[-1]
    if fitted not in available or (finished and fitted != last):
        raise UsageError(
            f"The dequantizer in {folder} is fitted to the score of step {fitted}, and the last checkpoint is of step "
            f"{last}; remove that folder to fit one to that checkpoint."
        )


def _check_same(folder: Path, stored: dict, identity: dict) -> None:
    """Raises `UsageError` if another dequantizer has been trained in the folder."""
    for key in stored:
        if stored[key] != identity.get(key):
            raise UsageError(
                f"{folder} was trained with dequantizer.{key}={stored[key]}, not {identity.get(key)}; give the "
                "value it was trained with, or remove that folder to train another."
            )
