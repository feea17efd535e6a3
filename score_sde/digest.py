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
    return np.asarray(_digest(jax.tree.leaves(tree))).astype(">u4").tobytes().hex()


@jax.jit
def _digest(leaves: list[Array]) -> Array:
    total = jnp.zeros(4, jnp.uint32)
    for number, leaf in enumerate(leaves):
        words, position = _words(leaf), jnp.uint32(number)
        for axis in range(words.ndim):
            position = position * jnp.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        for lane in range(4):
            mixed = _mix(words ^ _mix(position + jnp.uint32(0x85EBCA6B * (lane + 1) % 2**32)))
            total = total.at[lane].add(jnp.sum(mixed, dtype=jnp.uint32))
    return total


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
