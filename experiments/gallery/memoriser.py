"""A noisy picture as a perfect memoriser and a fitted Gaussian denoise it, by noise level."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.gallery.card import Card, Row

from score_sde import images
from score_sde.array_types import Pixels
from score_sde.oracles import Empirical, Gaussian
from score_sde.randomness import batch_keys, normal
from score_sde.sde import EDM

SEED, TRAINED = 3, 100  # of the digits and the noise; training images
LEVELS = (0.1, 0.3, 0.7, 1.2, 2.0, 5.0)  # of noise, for images in [-1, 1]
VARIANCE = 1e-3  # added to the Gaussian's: pixels at the corners never vary


def digits() -> tuple[Pixels, Pixels]:
    """The training images, and one that is held out."""
    from sklearn.datasets import load_digits

    pixels = np.round(load_digits().images * 255 / 16).astype(np.uint8)[..., None]
    chosen = np.random.default_rng(SEED).permutation(len(pixels))[: TRAINED + 1]
    return pixels[chosen[:-1]], pixels[chosen[-1:]]


def memoriser(train: Pixels, held_out: Pixels, levels: Sequence[float] = LEVELS, magnify: int = 10) -> Card:
    """The first training image and the held-out one: with noise of each level, and what both denoisers make of it."""
    process, n = EDM(), len(levels)
    x_train, x_held_out = (np.asarray(images.CENTERED.to_model(images.to_unit(each))) for each in (train, held_out))
    rows = x_train.reshape(len(train), -1)
    covariance = np.cov(rows, rowvar=False) + VARIANCE * np.eye(rows.shape[1])
    fitted = Gaussian(rows.mean(axis=0).reshape(x_train.shape[1:]), covariance)
    x0 = np.repeat(np.concatenate([x_train[:1], x_held_out]), n, axis=0)
    noise = np.repeat(normal(batch_keys(jax.random.key(SEED), 2), x0.shape[1:]), n, axis=0)
    t = jnp.tile(jnp.asarray(process.time(np.array(levels)), jnp.float32), 2)
    x = jnp.asarray(x0) + process.sigma(t).reshape(-1, 1, 1, 1) * noise
    seen = {
        "noisy": x,
        "memoriser": Empirical(x_train).posterior_mean(process, x, t),
        "Gaussian": fitted.posterior_mean(process, x, t),
    }
    headings = {i: f"{level:g}" for i, level in enumerate(2 * list(levels))}
    return Card([Row(_pixels(x), name) for name, x in seen.items()], headings, magnify, label_width=150, spaces=[n])


def _pixels(x: jax.Array) -> list[Pixels]:
    return list(images.to_pixels(images.CENTERED.to_unit(np.asarray(x)) + 0.5 / 255))  # rounded to the nearest
