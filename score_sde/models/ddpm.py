"""The U-Net of DDPM (Ho et al., 2020); in the paper's form, with attention once per level on the way up.

NCSN++ extends it. It has no FIR filters, pyramids or rescaled skips; positional embeddings; always 32 channel groups.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import Array, FeatureMaps, Float, Keys, ModelImages, PerSample
from score_sde.cond import Cond, Entry
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.compute import Compute
from score_sde.models.cross_attention import CrossAttention, check_encoder
from score_sde.models.encoders import encoded_for_unet, taken_entries
from score_sde.models.layers import (
    ACTIVATIONS,
    NIN,
    Downsample,
    Dropout,
    GroupNorm,
    Upsample,
    add_embedding,
    attention,
    check_unet,
    conv3x3,
    embedding_mlp,
    sinusoidal_embedding,
)

GROUPS = 32


class AttnBlock(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        return x + attention(GroupNorm(self.compute, groups=GROUPS)(x), 0.0, self.compute)


class ResnetBlockDDPM(nn.Module):
    """Two convolutions, the embedding between them, and a residual connection."""

    act: Callable
    features: int
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Float[Array, "b d"] | None, dropout_keys: Keys | None) -> FeatureMaps:
        h = conv3x3(self.features)(GroupNorm(self.compute, self.act, GROUPS)(x))
        h = add_embedding(h, temb, self.act)
        h = GroupNorm(self.compute, self.act, GROUPS)(h)
        h = Dropout(self.dropout)(h, dropout_keys)
        h = conv3x3(self.features, init_scale=0.0)(h)
        return h + (x if x.shape[-1] == self.features else NIN(self.features)(x))


@check_arguments
class DDPM(nn.Module):
    """The U-Net of DDPM, with a positional embedding of `noise_cond`.

    nf: channels of the first level, a multiple of 32; ch_mult: factors on it, one per level; attn_resolutions: heights
    with attention. attention_up: blocks of such a level that attention follows on the way up: the last, as in the
    paper, or each, as in Ho et al. (2020). Height and width of the images must be divisible by 2 ** (len(ch_mult) - 1).
    encoder: of a condition (`score_sde.models.encoders`); cross_resolutions: heights at which pixels attend to its
    tokens, with cross_heads heads, after self-attention or where it would be. dropout_keys: one for each image, in
    training.
    """

    nf: Annotated[int, "[1, inf)"] = 128
    ch_mult: Sequence[Annotated[int, "[1, inf)"]] = (1, 2, 2, 2)
    num_res_blocks: Annotated[int, "[1, inf)"] = 2
    attn_resolutions: Sequence[Annotated[int, "[1, inf)"]] = (16,)
    dropout: Annotated[float, "[0, 1)"] = 0.1
    nonlinearity: str = "swish"
    conditional: bool = True
    resamp_with_conv: bool = True
    attention_up: Literal["last", "each"] = "last"
    encoder: nn.Module | None = None
    cross_resolutions: Sequence[Annotated[int, "[1, inf)"]] = ()
    cross_heads: Annotated[int, "[1, inf)"] = 4
    compute: Compute = Compute()

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """The entries of a condition that this network takes."""
        return taken_entries(0, self.encoder)

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options this network does not have."""
        check_unet(self, image_size, image_width)
        if self.nf % GROUPS:
            raise UsageError(f"model.nf={self.nf} must be a positive multiple of {GROUPS}: DDPM has {GROUPS} groups.")
        check_encoder(self, image_size)

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        act, compute, of = ACTIVATIONS[self.nonlinearity], self.compute, self.compute.block
        temb = embedding_mlp(sinusoidal_embedding(noise_cond, self.nf), self.nf, act) if self.conditional else None
        embedded = encoded_for_unet(self.encoder, cond, len(x), attends=bool(self.cross_resolutions))
        if embedded.vector is not None:
            temb = temb + nn.Dense(temb.shape[-1], name="of_encoder")(embedded.vector)

        def block(h, features):
            return of(ResnetBlockDDPM)(act, features, self.dropout, compute)(h, temb, dropout_keys)

        def attend(h, *, always=False):
            if always or h.shape[1] in self.attn_resolutions:
                h = of(AttnBlock)(compute)(h)
            if h.shape[1] in self.cross_resolutions:
                h = of(CrossAttention)(self.cross_heads, GROUPS, compute)(h, embedded.tokens, embedded.mask)
            return h

        skips = [compute.features(conv3x3(self.nf)(x))]
        for level, multiple in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                skips.append(attend(block(skips[-1], self.nf * multiple)))
            if level != len(self.ch_mult) - 1:
                skips.append(Downsample(with_conv=self.resamp_with_conv)(skips[-1]))

        h = block(skips[-1], skips[-1].shape[-1])
        h = attend(h, always=True)
        h = block(h, h.shape[-1])

        for level, multiple in reversed(list(enumerate(self.ch_mult))):
            for i in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), self.nf * multiple)
                if i == self.num_res_blocks or self.attention_up == "each":
                    h = attend(h)
            if level != 0:
                h = Upsample(with_conv=self.resamp_with_conv)(h)
        return conv3x3(x.shape[-1], init_scale=0.0)(GroupNorm(compute, act, GROUPS)(h).astype(x.dtype))
