"""Inception-v3, by whose features FID is defined: Szegedy et al. (2016), as in TensorFlow's graph of 2015-12-05.

It differs from later versions: 1,008 outputs, averages at the border over the pixels inside, and a maximum instead of
the last block's average. The weights come from the PyTorch file that pytorch-fid and torch-fidelity distribute, read
without PyTorch.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Pixels, PyTree
from score_sde.errors import UsageError
from score_sde.io import pytorch_files

# By hand: FID is defined by this variant with these weights, and the libraries that have both need PyTorch.

SIDE = 299  # pixels of its input
DIMENSION = 2048
CLASSES = 1008
BATCH_NORM_EPS = 1e-3


class Conv(NamedTuple):
    """A convolution without bias, batch normalisation and ReLU. padding: of height and width, in PyTorch's order."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


ROW, COLUMN, SQUARE = (1, 7), (7, 1), (3, 3)
ALONG_ROW, ALONG_COLUMN = (0, 3), (3, 0)


STEM = {
    "Conv2d_1a_3x3": Conv(32, SQUARE, 2),
    "Conv2d_2a_3x3": Conv(32, SQUARE),
    "Conv2d_2b_3x3": Conv(64, SQUARE, 1, (1, 1)),
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, SQUARE),
}


def _block_a(pool: int) -> dict[str, Conv]:
    return {
        "branch1x1": Conv(64),
        "branch5x5_1": Conv(48),
        "branch5x5_2": Conv(64, (5, 5), 1, (2, 2)),
        "branch3x3dbl_1": Conv(64),
        "branch3x3dbl_2": Conv(96, SQUARE, 1, (1, 1)),
        "branch3x3dbl_3": Conv(96, SQUARE, 1, (1, 1)),
        "branch_pool": Conv(pool),
    }


def _block_b() -> dict[str, Conv]:
    return {
        "branch3x3": Conv(384, SQUARE, 2),
        "branch3x3dbl_1": Conv(64),
        "branch3x3dbl_2": Conv(96, SQUARE, 1, (1, 1)),
        "branch3x3dbl_3": Conv(96, SQUARE, 2),
    }


def _block_c(c7: int) -> dict[str, Conv]:
    return {
        "branch1x1": Conv(192),
        "branch7x7_1": Conv(c7),
        "branch7x7_2": Conv(c7, ROW, 1, ALONG_ROW),
        "branch7x7_3": Conv(192, COLUMN, 1, ALONG_COLUMN),
        "branch7x7dbl_1": Conv(c7),
        "branch7x7dbl_2": Conv(c7, COLUMN, 1, ALONG_COLUMN),
        "branch7x7dbl_3": Conv(c7, ROW, 1, ALONG_ROW),
        "branch7x7dbl_4": Conv(c7, COLUMN, 1, ALONG_COLUMN),
        "branch7x7dbl_5": Conv(192, ROW, 1, ALONG_ROW),
        "branch_pool": Conv(192),
    }


def _block_d() -> dict[str, Conv]:
    return {
        "branch3x3_1": Conv(192),
        "branch3x3_2": Conv(320, SQUARE, 2),
        "branch7x7x3_1": Conv(192),
        "branch7x7x3_2": Conv(192, ROW, 1, ALONG_ROW),
        "branch7x7x3_3": Conv(192, COLUMN, 1, ALONG_COLUMN),
        "branch7x7x3_4": Conv(192, SQUARE, 2),
    }


def _block_e() -> dict[str, Conv]:
    return {
        "branch1x1": Conv(320),
        "branch3x3_1": Conv(384),
        "branch3x3_2a": Conv(384, (1, 3), 1, (0, 1)),
        "branch3x3_2b": Conv(384, (3, 1), 1, (1, 0)),
        "branch3x3dbl_1": Conv(448),
        "branch3x3dbl_2": Conv(384, SQUARE, 1, (1, 1)),
        "branch3x3dbl_3a": Conv(384, (1, 3), 1, (0, 1)),
        "branch3x3dbl_3b": Conv(384, (3, 1), 1, (1, 0)),
        "branch_pool": Conv(192),
    }


# (input channels, convolutions) of each block, under the names of the PyTorch file.
BLOCKS: dict[str, tuple[int, dict[str, Conv]]] = {
    "Mixed_5b": (192, _block_a(32)),
    "Mixed_5c": (256, _block_a(64)),
    "Mixed_5d": (288, _block_a(64)),
    "Mixed_6a": (288, _block_b()),
    "Mixed_6b": (768, _block_c(128)),
    "Mixed_6c": (768, _block_c(160)),
    "Mixed_6d": (768, _block_c(160)),
    "Mixed_6e": (768, _block_c(192)),
    "Mixed_7a": (768, _block_d()),
    "Mixed_7b": (1280, _block_e()),
    "Mixed_7c": (2048, _block_e()),
}


def inception(params: PyTree, pixels: Pixels) -> dict[str, Float[Array, "b d"]]:
    """Features (b, 2048) and logits (b, 1008), float32, of uint8 images (b, h, w, 1 or 3).

    Logits lack the last layer's bias, as in the code that computed the published Inception scores.
    """
    x = (pixels.astype(jnp.float32) - 127.5) / 127.5  # as in the paper's code; the graph's own is (x - 128) / 128
    return outputs(params, resized(jnp.broadcast_to(x, (*x.shape[:-1], 3))))


def outputs(params: PyTree, x: Float[Array, "b 299 299 3"]) -> dict[str, Float[Array, "b d"]]:
    """Features and logits of images that are already resized and in [-1, 1]."""
    with jax.default_matmul_precision("highest"):
        features = _network(params, x)
        return {"features": features, "logits": features @ params["fc"]}


def resized(x: Float[Array | np.ndarray, "b h w c"]) -> Float[Array, "b 299 299 c"]:
    """Images resized as in TensorFlow 1: bilinear without antialiasing, output pixel i at i/299 of the side."""

    def weights(size: int) -> np.ndarray:
        position = np.arange(SIDE) * (np.float32(size) / np.float32(SIDE))
        lower = np.floor(position).astype(int)
        matrix = np.zeros((SIDE, size), np.float32)
        matrix[np.arange(SIDE), lower] = 1 - (position - lower)
        matrix[np.arange(SIDE), np.minimum(lower + 1, size - 1)] += position - lower
        return matrix

    rows, columns = (weights(size) for size in x.shape[1:3])
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=highest)
    return jnp.einsum("jw,biwc->bijc", columns, x, precision=highest)


def _network(params: PyTree, x: Array) -> Array:
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x = _convolution(STEM[name], params[name], x)
    x = _reduce(x)
    for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
        x = _convolution(STEM[name], params[name], x)
    x = _reduce(x)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _mixed(params, block, x, ["branch1x1", *_chains(block, "branch5x5", "branch3x3dbl")], _average)
    x = _mixed(params, "Mixed_6a", x, ["branch3x3", *_chains("Mixed_6a", "branch3x3dbl")], _reduce)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _mixed(params, block, x, ["branch1x1", *_chains(block, "branch7x7", "branch7x7dbl")], _average)
    x = _mixed(params, "Mixed_7a", x, _chains("Mixed_7a", "branch3x3", "branch7x7x3"), _reduce)
    dbl = ["branch3x3dbl_1", "branch3x3dbl_2"]
    forked = [["branch3x3_1", f"branch3x3_2{end}"] for end in "ab"] + [[*dbl, f"branch3x3dbl_3{end}"] for end in "ab"]
    x = _mixed(params, "Mixed_7b", x, ["branch1x1", *forked], _average)
    x = _mixed(params, "Mixed_7c", x, ["branch1x1", *forked], _largest)
    return x.mean(axis=(1, 2))


def _chains(block: str, *branches: str) -> list[list[str]]:
    """The numbered convolutions of each branch, in order."""
    return [[name for name in BLOCKS[block][1] if re.fullmatch(rf"{branch}_\d", name)] for branch in branches]


def _mixed(params: PyTree, block: str, x: Array, branches: list, pool: Callable[[Array], Array]) -> Array:
    """Parallel branches, each a chain of convolutions, and a pool, with its convolution if it has one."""
    convs = BLOCKS[block][1]

    def branch(x: Array, names: list[str]) -> Array:
        for name in names:
            x = _convolution(convs[name], params[f"{block}.{name}"], x)
        return x

    outputs = [branch(x, [names] if isinstance(names, str) else names) for names in branches]
    outputs.append(branch(pool(x), ["branch_pool"] if "branch_pool" in convs else []))
    return jnp.concatenate(outputs, axis=-1)


def _convolution(conv: Conv, params: PyTree, x: Array) -> Array:
    padding = [(p, p) for p in conv.padding]
    x = jax.lax.conv_general_dilated(
        x, params["kernel"], (conv.stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x + params["bias"])


def _window(x: Array, start: float, reduce: Callable, stride: int, padding: int) -> Array:
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, start, reduce, (1, 3, 3, 1), (1, stride, stride, 1), around)


def _reduce(x: Array) -> Array:
    return _window(x, -jnp.inf, jax.lax.max, 2, 0)


def _largest(x: Array) -> Array:
    return _window(x, -jnp.inf, jax.lax.max, 1, 1)


def _average(x: Array) -> Array:
    """Average over the pixels of the window that lie inside the image."""
    return _window(x, 0.0, jax.lax.add, 1, 1) / _window(jnp.ones_like(x[:1, :, :, :1]), 0.0, jax.lax.add, 1, 1)


def load(path: Path) -> PyTree:
    """Parameters from a PyTorch file, with each batch normalisation folded into its convolution.

    Raises `UsageError` if the file cannot be read, or a tensor is missing or has another shape.
    """
    try:
        tensors = pytorch_files.read(path)
    except OSError as error:
        raise UsageError(f"Cannot read the Inception weights {path} ({error.strerror}).") from error
    if not isinstance(tensors, dict):
        raise UsageError(f"{path} holds no weights by name; it is not the file of Inception's.")

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = tensors.get(name)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            has = f"has {name} of shape {array.shape}" if isinstance(array, np.ndarray) else f"has no {name}"
            raise UsageError(f"{path} {has}, where the Inception of FID has {shape}; it is not its file.")
        return array.astype(np.float64)

    params: dict[str, PyTree] = {}
    for name, conv, channels in _convolutions():
        shape = (conv.channels, channels, *conv.kernel)
        weight, mean, variance, scale, shift = (
            tensor(f"{name}.conv.weight", shape),
            *(tensor(f"{name}.bn.{part}", shape[:1]) for part in ("running_mean", "running_var", "weight", "bias")),
        )
        factor = scale / np.sqrt(variance + BATCH_NORM_EPS)
        kernel = (weight * factor[:, None, None, None]).transpose(2, 3, 1, 0)
        params[name] = {"kernel": kernel.astype(np.float32), "bias": (shift - mean * factor).astype(np.float32)}
    return params | {"fc": tensor("fc.weight", (CLASSES, DIMENSION)).T.astype(np.float32)}


def _convolutions() -> Iterator[tuple[str, Conv, int]]:
    """(name, convolution, number of its input channels) of all convolutions."""
    channels = 3
    for name, conv in STEM.items():
        yield name, conv, channels
        channels = conv.channels
    for block, (channels, convs) in BLOCKS.items():
        for name, conv in convs.items():
            stem, _, place = name.rpartition("_")
            before = convs.get(f"{stem}_{int(place[0]) - 1}") if place[0].isdigit() else None
            yield f"{block}.{name}", conv, before.channels if before else channels
