"""NCSN (Song and Ermon, 2019) and NCSNv2 (2020): RefineNets of dilated residual blocks.

The first half lowers the resolution by mean pooling, later by dilation; the second joins its stages, deepest first.
NCSN has a gain, shift and mean-gain for each noise level in every normalisation ("Cond..." blocks); NCSNv2 does not see
the noise level at all; its parameterization divides the output by sigma.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, FeatureMaps, Int, Keys, ModelImages, PerSample
from score_sde.cond import Cond
from score_sde.config.arguments import check_arguments
from score_sde.errors import one_of
from score_sde.models.compute import Compute, Conv
from score_sde.models.layers import ACTIVATIONS, check_halvings, pytorch_init
from score_sde.models.resampling import mean_downsample

Level = Int[Array, " b"] | None  # index of the noise level, None in NCSNv2
INTERPOLATIONS = {"bilinear": "bilinear", "nearest_neighbor": "nearest"}


def conv(x: FeatureMaps, features: int, *, kernel: int = 3, dilation: int = 1, use_bias: bool = True) -> FeatureMaps:
    """A convolution with kernel and bias uniform within 1 / sqrt(fan_in), as in PyTorch.

    Call it inside a compact method.
    """
    init = pytorch_init(kernel * kernel * x.shape[-1])
    return Conv(features, (kernel, kernel), kernel_dilation=dilation, use_bias=use_bias, **init)(x)


def _near_one(key, shape, dtype=jnp.float32):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _instance_norm_plus(x: FeatureMaps, gamma, alpha, beta) -> FeatureMaps:
    """InstanceNorm++: each channel normalised over pixels, plus alpha times its mean, normalised over channels."""
    kind, x = x.dtype, x.astype(jnp.float32)
    mean = x.mean((1, 2), keepdims=True)
    h = (x - mean) * jax.lax.rsqrt(x.var((1, 2), keepdims=True) + 1e-5)
    across = (mean - mean.mean(-1, keepdims=True)) * jax.lax.rsqrt(mean.var(-1, keepdims=True) + 1e-5)
    return ((h + across * alpha) * gamma + beta).astype(kind)


class InstanceNorm2dPlus(nn.Module):
    """InstanceNorm++ with one gain and shift a channel. Variances are biased, also that across channels."""

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        shape = (1, 1, 1, x.shape[-1])
        alpha = self.param("alpha", _near_one, shape)
        gamma = self.param("gamma", _near_one, shape)
        return _instance_norm_plus(x, gamma, alpha, self.param("beta", nn.initializers.zeros, shape, jnp.float32))


class ConditionalInstanceNorm2dPlus(nn.Module):
    """InstanceNorm++ with a gain and shift for each of `num_levels` noise levels."""

    num_levels: int

    @nn.compact
    def __call__(self, x: FeatureMaps, level: Level) -> FeatureMaps:
        def init(key, shape, dtype=jnp.float32):
            gains = _near_one(key, (shape[0], shape[1] // 3 * 2), dtype)
            return jnp.concatenate([gains, jnp.zeros((shape[0], shape[1] // 3), dtype)], axis=-1)

        embedding = nn.Embed(self.num_levels, 3 * x.shape[-1], embedding_init=init)(level)
        return _instance_norm_plus(x, *jnp.split(embedding[:, None, None, :], 3, axis=-1))


def normalize(x: FeatureMaps, level: Level, num_levels: int) -> FeatureMaps:
    """InstanceNorm++, with parameters for each noise level if there are levels; call it inside a compact method."""
    if level is None:
        return InstanceNorm2dPlus()(x)
    return ConditionalInstanceNorm2dPlus(num_levels)(x, level)


class ConvMeanPool(nn.Module):
    """Convolution, then means of 2x2 pixels."""

    features: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        return mean_downsample(Conv(self.features, (self.kernel, self.kernel))(x))


class ResidualBlock(nn.Module):
    """Two convolutions with a residual connection; `down` lowers the resolution, by means or by dilation."""

    act: Callable
    features: int
    dilation: int
    down: bool
    num_levels: int = 0

    @nn.compact
    def __call__(self, x: FeatureMaps, level: Level) -> FeatureMaps:
        def convolve(h, features):
            return conv(h, features, dilation=self.dilation)

        h = self.act(normalize(x, level, self.num_levels))
        h = convolve(h, x.shape[-1] if self.down else self.features)
        h = self.act(normalize(h, level, self.num_levels))
        if not self.down:
            return convolve(h, self.features) + x
        if self.dilation > 1:
            return convolve(h, self.features) + convolve(x, self.features)
        return ConvMeanPool(self.features)(h) + ConvMeanPool(self.features, kernel=1)(x)


class RCUBlock(nn.Module):
    """Residual convolution unit: `n_blocks` times two convolutions with a residual connection."""

    act: Callable
    n_blocks: int
    features: int
    num_levels: int = 0

    @nn.compact
    def __call__(self, x: FeatureMaps, level: Level) -> FeatureMaps:
        for _ in range(self.n_blocks):
            h = x
            for _ in range(2):
                h = h if level is None else normalize(h, level, self.num_levels)
                h = conv(self.act(h), self.features, use_bias=False)
            x = x + h
        return x


class MSFBlock(nn.Module):
    """Multi-resolution fusion: a convolution of each input, resized to the first one's size, and summed."""

    features: int
    interpolation: str
    num_levels: int = 0

    @nn.compact
    def __call__(self, xs: Sequence[FeatureMaps], level: Level) -> FeatureMaps:
        total, size = 0.0, xs[0].shape[1:3]
        for x in xs:
            x = x if level is None else normalize(x, level, self.num_levels)
            h = conv(x, self.features)
            shape = (h.shape[0], *size, self.features)
            total = total + jax.image.resize(h, shape, INTERPOLATIONS[self.interpolation])
        return total


# The blocks repeat the fields and lines that they share, because Flax names leaves by class and order of calls.
class CRPBlock(nn.Module):
    """Chained residual pooling: 5x5 pooling and convolution, twice; the results of both are added."""

    act: Callable
    features: int
    num_levels: int = 0

    @nn.compact
    def __call__(self, x: FeatureMaps, level: Level) -> FeatureMaps:
        x = path = self.act(x)
        for _ in range(2):
            if level is None:
                path = nn.max_pool(path, (5, 5), padding="SAME")
            else:
                path = nn.avg_pool(normalize(path, level, self.num_levels), (5, 5), padding="SAME")
            path = conv(path, self.features, use_bias=False)
            x = x + path
        return x


# The blocks under their names in NCSN.


class ConditionalResidualBlock(ResidualBlock):
    """`ResidualBlock` under its name in NCSN, which parameters of checkpoints have."""


class CondRCUBlock(RCUBlock):
    """`RCUBlock` under its name in NCSN, which parameters of checkpoints have."""


class CondMSFBlock(MSFBlock):
    """`MSFBlock` under its name in NCSN, which parameters of checkpoints have."""


class CondCRPBlock(CRPBlock):
    """`CRPBlock` under its name in NCSN, which parameters of checkpoints have."""


class RefineBlock(nn.Module):
    """Refinement block: joins inputs of several resolutions at that of the first."""

    act: Callable
    features: int
    interpolation: str
    end: bool
    num_levels: int = 0

    @nn.compact
    def __call__(self, xs: Sequence[FeatureMaps], level: Level) -> FeatureMaps:
        rcu, msf, crp = (RCUBlock, MSFBlock, CRPBlock) if level is None else (CondRCUBlock, CondMSFBlock, CondCRPBlock)
        common = dict(features=self.features, num_levels=self.num_levels)
        xs = [rcu(self.act, 2, x.shape[-1], self.num_levels)(x, level) for x in xs]
        h = msf(interpolation=self.interpolation, **common)(xs, level) if len(xs) > 1 else xs[0]
        h = crp(self.act, **common)(h, level)
        return rcu(self.act, 3 if self.end else 1, **common)(h, level)


class CondRefineBlock(RefineBlock):
    """`RefineBlock` under its name in NCSN, which parameters of checkpoints have."""


class Stage(NamedTuple):
    """A stage of one resolution: factors on nf on the way down and in the block that refines it, and the dilation."""

    down: int
    refine: int
    dilation: int = 1


SMALL = (Stage(1, 1), Stage(2, 2), Stage(2, 2, dilation=2), Stage(2, 2, dilation=4))
MEDIUM = (Stage(1, 1), Stage(2, 1), Stage(2, 2), Stage(4, 2, dilation=2), Stage(4, 4, dilation=4))
LARGE = (Stage(1, 1), Stage(2, 1), Stage(2, 2), Stage(2, 2), Stage(4, 2, dilation=2), Stage(4, 4, dilation=4))


@check_arguments
class RefineNet(nn.Module):
    """Base of NCSN and the three NCSNv2; none has dropout. nf: channels at full resolution."""

    nf: Annotated[int, "[1, inf)"] = 128
    nonlinearity: str = "elu"
    interpolation: str = "bilinear"
    compute: Compute = Compute()

    stages = SMALL

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options that this network does not have."""
        one_of("model.nonlinearity", self.nonlinearity, ACTIVATIONS)
        one_of("model.interpolation", self.interpolation, INTERPOLATIONS)
        halvings = sum(stage.dilation == 1 for stage in self.stages[1:])
        check_halvings(image_size, image_width, halvings, f"the undilated stages of {type(self).__name__}")

    def refine(self, x: ModelImages, level: Level, num_levels: int) -> ModelImages:
        """The whole network; call it inside a compact method."""
        act = ACTIVATIONS[self.nonlinearity]
        residual, refine = (
            (ResidualBlock, RefineBlock) if level is None else (ConditionalResidualBlock, CondRefineBlock)
        )
        residual, refine = self.compute.block(residual), self.compute.block(refine)

        h = self.compute.features(conv(x, self.nf))
        layers = []
        for stage in self.stages:
            for down in (stage is not self.stages[0], False):
                h = residual(act, stage.down * self.nf, stage.dilation, down, num_levels)(h, level)
            layers.append(h)

        h = None
        for stage, layer in reversed(list(zip(self.stages, layers, strict=True))):
            end = stage is self.stages[0]
            block = refine(act, stage.refine * self.nf, self.interpolation, end, num_levels)
            h = block([layer] if h is None else [layer, h], level)
        return conv(act(normalize(h, level, num_levels)).astype(x.dtype), x.shape[-1])


@check_arguments
class NCSNv2(RefineNet):
    """NCSNv2 for images below 96 pixels. It ignores `noise_cond`."""

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        return self.refine(x, None, 0)


@check_arguments
class NCSNv2_128(NCSNv2):  # noqa: N801 (the paper's name)
    """NCSNv2 for images of 96 to 128 pixels."""

    stages = MEDIUM


@check_arguments
class NCSNv2_256(NCSNv2):  # noqa: N801
    """NCSNv2 for images of 129 to 256 pixels."""

    stages = LARGE


@check_arguments
class NCSN(RefineNet):
    """NCSN; `noise_cond` is the index of one of `num_levels` noise levels, 0 the highest."""

    num_levels: Annotated[int, "[1, inf)"] = 10

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        return self.refine(x, noise_cond.astype(jnp.int32), self.num_levels)
