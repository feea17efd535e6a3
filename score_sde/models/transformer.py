"""Layers of transformers: patches of images, positions, attention of several heads, and the layers between.

import jax.numpy as jnp
from score_sde.models.transformer import image_of, patches_of

x = jnp.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
patches = patches_of(x, 2)  # (2, 16, 12)
assert (image_of(patches, 2, (8, 8, 3)) == x).all()
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Bool, Float, Int, Keys, ModelImages, PerSample
from score_sde.cond import Cond, Entries, read
from score_sde.errors import UsageError
from score_sde.models.compute import Compute, Dense, Heads, Layer, OtherHeads, as_input
from score_sde.models.layers import Dropout

Patches = Float[Array, "b n _"]
Sequence = Float[Array, "b n c"]
PerRow = Float[Array, "b c"]
Mask = Bool[Array, "b m"]  # True where there is a token


class Linears(NamedTuple):
    """Initialisers of a network's linear maps."""

    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    def __call__(self, features: int, *, use_bias: bool = True, name: str | None = None) -> Dense:
        """A linear map in the type of its input."""
        init = dict(kernel_init=self.kernel_init, bias_init=self.bias_init)
        return Dense(features, use_bias, promote_dtype=as_input, name=name, **init)


def patches_of(x: ModelImages, size: int) -> Patches:
    """Patches of size x size pixels, row by row; the numbers of a patch are in the order row, column, channel."""
    b, h, w, c = x.shape
    grid = x.reshape(b, h // size, size, w // size, size, c).swapaxes(2, 3)
    return grid.reshape(b, (h // size) * (w // size), size * size * c)


def image_of(patches: Patches, size: int, shape: tuple[int, int, int]) -> ModelImages:
    """The images (b, *shape) of these patches: the inverse of `patches_of`."""
    h, w, c = shape
    grid = patches.reshape(-1, h // size, w // size, size, size, c).swapaxes(2, 3)
    return grid.reshape(-1, h, w, c)


def check_transformer(width: int, num_heads: int, patch_size: int, image_size: int, image_width: int | None) -> None:
    """Raises `UsageError` unless patches tile the image, and heads divide the width."""
    for side, key in ((image_size, "image_size"), (image_width or image_size, "image_width")):
        if side % patch_size:
            raise UsageError(
                f"Patches of model.patch_size={patch_size} do not tile data.{key}={side}; choose a divisor of {side}."
            )
    check_heads(f"model.num_heads={num_heads}", num_heads, f"model.width={width}", width)


def check_heads(heads: str, number: int, of: str, width: int) -> None:
    """Raises `UsageError` unless a number of heads divides a width. heads, of: both as the sentence names them."""
    if not number or width % number:
        divisors = ", ".join(str(divisor) for divisor in range(1, width + 1) if width % divisor == 0)
        raise UsageError(f"{heads} does not divide {of}; choose one of {divisors}.")


def timestep_embedding(noise_cond: PerSample, dim: int) -> Float[Array, "b d"]:
    """[cos, sin](noise_cond f_j), f_j = 10000^(-2j / dim), zero-padded if `dim` is odd.

    The exponents have the publishers' rounding to float32, and their powers are rounded once: noise conditions of 999
    magnify one unit in the last place of f_j to 6e-5 in the angle.
    """
    half = dim // 2
    exponents = np.float32(-np.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = jnp.asarray(np.exp(exponents.astype(np.float64)), jnp.float32)
    angles = noise_cond[:, None] * frequencies[None, :]
    return jnp.pad(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1), ((0, 0), (0, dim % 2)))


def label_rows(cond: Cond | None, entries: Entries, n: int, features: int, init: Callable, name: str) -> PerRow:
    """A learned row for the class of each of n samples, with a last row for null; call it inside a compact method."""
    labels, null = read(cond, entries, "labels", n)
    num_classes = entries["labels"].below
    rows = nn.Embed(num_classes + 1, features, embedding_init=init, name=name)
    return rows(jnp.where(null, num_classes, labels))


def seen(mask: Bool[Array, "b _"] | None, n: int) -> Bool[Array, "b _"] | None:
    """The mask of the first tokens of a sequence, followed by tokens that are all seen, up to length n."""
    return None if mask is None else jnp.pad(mask, ((0, 0), (0, n - mask.shape[1])), constant_values=True)


class Normalization(Layer, nn.LayerNorm):
    """Normalisation of each token's features, in float32, with the result in the type of its input."""


def normalized(x: Sequence, epsilon: float, *, learned: bool, name: str | None = None) -> Sequence:
    """Tokens with features of mean 0 and variance 1, scaled and shifted if learned; call it inside a compact method."""
    options = dict(use_scale=learned, use_bias=learned, use_fast_variance=False)
    return Normalization(epsilon, dtype=x.dtype, name=name, **options)(x)


class SelfAttention(nn.Module):
    """Self-attention of several heads: softmax(q k^T / sqrt(d)) v, and a linear map of the heads side by side.

    One linear map makes queries, keys and values, in this order, each split into heads of consecutive channels.
    mask: tokens that may be attended to. causal: whether a token attends to itself and to earlier ones alone.

    at: position of the only token in x, which attends to itself and to the tokens that were passed at earlier
    positions; flax's collection `cache` has their keys and values, and `length` is the number that it has room for.
    """

    num_heads: int
    linear: Linears = Linears()
    qkv_bias: bool = True
    causal: bool = False
    length: int = 0
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Sequence, mask: Mask | None = None, at: Int[Array, ""] | None = None) -> Sequence:
        b, n, c = x.shape
        maps = self.linear(3 * c, use_bias=self.qkv_bias, name="qkv")(x)
        q, k, v = jnp.moveaxis(maps.reshape(b, n, 3, self.num_heads, c // self.num_heads), 2, 0)
        if at is not None:
            k, v = self._kept("k", k, at), self._kept("v", v, at)
            mask = jnp.broadcast_to(jnp.arange(self.length) <= at, (b, self.length))
        mask = None if mask is None else mask[:, None, None, :]
        h = self.compute.attend_heads(q, k, v, mask, causal=self.causal and at is None)
        return self.linear(c, name="proj")(h.reshape(b, n, c))

    def _kept(self, name: str, new: Heads, at: Int[Array, ""]) -> OtherHeads:
        """The keys or values of all positions, with those of the token `at`, which the cache keeps."""
        b, _, heads, d = new.shape
        kept = self.variable("cache", name, jnp.zeros, (b, self.length, heads, d), new.dtype)
        kept.value = jax.lax.dynamic_update_slice_in_dim(kept.value, new, at, axis=1)
        return kept.value


class MLP(nn.Module):
    """Two linear maps with an activation between them. ratio: width of the inner layer over that of x."""

    act: Callable
    ratio: float = 4.0
    linear: Linears = Linears()
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Sequence, dropout_keys: Keys | None = None) -> Sequence:
        c = x.shape[-1]
        h = self.act(self.linear(int(self.ratio * c), name="fc1")(x))
        h = Dropout(self.dropout)(h, dropout_keys)
        return self.linear(c, name="fc2")(h)
