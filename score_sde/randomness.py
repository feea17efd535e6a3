"""Randomness, a function of (seed, step, sample index) only.

Every sample owns a key, derived from its global index, from which all its random numbers are drawn; they do not depend
on how a batch is split over devices, rounds, microbatches or restarts. They are float32, whatever JAX's default type:
in float64 they would be different numbers, not the same ones with more digits.

    import jax
    import jax.numpy as jnp
    from score_sde.randomness import Stream, normal, sample_keys, stream

    keys = sample_keys(stream(jax.random.key(0), Stream.SAMPLE), jnp.arange(4))
    z = normal(stream(keys, Stream.NOISE), (8, 8, 3))  # (4, 8, 8, 3); row i depends on the seed and i alone
"""

import enum
import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Int, Integer, Key, Keys, Shaped
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError


class Stream(enum.IntEnum):
    """Independent uses of a key. Append only: a changed number changes every result."""

    INIT = 0
    TRAIN = 1
    EVAL = 2
    SAMPLE = 3
    BITS_PER_DIM = 4
    PRIOR = 5
    STEPS = 6
    PROBE = 7
    DEQUANTIZE = 8
    TIME = 9
    NOISE = 10
    FLIP = 11
    DROPOUT = 12
    PROJECT = 13
    DEQUANTIZER = 14
    FEATURES = 15
    COND = 16
    PARTICLES = 17
    OBSERVE = 18
    AUGMENT = 19


Indices = Annotated[Integer[Array, " b"] | Integer[np.ndarray, " b"], "[0, 4294967296)"]
Size = Annotated[int, "[0, inf)"]


@check_arguments
def stream(key: Key[Array, "..."], use: Annotated[int, "[0, 4294967296)"] | Int[Array, ""]) -> Key[Array, "..."]:
    """The key or keys for one use, or one step: `fold_in`, elementwise over an array of keys."""
    use = np.uint32(use) if isinstance(use, int) else use  # JAX would run a program to convert it
    return jax.vmap(jax.random.fold_in, (0, None))(key, use) if key.ndim else jax.random.fold_in(key, use)


@check_arguments
def sample_keys(key: Key[Array, ""], indices: Indices) -> Keys:
    """Keys of samples, one for each index."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


@check_arguments
def batch_keys(
    key: Key[Array, "..."], batch_size: Annotated[int, "[0, 16777216]"], same: Annotated[int, "[1, inf)"] = 1
) -> Keys:
    """Keys of samples 0..batch_size-1, from a single key; an array of batch_size keys is returned unchanged.

    same: number of consecutive samples that share a key. Raises `UsageError` for keys of another number.
    """
    if key.ndim and key.shape != (batch_size,):
        raise UsageError(f"Keys of shape {key.shape} for {batch_size} images; give a single key, or one for each.")
    return key if key.ndim else sample_keys(key, np.arange(batch_size, dtype=np.uint32) // np.uint32(same))


Noise = Callable[[Keys, tuple[Size, ...]], Float[Array, "b ..."]]  # for example `normal`


@check_arguments
def normal(keys: Keys, shape: tuple[Size, ...]) -> Float[Array, "b ..."]:
    """Standard normal numbers of shape (b, *shape), each row from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


@check_arguments
def rademacher(keys: Keys, shape: tuple[Size, ...]) -> Float[Array, "b ..."]:
    """Signs -1.0 and +1.0 with equal probability, of shape (b, *shape)."""
    # `jax.random.rademacher` itself draws in JAX's default type.
    heads = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(0.5), shape))(keys)
    return jnp.where(heads, jnp.float32(1), jnp.float32(-1))


@check_arguments
def uniform(keys: Keys, shape: tuple[Size, ...] = ()) -> Float[Array, "b ..."]:
    """Uniform numbers in [0, 1) of shape (b, *shape)."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(keys)


@check_arguments
def keep_mask(
    keys: Keys, shape: tuple[Size, ...], rate: Annotated[float, "[0, 1)"]
) -> tuple[Shaped[Array, "b ..."], float]:
    """Booleans of shape (b, *shape), False with probability `rate`, and the probability of True.

    Each takes 16 random bits, so that the probability is within 1e-5 of 1 - rate, at half the cost of 32.
    """
    size, threshold = math.prod(shape), min(round(rate * 2**16), 2**16 - 1)
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),), jnp.uint32))(keys)
    bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(len(keys), -1)[:, :size]
    return bits.reshape(-1, *shape) >= threshold, 1 - threshold / 2**16


@check_arguments
def expand(scalars: Shaped[Array, "b *_"], like: Float[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """Numbers per sample, or arrays in the shape of `like`, reshaped to broadcast against `like`."""
    return scalars.reshape(scalars.shape + (1,) * (like.ndim - scalars.ndim))
