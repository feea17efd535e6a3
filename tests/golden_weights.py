"""Weights of any network as a function of (seed, leaf name): what the golden numbers were computed with.

The numbers in golden/ come from the paper's own code, which is not part of this repository: its Flax networks on
today's Flax, and its PyTorch networks and score functions, given these weights (golden/README.md).
"""

import json
import zlib
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

GOLDEN = Path(__file__).parent / "golden"


def weights(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    z = np.random.default_rng([seed, zlib.crc32(path.encode())]).standard_normal(shape)
    name = path.rsplit("/", 1)[-1]
    if path.startswith("GaussianFourierProjection"):
        value = 16 * z
    elif name in ("scale", "gamma", "alpha", "embedding"):
        value = 1 + 0.1 * z
    elif name in ("bias", "b", "beta"):
        value = 0.1 * z
    else:
        value = z / np.sqrt(np.prod(shape[:-1]))
    return value.astype(np.float32)


def seeded(shapes, seed: int = 0):
    """A parameter tree of these shapes."""
    return traverse_util.path_aware_map(lambda path, leaf: weights("/".join(path), leaf.shape, seed), shapes)


def names(tree) -> dict[str, tuple[int, ...]]:
    """{"Conv_0/kernel": (3, 3, 3, 128), ...}"""
    return {"/".join(path): tuple(leaf.shape) for path, leaf in traverse_util.flatten_dict(tree).items()}


def load_json(name: str):
    return json.loads((GOLDEN / name).read_text())


def relative(a: jax.Array, b: jax.Array) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)))
