"""One case, in a process of its own or in one of several: `python -m experiments.invariance.worker --out=FILE.npz`.

Writes noise, losses, parameters, samples, bits/dim, and the bytes that the training state takes on each device.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.configs.presets import compose, ddpmpp, digits, vp
from score_sde.configs.transformer_presets import dit, uvit

from score_sde.array_types import PyTree
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.likelihood import bits_per_dim
from score_sde.oracles import Gaussian
from score_sde.randomness import sample_keys
from score_sde.runtime import backend, sharding
from score_sde.runtime.backend import expanded
from score_sde.runtime.multihost import together
from score_sde.runtime.preemption import exit_status
from score_sde.sampling.runner import Runner
from score_sde.training.build import Experiment
from score_sde.training.run import train_step
from score_sde.training.state import TrainState

SAMPLES = 16
STEPS, SAVED = 4, 2  # updates, and those made before the checkpoint
NETWORKS = {  # with their sizes
    "ddpmpp": (ddpmpp, dict(nf=8, num_res_blocks=1, ch_mult=(1,), attn_resolutions=(4,))),
    "uvit": (uvit("s", 2), dict(width=16, depth=2, num_heads=2)),
    "dit": (dit("s", 2), dict(width=16, depth=2, num_heads=2)),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (STEPS, SAMPLES, 8, 8, 1)).astype(np.uint8)


def experiment(corrector: str = "langevin", network: str = "ddpmpp") -> Experiment:
    """A small network with all that is random in training: dropout, flips, dequantization."""
    piece, size = NETWORKS[network]
    config = compose(piece, vp, digits)
    config.model.update(**size, dropout=0.3)
    config.optim.warmup = 0
    config.data.update(uniform_dequantization=True, random_flip=True)
    config.sde.num_scales = 30
    config.sampling.corrector = corrector
    return Experiment(config)


def measure(network: str, fsdp: int, batch: int, save: Path | None, restore: Path | None) -> dict[str, np.ndarray]:
    """The case's numbers. batch: samples in a round. save: checkpoint to write at SAVED updates. restore: to load."""
    parts = experiment(network=network)
    state, losses, state_bytes = _train(parts, fsdp, save, restore)
    keys = sample_keys(jax.random.key(1), jnp.arange(SAMPLES))
    noise = np.concatenate([np.asarray(parts.prior(keys[rows])) for rows in _rounds(batch)])
    samples = _rounds_of(Runner(experiment("langevin_per_sample", network).sampler), state.params, keys, noise, batch)
    # The signal-to-noise ratio of this corrector is the batch's, so it is always one round.
    coupled = _rounds_of(Runner(parts.sampler), state.params, keys, noise, SAMPLES)
    # Of a network, rounding may flip a decision of the step control, which moves the result by the solver's tolerance.
    score_fn = Gaussian(np.full(parts.image_shape, 0.3), 0.25).model(parts.sde)
    likelihood = Runner(lambda _: bits_per_dim(parts.sde, score_fn, offset_bits=0))
    bits = _rounds_of(likelihood, state.params, keys[:11], noise[:11], min(batch, 11))  # which no devices divide
    whole = sharding.pmap(lambda params: params, in_axes=(None,), out_axes=None)(state.params)
    return {
        "noise": noise,
        "losses": np.array(losses),
        "parameters": np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(whole)]),
        "samples": samples,
        "coupled": coupled,
        "bits": bits,
        "state_bytes": np.array(state_bytes),
        "devices": np.array([jax.device_count(), jax.process_count()]),
    }


def _train(
    parts: Experiment, fsdp: int, save: Path | None, restore: Path | None
) -> tuple[TrainState, list[float], int]:
    """The state after STEPS updates, the losses of those made here, the bytes of its arguments on each device."""
    sharding.check_groups(fsdp)
    shapes = jax.eval_shape(parts.init_state)
    placement = sharding.fully_sharded(shapes, fsdp)
    step = sharding.pmap(train_step(parts), in_axes=(placement, 0), out_axes=(placement, None), donate_argnums=(0,))
    if restore:
        like = jax.tree.map(lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes, placement)
        with Checkpoints(restore) as saved:
            state = saved.load(SAVED, like)
    else:
        state = backend.program(parts.init_state, out_shardings=placement)()
    (pixels,) = sharding.split(PIXELS[0])
    compiled = step.lower(state, pixels).compile()
    losses = []
    for number in range(SAVED if restore else 0, STEPS):
        state, loss = compiled(state, *sharding.split(PIXELS[number]))
        losses.append(float(loss))
        if save and number + 1 == SAVED:
            with Checkpoints(save, Retention()) as saved:
                saved.save(SAVED, state)
    return state, losses, compiled.memory_analysis().argument_size_in_bytes


def _rounds(batch: int, n: int = SAMPLES) -> list[slice]:
    return [slice(start, min(start + batch, n)) for start in range(0, n, batch)]


def _rounds_of(runner: Runner, params: PyTree, keys: jax.Array, x: np.ndarray, batch: int) -> np.ndarray:
    """The first result of a solver, in rounds of `batch` images."""
    rounds = [runner(params, keys[rows], jnp.asarray(x[rows]))[0] for rows in _rounds(batch, len(x))]
    return np.concatenate([np.asarray(result) for result in rounds])


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.invariance.worker", description=__doc__)
    parser.add_argument("--out", type=expanded, required=True)
    parser.add_argument("--network", choices=NETWORKS, default="ddpmpp")
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--batch", type=int, default=SAMPLES)
    parser.add_argument("--save", type=expanded)
    parser.add_argument("--restore", type=expanded)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    arguments = parser.parse_args(argv[1:])
    with together(arguments.coordinator, arguments.num_processes, arguments.process_id):
        result = measure(arguments.network, arguments.fsdp, arguments.batch, arguments.save, arguments.restore)
        if sharding.is_first():
            np.savez(arguments.out, **result)


if __name__ == "__main__":
    sys.exit(exit_status(main, None))
