"""Training of variational dequantisation: the score network stays as it is, its dequantizer is fitted to it."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from score_sde import checkpoints, data, files, images, parallel, workdir
from score_sde.array_types import Array, Pixels, PyTree
from score_sde.build import Dequantizing
from score_sde.checkpoints import Retention
from score_sde.config import Config
from score_sde.divergence import DivergenceError, Losses
from score_sde.ema import Ramp
from score_sde.errors import UsageError
from score_sde.preemption import Notice, Stopped
from score_sde.pretrained import DEQUANTIZER, load
from score_sde.progress import bar
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.state import TrainState, apply_gradients
from score_sde.train import load_data
from score_sde.writer import Writer

AVERAGE = (Ramp(0.99),)  # of hundreds to thousands of updates
IDENTITY = ("nf", "num_res_blocks", "batch_size", "lr", "num_times")  # may not change when a training goes on


def dequantizer_step(dequantizing: Dequantizing) -> Callable[[TrainState, PyTree, Pixels], tuple[TrainState, Array]]:
    """(state, parameters of the score, pixels) -> (state, mean bits/dim or NaN); random by seed and step only."""
    key = stream(stream(jax.random.key(dequantizing.experiment.config.seed), Stream.DEQUANTIZER), Stream.TRAIN)

    def step(state: TrainState, score_params: PyTree, pixels: Pixels) -> tuple[TrainState, Array]:
        keys = sample_keys(stream(key, state.step), jnp.arange(len(pixels)))

        def mean_loss(params: PyTree) -> Array:
            return dequantizing.loss(params, score_params, keys, images.to_unit(pixels)).mean()

        loss, grads = jax.value_and_grad(mean_loss)(state.params)
        return apply_gradients(state, loss, grads, dequantizing.optimizer, AVERAGE)

    return step


def train_dequantizer(config: Config, directory: str | Path) -> None:
    """Trains until `dequantizer.n_iters` updates are made, going on from the last checkpoint if there is one.

    The score is that of the workdir's last checkpoint when this began. Writes DEQUANTIZER under the workdir. Raises
    `UsageError` before anything is written, and when the bound is no longer finite.
    """
    directory, options = Path(directory), config.dequantizer
    folder = directory / DEQUANTIZER
    parallel.check_divisible("dequantizer.batch_size", options.batch_size)
    stored = workdir.read(folder, "config.json")
    start = max(checkpoints.steps(folder / "checkpoints"), default=0)
    _check_score(folder, stored, workdir.checkpoint_steps(directory), finished=start >= options.n_iters)
    model = load(directory, stored.get("score_step"), config)
    dequantizing = Dequantizing(model.experiment, options.to_dict())
    wanted = {"score_step": model.step, "score_digest": model.digest, "score_ema": model.ema} | {
        key: options[key] for key in IDENTITY
    }
    _check_same(folder, stored, wanted)
    train_set = load_data(config, train=True)

    step = parallel.pmap(
        dequantizer_step(dequantizing), in_axes=(None, None, 0), out_axes=(None, None), donate_argnums=(0,)
    )
    with files.locked(folder, "train"), checkpoints.Checkpoints(folder / "checkpoints", Retention()) as saved:
        workdir.write(folder, "config.json", wanted)
        fresh = dequantizing.init_state()
        state = parallel.place(saved.load_last(checkpoints.on_host(fresh)) or fresh)
        start = int(state.step)
        batches = data.prefetched(train_set, options.batch_size, seed=config.seed, steps=range(start, options.n_iters))
        largest = parallel.Largest()
        losses = Losses(skip=False, skipped=0, tell=lambda *_: None)
        writer = Writer(folder, start, {"mode": "disabled"}, wanted)
        with (
            Notice() as notice,
            writer,
            bar("dequantizer", options.n_iters, "step", initial=start) as progress,
            batches as stream_of_batches,
        ):
            for done, pixels, _ in stream_of_batches:
                number = done + 1
                state, bound = step(state, model.params, pixels)
                progress.update()
                snapshot = number % options.snapshot_freq == 0 or number == options.n_iters
                try:
                    losses.add(number, bound)
                    if number % options.log_freq == 0 or snapshot:
                        writer.scalars(number, bits_per_dim_bound=losses.last())
                        progress.set_postfix_str(f"bound {losses.last():.4f} bits/dim", refresh=False)
                    stop = largest(notice.number)
                    if snapshot or stop:
                        losses.last()
                        writer.sync()
                        saved.save(number, state)
                except DivergenceError as diverged:
                    saved.wait()
                    raise UsageError(
                        f"The dequantizer diverged: its bound or a gradient is not finite at step {diverged.step}; "
                        f"remove {folder} and lower dequantizer.lr."
                    ) from None
                if stop:
                    there = "which is saved" if saved.wait() else "which is NOT saved"
                    raise Stopped(stop, f" after step {number}, {there}; the same command goes on from there")
        if not saved.wait():
            raise UsageError(f"The dequantizer is not saved; free space in {folder} and start this again.")
    print(f"Dequantizer: {folder}; --config.eval.dequantization=variational evaluates with it.")


def _check_score(folder: Path, stored: dict, available: list[int], *, finished: bool) -> None:
    """Raises `UsageError` if the score that the folder's dequantizer is fitted to is gone, or no longer the last."""
    fitted, last = stored.get("score_step", available[-1]), available[-1]
    if fitted not in available or (finished and fitted != last):
        raise UsageError(
            f"The dequantizer in {folder} is fitted to the score of step {fitted}, and the last checkpoint is of step "
            f"{last}; remove that folder to fit one to it."
        )


def _check_same(folder: Path, stored: dict, wanted: dict) -> None:
    """Raises `UsageError` if another dequantizer has been trained in the folder."""
    for key in stored:
        if stored[key] != wanted.get(key):
            raise UsageError(
                f"{folder} was trained with dequantizer.{key}={stored[key]}, not {wanted.get(key)}; give the value it "
                "was trained with, or remove that folder to train another."
            )
