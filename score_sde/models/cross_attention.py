"""Cross-attention of U-Nets: each pixel reads from the tokens of a condition, by attention of several heads.

It follows self-attention, or stands in its place, at the heights of `cross_resolutions`. The branch starts at zero, so
that a fresh network computes the same as one without it. Four heads are the default, because 4 divides the channels of
every network of the NCSN++ family, and a caption names several things of an image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import FeatureMaps
from score_sde.errors import UsageError
from score_sde.models import magnitude
from score_sde.models.compute import Compute
from score_sde.models.layers import GroupNorm
from score_sde.models.magnitude import MPLinear
from score_sde.models.transformer import Linears, Mask, Sequence, check_heads, normalized

EPSILON = 1e-6  # of the normalisation of tokens
LINEAR = Linears()
ZERO = Linears(nn.initializers.zeros)


class CrossAttention(nn.Module):
    """Cross-attention x + y, where pixels read y from tokens: a linear map of softmax(q k^T / sqrt(d)) v of the heads.

    q is a map of the pixel's normalised features, k and v of the tokens, normalised too. groups: of the normalisation
    of pixels, as of `GroupNorm`. mask: tokens that may be read; None: all.
    """

    heads: int
    groups: int | None
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps, tokens: Sequence, mask: Mask | None) -> FeatureMaps:
        b, height, width, c = x.shape
        pixels = GroupNorm(self.compute, groups=self.groups, name="norm")(x).reshape(b, height * width, c)
        tokens = normalized(tokens, EPSILON, learned=False).astype(x.dtype)
        inputs = {"q": pixels, "k": tokens, "v": tokens}
        maps = (LINEAR(c, use_bias=False, name=name)(h) for name, h in inputs.items())
        q, k, v = (each.reshape(b, -1, self.heads, c // self.heads) for each in maps)
        h = self.compute.attend_heads(q, k, v, None if mask is None else mask[:, None, None, :])
        return x + ZERO(c, name="out")(h.reshape(b, height * width, c)).reshape(x.shape)


class MPCrossAttention(nn.Module):
    """Cross-attention of magnitude-preserving layers: queries, keys and values have unit magnitude in each head.

    The result is (x + g y) / sqrt(1 + g^2) for features x and what their pixels read, y, with a learned g, at first 0.
    """

    heads: int

    @nn.compact
    def __call__(self, x: FeatureMaps, tokens: Sequence, mask: Mask | None) -> FeatureMaps:
        b, height, width, c = x.shape
        tokens = magnitude.normalize(tokens, (2,)).astype(x.dtype)
        inputs = {"q": x.reshape(b, height * width, c), "k": tokens, "v": tokens}
        maps = (MPLinear(c, name=name)(h) for name, h in inputs.items())
        heads = (each.reshape(b, -1, self.heads, c // self.heads) for each in maps)
        q, k, v = (magnitude.normalize(each, (3,)) for each in heads)
        y = jax.nn.dot_product_attention(q, k, v, mask=None if mask is None else mask[:, None, None, :])
        y = MPLinear(c, name="out")(y.reshape(x.shape))
        gain = self.param("gain", nn.initializers.zeros, (), jnp.float32)
        total = jnp.sqrt(1 + jnp.square(gain))
        return x * (1 / total).astype(x.dtype) + y * (gain / total).astype(x.dtype)


def check_encoder(network: nn.Module, image_size: int) -> None:
    """Raises `UsageError` unless a U-Net can take what its encoder gives: by the noise level, and at its heights."""
    heights, encoder = tuple(network.cross_resolutions), network.encoder
    if encoder is not None and not getattr(network, "conditional", True):
        raise UsageError("The encoder's output enters with the noise level; set model.conditional=True.")
    if heights and encoder is None:
        raise UsageError(
            f"At model.cross_resolutions={heights} the network attends to an encoder's tokens; set encoder.name=text, "
            "sequence or tokens, or model.cross_resolutions=()."
        )
    channels = {image_size >> level: network.nf * multiple for level, multiple in enumerate(network.ch_mult)}
    for height in heights:
        if height not in channels:
            raise UsageError(
                f"model.cross_resolutions={heights} has {height}, and no feature map of the network is so high; choose "
                f"from {', '.join(map(str, channels))}."
            )
        of = f"the {channels[height]} channels at height {height} of model.cross_resolutions"
        check_heads(f"model.cross_heads={network.cross_heads}", network.cross_heads, of, channels[height])
