"""An experiment whose loss is |x_0 - eps|^2 of what an update sees, which a coupling makes small; no network runs."""

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.configs.flow.digits_ddpmpp_uniform import get_config

from score_sde.data import InMemory, batch_fn
from score_sde.runtime import sharding
from score_sde.training.build import Experiment
from score_sde.training.coupling import coupling_of
from score_sde.training.run import compiled_step

ROWS, BLOCK, CLASSES = 16, 8, 3
DIGITS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
SOURCE = InMemory(DIGITS, np.arange(40) % CLASSES)


def experiment(num_classes: int = 0, **training) -> Experiment:
    """Flips and dequantization move the images that are coupled."""
    config = get_config()
    config.model.update(nf=8, num_res_blocks=1, ch_mult=(1,), num_classes=num_classes)
    config.data.update(random_flip=True, uniform_dequantization=True)
    config.sampling.method = "heun"
    config.training.update({"batch_size": ROWS, "coupling": "optimal", "coupling_block": BLOCK} | training)
    config.data.random_flip = config.training.coupling != "pairs"
    return Experiment(config)


def distance_of(parts: Experiment, x, keys, noise_keys):
    """|x_0 - eps|^2 of each row."""
    x0 = parts.scaling.to_model(x)
    return jnp.sum(jnp.square(x0 - parts.draw(keys, x0, noise_keys)[1]), axis=(1, 2, 3))


def batches(parts: Experiment, source=SOURCE):
    """step -> the batch of that step, on the devices, as `run.train` makes it."""
    numbers = coupling_of(parts).numbers
    return batch_fn(source, ROWS, seed=parts.config.seed, entries=parts.cond_entries, numbers=numbers)


def losses(parts: Experiment, steps: int, source=SOURCE) -> list[float]:
    """The mean |x_0 - eps|^2 of each of these updates."""

    def loss(params, keys, x, cond=None, *, training, noise_keys=None):
        return distance_of(parts, x, keys, noise_keys)

    parts.loss = loss
    parts.param_shapes = {"unused": jax.ShapeDtypeStruct((1,), jnp.float32)}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), parts.state_shapes)
    placement = sharding.fully_sharded(parts.state_shapes, 1)
    update, state, results = compiled_step(parts, placement), sharding.place(zeros, placement), []
    for step in range(steps):
        state, result = update(state, *batches(parts, source)(step))
        results.append(float(result))
    return results
