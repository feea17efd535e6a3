"""A digest of arrays: 128 bits that depend on every bit of every leaf, and not on how the arrays lie on devices.

It is computed where the arrays are: every 32-bit word is mixed with its position, and the words are added, which is
exact in any order. A single changed word always changes it. It finds damage, not forgery.
"""

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, PyTree


def digest(tree: PyTree) -> str:
    """32 hexadecimal digits of a tree of arrays."""
    lanes = [np.asarray(_lanes(leaf, np.uint32(number))) for number, leaf in enumerate(jax.tree.leaves(tree))]
    total = np.sum(lanes, axis=0, dtype=np.uint32)
    return total.astype(">u4").tobytes().hex()


@jax.jit  # one program for each shape: one for all leaves takes a minute to compile
def _lanes(leaf: Array, position: Array) -> Array:
    words = _words(leaf)
    for axis in range(words.ndim):
        position = position * jnp.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = [_mix(words ^ _mix(position + jnp.uint32(0x85EBCA6B * (lane + 1) % 2**32))) for lane in range(4)]
    return jnp.stack([jnp.sum(lane, dtype=jnp.uint32) for lane in mixed])


def _words(leaf: Array) -> Array:
    """The bits of an array as uint32; a shorter type is widened."""
    if leaf.dtype == bool:
        return leaf.astype(jnp.uint32)
    size = leaf.dtype.itemsize
    return jax.lax.bitcast_convert_type(leaf, f"uint{8 * min(size, 4)}").astype(jnp.uint32)


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words in which every bit moves all: the finaliser of MurmurHash3 (Appleby)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
