"""Classifiers of several seeds, trained side by side for equal updates on real images, generated ones, or both.

Each place of a batch has two numbers u, v, uniform in [0, 1), which are a function of (seed, update, place). It holds a
generated image where v is below the share of generated images, and a real one elsewhere; u is the place of the image in
its pool. If the generated images are the real ones, each of them k times in a row, then u leads to the same image in
either pool, so that a generator that only copies changes no bit of the result.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from score_sde.experiments.augmentation.config import Transform
from score_sde.experiments.augmentation.splits import Pool

from score_sde import images
from score_sde.array_types import Array, Float, Integer, Keys, Pixels, PyTree
from score_sde.randomness import Stream, sample_keys, stream, uniform
from score_sde.runtime.progress import bar

AT_ONCE = 500  # images that are classified together
SMALLEST = 4  # height or width from which on images are not halved


class Options(NamedTuple):
    """Options of the training, which all rows share. width: channels of the first convolution; 0 for a linear rule."""

    updates: int = 600
    batch_size: int = 64
    width: int = 16
    lr: float = 2e-3


class Classifier(nn.Module):
    """Convolutions of 3x3 pixels and halvings until a side is at most 4 pixels, then two dense layers.

    A convolution is a dense layer over shifted copies: the same numbers, and much faster on CPUs for several seeds.
    """

    width: int
    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Logits of the classes. x: in [-1, 1]."""
        if self.width:
            x = nn.relu(nn.Dense(self.width)(_neighbourhoods(x)))
            channels = self.width
            while min(x.shape[1:3]) > SMALLEST:
                channels *= 2
                x = nn.relu(nn.Dense(channels)(_neighbourhoods(_halved(x))))
            x = nn.relu(nn.Dense(4 * self.width)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def _neighbourhoods(x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
    """The 3x3 pixels around each pixel, zero outside, as channels."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=-1)


def _halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The means of 2x2 pixels; a last odd row or column is left out."""
    b, height, width, c = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(b, height // 2, 2, width // 2, 2, c).mean(axis=(2, 4))


def transformed(keys: Keys, x: Float[Array, "b h w c"], most: Transform) -> Float[Array, "b h w c"]:
    """Images under a random shift, rotation, scale and flip each, read bilinearly, and at the nearest pixel outside."""
    height, width = x.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2

    def one(u: Float[Array, "5"], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        down, right, turn, grow, side = 2 * u - 1
        angle, size = jnp.deg2rad(most.degrees) * turn, jnp.exp(-most.scale * grow)
        mirror = jnp.where(side < 0, -1.0, 1.0) if most.flip else 1.0
        x, y = mirror * columns, rows
        at_row = size * (jnp.cos(angle) * y - jnp.sin(angle) * x) + most.shift * height * down
        at_column = size * (jnp.sin(angle) * y + jnp.cos(angle) * x) + most.shift * width * right
        places = [at_row + (height - 1) / 2, at_column + (width - 1) / 2]
        read = jax.vmap(lambda channel: map_coordinates(channel, places, order=1, mode="nearest"), -1, -1)
        return read(image)

    return jax.vmap(one)(uniform(keys, (5,)), x)


def batch(
    seed: int, step: int, size: int, real: Pool, generated: Pool | None = None, share: float = 0.0
) -> tuple[Pixels, Integer[np.ndarray, " b"]]:
    """Images and labels of an update. generated: None where the share of generated images is 0."""
    u, v = np.random.default_rng([seed, step]).random((2, size))
    pixels = np.empty((size, *real.images.shape[1:]), np.uint8)
    labels = np.empty(size, np.int32)
    for pool, chosen in ((real, v >= share), (generated, v < share)):
        if pool is not None:
            drawn = pool.take((u[chosen] * len(pool.labels)).astype(int))
            pixels[chosen], labels[chosen] = drawn
    return pixels, labels


def train(
    options: Options,
    num_classes: int,
    real: Sequence[Pool],
    generated: Sequence[Pool] | None = None,
    share: float = 0.0,
    most: Transform | None = None,
    title: str = "classifiers",
) -> PyTree:
    """Parameters of a classifier for each seed 0, 1, ..., stacked along the first axis.

    real, generated: the pools of each seed. share: of generated images, in [0, 1]. most: of classical augmentation,
    which is of all images; None for none.
    """
    keys = jax.vmap(jax.random.key)(np.arange(len(real)))
    params, state = _initial(options, num_classes, real[0].images.shape[1:])(keys)
    step_of = _update(options, num_classes, most)
    pools = list(zip(range(len(real)), real, generated or [None] * len(real), strict=True))
    with bar(title, options.updates, "update") as progress:
        for step in range(options.updates):
            batches = [batch(seed, step, options.batch_size, *pool, share) for seed, *pool in pools]
            pixels, labels = map(np.stack, zip(*batches, strict=True))
            params, state = step_of(params, state, keys, step, pixels, labels)
            progress.update(1)
    return jax.tree.map(np.asarray, params)


def _optimizer(options: Options) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(options.lr, options.updates))


@functools.cache
def _initial(options: Options, num_classes: int, image: tuple[int, ...]):
    """The parameters and the state of the optimizer of each key, compiled once for all rows."""
    net, optimizer = Classifier(options.width, num_classes), _optimizer(options)

    def init(key: Array) -> tuple[PyTree, PyTree]:
        params = net.init(stream(key, Stream.INIT), jnp.zeros((1, *image)))["params"]
        return params, optimizer.init(params)

    return jax.jit(jax.vmap(init))


@functools.cache
def _update(options: Options, num_classes: int, most: Transform | None):
    """The update of all seeds, compiled once for all rows with these options."""
    net, optimizer = Classifier(options.width, num_classes), _optimizer(options)

    def update(params: PyTree, state: PyTree, key: Array, step: Array, pixels: Array, labels: Array):
        x = 2 * images.to_unit(pixels) - 1
        if most is not None:
            of_step = jax.random.fold_in(stream(key, Stream.AUGMENT), step)
            x = transformed(sample_keys(of_step, jnp.arange(len(x))), x, most)

        def loss(params: PyTree) -> Array:
            logits = net.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    return jax.jit(jax.vmap(update, (0, 0, 0, None, 0, 0)), donate_argnums=(0, 1))


def predictions(options: Options, num_classes: int, params: PyTree, pixels: Pixels) -> Integer[np.ndarray, "seeds n"]:
    """The class that each seed's classifier sees in each image, which is not transformed."""
    classify = _classify(options.width, num_classes)
    padded = np.concatenate([pixels, np.repeat(pixels[-1:], -len(pixels) % AT_ONCE, axis=0)])
    parts = [classify(params, padded[i : i + AT_ONCE]) for i in range(0, len(padded), AT_ONCE)]
    return np.concatenate(parts, axis=1)[:, : len(pixels)]


@functools.cache
def _classify(width: int, num_classes: int):
    net = Classifier(width, num_classes)

    def classes(params: PyTree, pixels: Array) -> Array:
        return net.apply({"params": params}, 2 * images.to_unit(pixels) - 1).argmax(axis=-1)

    return jax.jit(jax.vmap(classes, (0, None)))
