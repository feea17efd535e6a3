"""Layers shared by the score networks. Class names and order of creation give the leaf names of the paper's files."""

import math
import zlib
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float, Keys, PerSample
from score_sde.errors import UsageError, one_of
from score_sde.models import resampling
from score_sde.models.compute import Compute, Conv, Dense, Layer
from score_sde.models.group_norm import group_norm, group_norm_by_hand
from score_sde.randomness import keep_mask, stream

Features = Float[Array, "b _"]
Matrix = Float[Array, "c d"] | Float[np.ndarray, "c d"]
Vector = Float[Array, " d"] | Float[np.ndarray, " d"]

ACTIVATIONS: dict[str, Callable] = {
    "swish": nn.swish,
    "elu": nn.elu,
    "relu": nn.relu,
    "lrelu": lambda x: nn.leaky_relu(x, negative_slope=0.2),
}


def default_init(scale: float = 1.0) -> Callable:
    """Initialiser: uniform with variance scale / fan_avg; a scale of 0 becomes 1e-10, as in DDPM."""
    return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def pytorch_init(fan_in: int) -> dict[str, Callable]:
    """Initialisers of kernel and bias, both uniform within 1 / sqrt(fan_in), as in PyTorch."""
    bound = 1 / np.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return dict(kernel_init=init, bias_init=init)


def conv3x3(features: int, *, stride: int = 1, init_scale: float = 1.0) -> nn.Conv:
    """3x3 convolution; with stride 2, SAME padding adds a row below and a column on the right."""
    return Conv(features, (3, 3), (stride, stride), padding="SAME", kernel_init=default_init(init_scale))


def upsampled_conv3x3(features: int, **init: Callable) -> nn.Conv:
    """A 3x3 convolution of the nearest-neighbour upsampling of its input, computed in one step.

    init: initialisers of kernel and bias; default: as in the paper.
    """

    def convolve(x, kernel, *_, **__):
        return resampling.nearest_upsample_conv(x, kernel)

    return Conv(features, (3, 3), conv_general_dilated=convolve, **({"kernel_init": default_init()} | init))


def conv1x1(features: int, then: Callable[[FeatureMaps], FeatureMaps] = lambda h: h) -> nn.Conv:
    """1x1 convolution.

    then: a linear map of each channel, such as upsampling, applied before the bias: the same as to the input, but
    cheaper.
    """

    def convolve(*args, **kwargs):
        return then(jax.lax.conv_general_dilated(*args, **kwargs))

    return Conv(features, (1, 1), kernel_init=default_init(), conv_general_dilated=convolve)


def dense(features: int, *, use_bias: bool = True, name: str | None = None) -> nn.Dense:
    """A linear layer, initialised as the paper's."""
    return Dense(features, use_bias, kernel_init=default_init(), name=name)


class NIN(Layer):
    """A linear map of the channels of each pixel ("network in network")."""

    features: int
    init_scale: float = 0.1

    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        return affine(x, *self.map(x.shape[-1]))

    @nn.compact
    def map(self, c: int) -> tuple[Matrix, Vector]:
        """Matrix and bias of the map of c channels."""
        w = self.param("W", default_init(self.init_scale), (c, self.features), jnp.float32)
        return w, self.param("b", nn.initializers.zeros, (self.features,), jnp.float32)


def affine(x: Float[Array, "*n c"], w: Matrix, b: Vector) -> Float[Array, "*n d"]:
    """Affine map x w + b in the type of x.

    It is one product of two matrices, so that the derivative by w is one too, also on CPUs.
    """
    y = x.reshape(-1, x.shape[-1]) @ w.astype(x.dtype) + b.astype(x.dtype)
    return y.reshape(*x.shape[:-1], -1)


class Dropout(nn.Module):
    """Dropout: each number is 0 with probability `rate`, and otherwise divided by 1 - rate.

    keys: one for each image, or None for no dropout.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], keys: Keys | None) -> Float[Array, "b ..."]:
        if keys is None or self.rate == 0:
            return x
        keys = stream(keys, zlib.crc32("/".join(self.path).encode()))
        kept, probability = keep_mask(keys, x.shape[1:], self.rate)
        return jnp.where(kept, x / probability, 0)


class GroupNorm(Layer):
    """Group normalisation over contiguous channel groups, biased variance, and the activation after it.

    groups: default min(C // 4, 32), the rule of the NCSN++ family; DDPM always has 32.
    """

    compute: Compute
    act: Callable = lambda h: h
    groups: int | None = None
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        c = x.shape[-1]
        groups = self.groups or max(min(c // 4, 32), 1)
        if c % groups:
            raise UsageError(f"{c} channels do not split into {groups} groups; choose model.nf as a multiple of 32.")
        scale = self.param("scale", nn.initializers.ones, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        normalize = group_norm_by_hand if self.compute.fused else group_norm
        return normalize(x, scale, bias, groups, self.epsilon, self.act)


def attention(h: FeatureMaps, init_scale: float, compute: Compute) -> FeatureMaps:
    """Single-head self-attention over all pixels with the parameters of four `NIN`s; call it inside a compact method.

    Only two of the four maps of each pixel remain. With keys k = h W_k + b_k and a query q, the logits q k are those of
    q W_k^T with h itself, plus q b_k, which a softmax over keys ignores. The softmax weights sum to 1, so that the
    output's map of a mean of values h W_v + b_v is one map of the mean of h.
    """
    b, height, width, c = h.shape
    (w_q, b_q), (w_k, _), (w_v, b_v) = (NIN(c).map(c) for _ in range(3))
    w_o, b_o = NIN(c, init_scale).map(c)
    with jax.default_matmul_precision("highest"):
        to_query, to_output = (w_q @ w_k.T, w_k @ b_q), (w_v @ w_o, b_v @ w_o + b_o)
    h = h.reshape(b, height * width, c)
    return affine(compute.attend(affine(h, *to_query), h, h), *to_output).reshape(b, height, width, c)


class GaussianFourierProjection(nn.Module):
    """Random Fourier embedding of a noise level, [sin, cos](2 pi W log(noise_cond)), W ~ N(0, scale^2) fixed.

    takes_log: whether it takes the logarithm; otherwise the embedding is that of noise_cond itself.
    """

    embedding_size: int
    scale: float
    takes_log: bool = True

    @nn.compact
    def __call__(self, noise_cond: PerSample) -> Features:
        w = self.param("W", nn.initializers.normal(self.scale), (self.embedding_size,), jnp.float32)
        if self.takes_log:
            angles = jnp.log(noise_cond)[:, None] * jax.lax.stop_gradient(w)[None, :] * 2 * jnp.pi
        else:  # rounded as in EDM's networks
            angles = noise_cond[:, None] * (2 * jnp.pi * jax.lax.stop_gradient(w))[None, :]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sinusoidal_embedding(noise_cond: PerSample, dim: int) -> Features:
    """The Transformer's embedding [sin, cos](noise_cond f_j), f_j from 1 down to 1/10000, zero-padded if `dim` is odd.

    Frequencies are rounded as in the training of the paper's networks; at a noise_cond of 700 that matters at 1e-5.
    """
    half = dim // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(-np.log(10000) / (half - 1))
    frequencies = jnp.asarray(np.exp(exponents))
    angles = noise_cond[:, None] * frequencies[None, :]
    embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


def embedding_mlp(embedding: Features, nf: int, act: Callable) -> Features:
    """The two dense layers of the embedding that all blocks share; call it inside a compact method."""
    temb = dense(4 * nf)(embedding)  # created first, and so named Dense_0
    return dense(4 * nf)(act(temb))


def add_embedding(h: FeatureMaps, temb: Features | None, act: Callable) -> FeatureMaps:
    """Features plus the noise level's embedding as a bias of each channel; call it inside a compact method."""
    return h if temb is None else h + dense(h.shape[-1])(act(temb))[:, None, None, :].astype(h.dtype)


def rescaled(h: FeatureMaps) -> FeatureMaps:
    """A sum of two features, divided so that its variance is that of one (skip_rescale)."""
    return h / math.sqrt(2)


class Conv2d(Layer):
    """A 3x3 convolution fused with FIR resampling by two."""

    features: int
    up: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        weight = self.param("weight", default_init(), (3, 3, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        convolve = resampling.fir_conv_upsample if self.up else resampling.fir_conv_downsample
        return convolve(x, weight.astype(x.dtype), self.fir_kernel) + bias.astype(x.dtype)


# Both stand whole, because Flax names leaves by class, and a base class would hide what each does.
class Upsample(nn.Module):
    """Upsampling: twice the height and width, with or without a convolution."""

    features: int | None = None  # default: those of the input
    with_conv: bool = False
    fir: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        features = self.features or x.shape[-1]
        if self.fir:
            if self.with_conv:
                return Conv2d(features, up=True, fir_kernel=self.fir_kernel)(x)
            return resampling.fir_upsample(x, self.fir_kernel)
        return upsampled_conv3x3(features)(x) if self.with_conv else resampling.nearest_upsample(x)


class Downsample(nn.Module):
    """Downsampling: half the height and width, with or without a convolution."""

    features: int | None = None
    with_conv: bool = False
    fir: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        features = self.features or x.shape[-1]
        if self.fir:
            if self.with_conv:
                return Conv2d(features, fir_kernel=self.fir_kernel)(x)
            return resampling.fir_downsample(x, self.fir_kernel)
        return conv3x3(features, stride=2)(x) if self.with_conv else resampling.mean_downsample(x)


def is_trainable(path: tuple[str, ...]) -> bool:
    """Whether a parameter is trained; the fixed frequencies of Fourier embeddings are stored with the parameters."""
    return not any(name.startswith("GaussianFourierProjection") or name == "emb_fourier" for name in path)


def check_unet(network, image_size: int, image_width: int | None) -> None:
    """Raises `UsageError` for options that no U-Net here can have."""
    one_of("model.nonlinearity", network.nonlinearity, ACTIVATIONS)
    if not network.ch_mult:
        raise UsageError("model.ch_mult=() must hold one positive integer a level, like (1, 2, 2).")
    halvings = len(network.ch_mult) - 1
    check_halvings(image_size, image_width, halvings, f"the {halvings + 1} levels of model.ch_mult")


def check_halvings(image_size: int, image_width: int | None, halvings: int, subject: str) -> None:
    """Raises `UsageError` unless height and width of the image can be halved this many times.

    image_width: None for a square.
    """
    factor, sides = 2**halvings, {"image_size": image_size}
    sides |= {} if image_width is None else {"image_width": image_width}
    uneven = {key: side for key, side in sides.items() if side % factor}
    if not uneven:
        return
    words = " and ".join(f"data.{key}={side}" for key, side in uneven.items())
    ways = []
    for key, side in uneven.items():
        lower, upper = side // factor * factor, -(-side // factor) * factor
        ways.append(f"data.{key} to {upper}" if lower == 0 else f"data.{key} to {lower} or {upper}")
    are = "is" if len(uneven) == 1 else "are"
    raise UsageError(
        f"{words} {are} not divisible by {factor}: {subject} halve the image {halvings} time(s); set "
        f"{' and '.join(ways)}."
    )
