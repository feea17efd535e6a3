r"""The update of a private training: per-example gradients, clipped, added, and hidden in Gaussian noise.

    g  =  (sum_i clip_C(grad_i) + noise_multiplier C z) / B,     clip_C(v) = v min(1, C / |v|),                 (1)

where i runs over the images of a Poisson batch of expected size B, and z is standard normal (Abadi et al., 2016). The
loss of an image is the mean over `privacy.times` draws of augmentation, noise level and noise, of which only the mean
gradient is clipped (Dockhorn et al., 2023, "Differentially private diffusion models"). All the rest of an update
is a function of g and of earlier parameters: Adam, averages of weights, and forced normalisation cost nothing.

The keys of an image's draws depend on (seed, step, index of the image), not on its place in the batch: with another
image more, the gradients of the others stay the same, and the sum moves by no more than C. A gradient that is not
finite counts as 0. The loss of the batch is nowhere returned, because it is not private; the norm of g is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_sde import images
from score_sde.array_types import Array, Int, Key, PyTree, UInt32
from score_sde.cond import Cond
from score_sde.config import Config
from score_sde.randomness import sample_keys, stream
from score_sde.training.build import Classification, Experiment
from score_sde.training.coupling import update_key
from score_sde.training.state import TrainState, apply_gradients, global_norm

IMPL = "threefry2x32"  # of the noise's keys, whose two words are given
Words = UInt32[Array, " 2"]


def example_gradient(experiment: Experiment | Classification) -> Callable[..., PyTree]:
    """The function (params, key, pixels, cond) -> gradient of one image's loss, by its mean over `privacy.times`.

    pixels: (h, w, c); cond: the image's entries, without a batch axis.
    """
    times = experiment.config.privacy.times

    def loss(params: PyTree, key: Key[Array, ""], pixels: Array, cond: Cond | None) -> Array:
        keys = sample_keys(key, jnp.arange(times, dtype=jnp.uint32)) if times > 1 else key[None]
        x, cond = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (times, *leaf.shape)), (pixels, cond))
        x = experiment.augment(keys, images.to_unit(x))
        return experiment.loss(params, keys, x, cond, training=True, **experiment.augment_labels(keys)).mean()

    return jax.grad(loss)


def clipped_sum(gradient: Callable[..., PyTree], clip: float) -> Callable[..., PyTree]:
    """The sum of clipped gradients as a function (params, present, *rows), of rows that are present.

    gradient: (params, *row) -> gradient; rows: arrays with an axis for the images first. present: booleans (n,).
    """

    def clipped(params: PyTree, is_there: Array, *row: Any) -> PyTree:
        grads = gradient(params, *row)
        norm = global_norm(grads)
        factor = jnp.where(norm > clip, clip / norm, 1.0)
        counts = is_there & jnp.isfinite(norm)
        return jax.tree.map(lambda leaf: jnp.where(counts, factor * leaf, 0.0), grads)

    def total(params: PyTree, present: Array, *rows: Any) -> PyTree:
        each = jax.vmap(clipped, in_axes=(None, *[0] * (1 + len(rows))))(params, present, *rows)
        return jax.tree.map(lambda leaf: leaf.sum(0), each)

    return total


def gaussian(words: Words, like: PyTree, std: float) -> PyTree:
    """Gaussian noise in the shapes of a tree, a function of the two words of its key alone."""
    key = jax.random.wrap_key_data(words, impl=IMPL)
    leaves, form = jax.tree.flatten(like)
    noise = [
        std * jax.random.normal(stream(key, number), leaf.shape, jnp.float32).astype(leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(form, noise)


def private_step(
    experiment: Experiment | Classification, in_parts: Callable[[Callable, int], Callable]
) -> Callable[..., tuple[TrainState, Array]]:
    """Update (state, pixels, cond, numbers, number, words) -> (state, norm of the noisy gradient, or NaN).

    numbers: of the images in the data set, -1 in a place without one. number: of updates made. words: of the key of
    this update's noise. in_parts: turns a function of a batch into its mean over so many parts.
    """
    config: Config = experiment.config
    options, parts = config.privacy, config.training.accumulate
    add = in_parts(clipped_sum(example_gradient(experiment), options.clip), parts)

    def step(
        state: TrainState,
        pixels: Array,
        cond: Cond | None,
        numbers: Int[Array, " b"],
        number: Int[Array, ""],
        words: Words,
    ) -> tuple[TrainState, Array]:
        keys = sample_keys(update_key(config.seed, number), numbers.astype(jnp.uint32))
        total = add(state.params, numbers >= 0, keys, pixels, cond)
        noise = gaussian(words, state.params, options.noise_multiplier * options.clip)
        grads = jax.tree.map(lambda a, z: (a * parts + z) / config.training.batch_size, total, noise)
        return apply_gradients(
            state, global_norm(grads), grads, experiment.optimizer, experiment.profiles, experiment.normalized
        )

    return step
