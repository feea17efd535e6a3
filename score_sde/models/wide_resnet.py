"""The noise-conditional classifier: a Wide ResNet (Zagoruyko and Komodakis, 2016) with the logits of p(y | x_t).

The paper guides samples by its gradient (appendix I); WRN-28-10 is `WideResnet(4, 10)`. Layers
named "bn" are group normalisations, for historical reasons.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float, PerSample, UnitImages
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.compute import Compute, Conv
from score_sde.models.layers import GaussianFourierProjection, GroupNorm, check_halvings

Embedding = Float[Array, "b d"]
conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv3x3(features: int, name: str, stride: int = 1) -> nn.Conv:
    """A 3x3 convolution without bias."""
    return Conv(features, (3, 3), (stride, stride), use_bias=False, kernel_init=conv_init, name=name)


def norm_relu(compute: Compute, name: str) -> GroupNorm:
    """Group normalisation followed by a ReLU."""
    return GroupNorm(compute, nn.relu, epsilon=1e-5, name=name)


def _last_init(key, shape, dtype=jnp.float32):
    bound = 1 / np.sqrt(shape[1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class WideResnetBlock(nn.Module):
    """Two convolutions, and a shortcut without parameters: mean pooling and zero channels."""

    channels: int
    stride: int
    activate_before_residual: bool
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Embedding) -> FeatureMaps:
        h = norm_relu(self.compute, "init_bn")(x)
        if self.activate_before_residual:
            x = h
        h = conv3x3(self.channels, "conv1", self.stride)(h)
        h = h + nn.Dense(self.channels)(nn.swish(temb))[:, None, None, :].astype(h.dtype)
        h = conv3x3(self.channels, "conv2")(norm_relu(self.compute, "bn_2")(h))
        if x.shape[-1] != self.channels:
            x = nn.avg_pool(x, (self.stride, self.stride), (self.stride, self.stride))
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.channels - x.shape[-1])))
        return x + h


class WideResnetGroup(nn.Module):
    """Blocks of one resolution; the first of them may halve it."""

    blocks: int
    channels: int
    stride: int
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Embedding) -> FeatureMaps:
        for i in range(self.blocks):
            first = i == 0
            block = self.compute.block(WideResnetBlock)(
                self.channels, self.stride if first else 1, first and self.stride == 1, self.compute
            )
            x = block(x, temb)
        return x


@check_arguments
class WideResnet(nn.Module):
    """Logits of images in [0, 1] plus noise of standard deviation `sigma`, both per sample.

    blocks_per_group, channel_multiplier: depth 6 n + 4 and width of the three groups of 16, 32 and 64 channels.
    mean, std: of each channel of the data; the input is standardised by them, and each image by its own after that.
    """

    blocks_per_group: Annotated[int, "[1, inf)"] = 4
    channel_multiplier: Annotated[int, "[1, inf)"] = 10
    num_outputs: Annotated[int, "[1, inf)"] = 10
    mean: Sequence[Annotated[float, "(-inf, inf)"]] = (0.0,)
    std: Sequence[Annotated[float, "(0, inf)"]] = (1.0,)
    compute: Compute = Compute()

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options that this network does not have."""
        check_halvings(image_size, image_width, 2, "the groups of WideResnet")

    @nn.compact
    def __call__(self, x: UnitImages, sigma: PerSample) -> Float[Array, "b k"]:
        if not {len(self.mean), len(self.std)} <= {1, x.shape[-1]}:
            raise UsageError(f"model.mean and model.std must hold one value for each of {x.shape[-1]} channels.")
        x = (x - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        std = jnp.maximum(x.std((1, 2, 3), keepdims=True), 1 / math.sqrt(x[0].size))
        x = (x - x.mean((1, 2, 3), keepdims=True)) / std

        temb = nn.Dense(512)(GaussianFourierProjection(128, 16.0)(sigma))
        temb = nn.Dense(512)(nn.swish(temb))
        x = self.compute.features(conv3x3(16, "init_conv")(x))
        for stride, channels in ((1, 16), (2, 32), (2, 64)):
            x = WideResnetGroup(self.blocks_per_group, channels * self.channel_multiplier, stride, self.compute)(
                x, temb
            )
        x = norm_relu(self.compute, "pre-pool-bn")(x.astype(jnp.float32)).mean((1, 2))
        return nn.Dense(self.num_outputs, kernel_init=_last_init)(x)
