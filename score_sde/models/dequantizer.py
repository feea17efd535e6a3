"""The network of variational dequantization."""

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import FeatureMaps
from score_sde.errors import UsageError
from score_sde.models.layers import conv3x3


class Dequantizer(nn.Module):
    """The dequantizer, images in [-1, 1] -> (mu, s): a shift and a log scale for each number, both 0 at first.

    3x3 convolutions with `num_res_blocks` residual blocks of `nf` channels. Without normalisation, so that an image's
    brightness is kept; images may have any size.
    """

    nf: int = 32
    num_res_blocks: int = 2

    @nn.compact
    def __call__(self, x: FeatureMaps) -> tuple[FeatureMaps, FeatureMaps]:
        h = conv3x3(self.nf)(x)
        for _ in range(self.num_res_blocks):
            h = h + conv3x3(self.nf)(nn.swish(conv3x3(self.nf)(nn.swish(h))))
        zeros = nn.initializers.zeros
        mu, s = jnp.split(nn.Conv(2 * x.shape[-1], (3, 3), kernel_init=zeros)(nn.swish(h)), 2, axis=-1)
        return mu, s

    def check(self) -> None:
        """Raises `UsageError` for options that it cannot have."""
        if self.nf < 1 or self.num_res_blocks < 0:
            raise UsageError(
                f"dequantizer.nf={self.nf} must be positive, and "
                f"dequantizer.num_res_blocks={self.num_res_blocks} not negative."
            )
