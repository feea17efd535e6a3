"""A digest of arrays: 128 bits that depend on every bit of every leaf, but not on its layout on devices.

It is computed on the devices, or by numpy: every 32-bit word is mixed with its position, and the results are added,
which is exact in any order. A single changed word always changes the digest. It finds damage, not forgery.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, PyTree

# By hand: a library's hash reads bytes in order on the host, where a sharded state would have to be gathered first.

SMALL = 2**16  # elements; numpy finishes these before XLA has compiled a program for their shape


def digest(tree: PyTree) -> str:
    """The digest of a tree of arrays, 32 hexadecimal digits."""
    return total([leaf_digest(leaf, number) for number, leaf in enumerate(jax.tree.leaves(tree))])


def leaf_digest(leaf: Any, number: int) -> str:
    """The share of one leaf in the digest of its tree, where it has this number in order: 32 hexadecimal digits."""
    if _is_small_and_here(leaf):
        with np.errstate(over="ignore"):  # numpy warns of scalars
            lanes = _lanes_of(_words_here(np.asarray(leaf)), np.uint32(number), np)
    else:
        lanes = np.asarray(_lanes(leaf, np.uint32(number)))
    return lanes.astype(">u4").tobytes().hex()


def total(shares: Sequence[str]) -> str:
    """The digest of a tree whose leaves have these shares."""
    lanes = np.frombuffer(bytes.fromhex("".join(shares)), ">u4").reshape(-1, 4)
    return np.sum(lanes, axis=0, dtype=np.uint32).astype(">u4").tobytes().hex()


def _is_small_and_here(leaf: Any) -> bool:
    """Whether the array is small and all in this process's memory, where numpy can read it."""
    if leaf.size > SMALL or leaf.dtype.itemsize > 4:
        return False
    if isinstance(leaf, jax.Array):
        whole = leaf.is_fully_addressable or leaf.is_fully_replicated
        return whole and all(device.platform == "cpu" for device in leaf.devices())
    return True


@jax.jit  # one program for each shape: one for all leaves takes a minute to compile
def _lanes(leaf: Array, position: Array) -> Array:
    return _lanes_of(_words(leaf), position, jnp)


def _lanes_of(words: Any, position: Any, xp: ModuleType) -> Any:
    """Four sums of the mixed words. xp: jnp, or np with the same result."""
    for axis, size in enumerate(words.shape):
        along = xp.arange(size, dtype=np.uint32).reshape([-1 if i == axis else 1 for i in range(words.ndim)])
        position = position * np.uint32(0x9E3779B1) + along
    mixed = [_mix(words ^ _mix(position + np.uint32(0x85EBCA6B * (lane + 1) % 2**32))) for lane in range(4)]
    return xp.stack([xp.sum(lane, dtype=np.uint32) for lane in mixed])


def _words_here(leaf: np.ndarray) -> np.ndarray:
    """`_words`, computed by numpy."""
    bits = leaf.astype(np.uint8) if leaf.dtype == bool else np.ascontiguousarray(leaf).reshape(leaf.shape)
    return bits.view(f"uint{8 * bits.dtype.itemsize}").astype(np.uint32)


def _words(leaf: Array) -> Array:
    """The bits of an array as uint32; a shorter type is widened."""
    if leaf.dtype == bool:
        return leaf.astype(jnp.uint32)
    size = leaf.dtype.itemsize
    return jax.lax.bitcast_convert_type(leaf, f"uint{8 * min(size, 4)}").astype(jnp.uint32)


def _mix(x: Any) -> Any:
    """A bijection of 32-bit words in which every bit affects all: the finaliser of MurmurHash3 (Appleby)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
