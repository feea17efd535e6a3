"""A tiny transformer over pixels, for the tests here and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.autoregressive.config import get_config
from score_sde.experiments.autoregressive.density import Density
from score_sde.experiments.autoregressive.model import Autoregressive
from score_sde.experiments.autoregressive.training import update_of

from score_sde.array_types import PyTree
from score_sde.runtime import sharding

ROWS = 16


def config(side: int = 2, channels: int = 1, levels: int = 4, **values):
    """The digits' config of a transformer over tiny images. values: of the section `model`."""
    made = get_config()
    made.data.update(image_size=side, num_channels=channels)
    made.model.update(dict(width=8, depth=1, num_heads=2, levels=levels, dropout=0.0) | values)
    made.training.batch_size = ROWS
    made.optim.warmup = 0
    return made


def moved(params: PyTree, size: float = 0.3) -> PyTree:
    """Parameters away from where they begin, which is a uniform distribution."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [size * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, jax.tree.map(jnp.add, leaves, noise))


def model(side: int = 2, channels: int = 1, levels: int = 4, **values) -> Autoregressive:
    """A transformer with random parameters."""
    density = Density(config(side, channels, levels, **values))
    return Autoregressive(density, sharding.place(jax.jit(lambda: moved(density.init_params()))()))


def images(n: int, side: int = 2, channels: int = 1, levels: int = 4) -> np.ndarray:
    """Random images, uint8 (n, side, side, channels)."""
    return np.random.default_rng(0).integers(0, levels, (n, side, side, channels)).astype(np.uint8)


def on_these_devices() -> dict:
    """Losses of three updates, bits/dim of images, and samples, on all devices of the process."""
    of = model(4, dropout=0.1)
    density, pixels, losses = of.density, images(ROWS, 4), []
    update = sharding.pmap(update_of(density), in_axes=(None, 0), out_axes=(None, None))
    state = sharding.place(jax.jit(density.init_state)())
    for _ in range(3):
        state, loss = update(state, *sharding.split(pixels))
        losses.append(float(loss))
    samples = of.sample(jax.random.key(0), 11)
    return {"losses": losses, "bits": of.bits_per_dim(pixels[:5]).tolist(), "samples": samples.tolist()}
