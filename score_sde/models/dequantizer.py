"""The network of variational dequantization."""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import FeatureMaps
from score_sde.config.arguments import check_arguments
from score_sde.models.layers import conv3x3


@check_arguments
class Dequantizer(nn.Module):
    """The dequantizer, images in [-1, 1] -> (mu, s): a shift and a log scale for each number, both 0 at first.

    3x3 convolutions with `num_res_blocks` residual blocks of `nf` channels. Without normalisation, so that an image's
    brightness is kept; images may have any size.
    """

    nf: Annotated[int, "[1, inf)"] = 32
    num_res_blocks: Annotated[int, "[0, inf)"] = 2

    @nn.compact
    def __call__(self, x: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
        h = conv3x3(self.nf)(x)
        for _ in range(self.num_res_blocks):
            h = h + conv3x3(self.nf)(nn.swish(conv3x3(self.nf)(nn.swish(h))))
        zeros = nn.initializers.zeros
        mu, s = jnp.split(nn.Conv(2 * x.shape[-1], (3, 3), kernel_init=zeros)(nn.swish(h)), 2, axis=-1)
        return mu, s
