"""Layers shared by the score networks. Class names and creation order give the paper's checkpoints' leaf names."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float, PerSample
from score_sde.errors import UsageError
from score_sde.models import resampling

Features = Float[Array, "b d"]

ACTIVATIONS: dict[str, Callable] = {
    "swish": nn.swish,
    "elu": nn.elu,
    "relu": nn.relu,
    "lrelu": lambda x: nn.leaky_relu(x, negative_slope=0.2),
}


def default_init(scale: float = 1.0) -> Callable:
    """Uniform with variance scale / fan_avg; a scale of 0 becomes 1e-10, as in DDPM."""
    return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def conv3x3(features: int, *, stride: int = 1, init_scale: float = 1.0) -> nn.Conv:
    """3x3 convolution; with stride 2 SAME padding adds a row below and a column on the right."""
    return nn.Conv(features, (3, 3), (stride, stride), padding="SAME", kernel_init=default_init(init_scale))


def conv1x1(features: int, *, init_scale: float = 1.0) -> nn.Conv:
    return nn.Conv(features, (1, 1), kernel_init=default_init(init_scale))


def dense(features: int) -> nn.Dense:
    return nn.Dense(features, kernel_init=default_init())


class NIN(nn.Module):
    """A linear map of the channels of each pixel ("network in network")."""

    features: int
    init_scale: float = 0.1

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        w = self.param("W", default_init(self.init_scale), (x.shape[-1], self.features))
        b = self.param("b", nn.initializers.zeros, (self.features,))
        return x @ w + b


class GroupNorm(nn.Module):
    """Group normalisation over contiguous channel groups, biased variance, eps 1e-6.

    There are min(C // 4, 32) groups, the rule of the NCSN++ family. Statistics are reduced over
    pixels first and over the channels of a group after, which spares flax's module's reshape of the whole image.
    """

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        c = x.shape[-1]
        groups = max(min(c // 4, 32), 1)
        if c % groups:
            raise UsageError(f"{c} channels do not split into {groups} groups; choose model.nf as a multiple of 32.")
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))

        def group_mean(per_channel):  # (b, c) -> (b, 1, 1, c)
            grouped = per_channel.reshape(-1, groups, c // groups).mean(-1)
            return jnp.repeat(grouped, c // groups, axis=-1)[:, None, None, :]

        mean = group_mean(x.mean((1, 2)))
        variance = group_mean(jnp.square(x - mean).mean((1, 2)))
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


class GaussianFourierProjection(nn.Module):
    """[sin, cos](2 pi W log(label)) with fixed W ~ N(0, scale^2): the embedding of a noise level sigma."""

    embedding_size: int
    scale: float

    @nn.compact
    def __call__(self, label: PerSample) -> Features:
        w = self.param("W", nn.initializers.normal(self.scale), (self.embedding_size,))
        angles = jnp.log(label)[:, None] * jax.lax.stop_gradient(w)[None, :] * 2 * jnp.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sinusoidal_embedding(label: PerSample, dim: int) -> Features:
    """[sin, cos](label f_j), f_j from 1 down to 1/10000: the Transformer's, zero-padded if `dim` is odd."""
    half = dim // 2
    frequencies = jnp.asarray(np.exp(-np.arange(half) * (np.log(10000) / (half - 1))), jnp.float32)
    angles = label[:, None] * frequencies[None, :]
    embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class Conv2d(nn.Module):
    """A 3x3 convolution fused with FIR resampling by two."""

    features: int
    up: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        weight = self.param("weight", default_init(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        convolve = resampling.fir_conv_upsample if self.up else resampling.fir_conv_downsample
        return convolve(x, weight, self.fir_kernel) + bias


class Upsample(nn.Module):
    """Twice the height and width, with or without a convolution."""

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
        x = resampling.nearest_upsample(x)
        return conv3x3(features)(x) if self.with_conv else x


class Downsample(nn.Module):
    """Half the height and width, with or without a convolution."""

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
    """False for the fixed frequencies of the Fourier embedding, which are stored among the parameters."""
    return not any(name.startswith("GaussianFourierProjection") for name in path)
