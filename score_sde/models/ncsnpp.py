"""NCSN++ and DDPM++ (paper, section 4.1 and appendix H): one U-Net with switches.

DDPM++ has positional embeddings, nearest / box resampling and no progressive branches; NCSN++ has FIR resampling and a
residual input pyramid, and under the continuous VE SDE a random Fourier embedding of log sigma.

EDM's DDPM++ and NCSN++ (Karras et al., 2022, appendix F) are the same networks on two or three levels, in which classes
and the labels of augmentations enter linearly, before the layers that embed the noise condition: `label_embedding`,
`augment_dim`, and `embedding_type="fourier_linear"` for a noise condition that is a logarithm already.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, FeatureMaps, Float, Keys, Labels, ModelImages, PerSample
from score_sde.cond import Cond, Entry, read
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models import resampling
from score_sde.models.compute import Compute
from score_sde.models.cross_attention import CrossAttention, check_encoder
from score_sde.models.encoders import augment_labels, encoded_for_unet, taken_entries
from score_sde.models.layers import (
    ACTIVATIONS,
    NIN,
    Downsample,
    Dropout,
    GaussianFourierProjection,
    GroupNorm,
    Upsample,
    add_embedding,
    attention,
    check_unet,
    conv1x1,
    conv3x3,
    dense,
    embedding_mlp,
    rescaled,
    sinusoidal_embedding,
    upsampled_conv3x3,
)

Embedding = Float[Array, "b d"]
Augment = Float[Array, "b a"]  # labels of augmentations


class AttnBlockpp(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    skip_rescale: bool
    init_scale: float
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        h = x + attention(GroupNorm(self.compute)(x), self.init_scale, self.compute)
        return rescaled(h) if self.skip_rescale else h


# Modules repeat the fields that they share: Flax names leaves by class, and a reader sees all of a block at once.
class ResnetBlockDDPMpp(nn.Module):
    """The residual block of DDPM."""

    act: Callable
    features: int
    dropout: float
    skip_rescale: bool
    init_scale: float
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Embedding | None, dropout_keys: Keys | None) -> FeatureMaps:
        h = conv3x3(self.features)(GroupNorm(self.compute, self.act)(x))
        h = add_embedding(h, temb, self.act)
        h = GroupNorm(self.compute, self.act)(h)
        h = Dropout(self.dropout)(h, dropout_keys)
        h = conv3x3(self.features, init_scale=self.init_scale)(h)
        if x.shape[-1] != self.features:
            x = NIN(self.features)(x)
        return rescaled(x + h) if self.skip_rescale else x + h


class ResnetBlockBigGANpp(nn.Module):
    """The residual block of BigGAN, which also resamples, in both branches before the first convolution."""

    act: Callable
    features: int
    dropout: float
    skip_rescale: bool
    init_scale: float
    compute: Compute
    fir: bool
    fir_kernel: Sequence[float]
    up: bool = False
    down: bool = False

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Embedding | None, dropout_keys: Keys | None) -> FeatureMaps:
        h = GroupNorm(self.compute, self.act)(x)
        if self.down:
            h, x = self._downsample(h), self._downsample(x)
        if self.up and self.fir:
            h = self._upsample(h)
        h = (upsampled_conv3x3 if self.up and not self.fir else conv3x3)(self.features)(h)
        h = add_embedding(h, temb, self.act)
        h = GroupNorm(self.compute, self.act)(h)
        h = Dropout(self.dropout)(h, dropout_keys)
        h = conv3x3(self.features, init_scale=self.init_scale)(h)
        if x.shape[-1] != self.features or self.up or self.down:
            x = (conv1x1(self.features, self._upsample) if self.up else conv1x1(self.features))(x)
        return rescaled(x + h) if self.skip_rescale else x + h

    def _upsample(self, x: FeatureMaps) -> FeatureMaps:
        return resampling.fir_upsample(x, self.fir_kernel) if self.fir else resampling.nearest_upsample(x)

    def _downsample(self, x: FeatureMaps) -> FeatureMaps:
        return resampling.fir_downsample(x, self.fir_kernel) if self.fir else resampling.mean_downsample(x)


class Combine(nn.Module):
    """Joins the input pyramid to the features: 1x1 convolution, then sum or concatenation."""

    method: str

    @nn.compact
    def __call__(self, pyramid: FeatureMaps, h: FeatureMaps) -> FeatureMaps:
        p = conv1x1(h.shape[-1])(pyramid).astype(h.dtype)
        return jnp.concatenate([p, h], axis=-1) if self.method == "cat" else p + h


@check_arguments
class NCSNpp(nn.Module):
    """The U-Net of NCSN++ and DDPM++. `noise_cond`: sigma for "fourier" embeddings, a scaled time for "positional".

    nf: channels of the first level; ch_mult: factors on it, one per level; attn_resolutions: heights with attention.
    Height and width of the images must be divisible by 2 ** (len(ch_mult) - 1). num_classes: number of classes in the
    condition's `labels`, or 0. label_embedding: "table", whose last row is the null embedding, or "linear", where
    null is the zero vector. augment_dim: length of the labels of augmentations, `augment`, which come in training only;
    0: none. learned_variance: the last convolution also gives a variance for each number, which is left out.
    encoder: of other entries of the condition (`score_sde.models.encoders`); cross_resolutions: heights at which pixels
    attend to its tokens, with cross_heads heads, after self-attention or where it would be. dropout_keys: one for each
    image, in training.

        import jax
        import jax.numpy as jnp
        from score_sde.models import NCSNpp

        network = NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), num_classes=10)
        network.check(8)
        arguments = jnp.zeros((2, 8, 8, 3)), jnp.ones(2), {"labels": jnp.array([3, 7])}  # x, noise_cond, cond
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    """

    nf: Annotated[int, "[1, inf)"] = 128
    ch_mult: Sequence[Annotated[int, "[1, inf)"]] = (1, 2, 2, 2)
    num_res_blocks: Annotated[int, "[1, inf)"] = 4
    attn_resolutions: Sequence[Annotated[int, "[1, inf)"]] = (16,)
    dropout: Annotated[float, "[0, 1)"] = 0.1
    nonlinearity: str = "swish"
    conditional: bool = True
    embedding_type: Literal["fourier", "fourier_linear", "positional"] = "fourier"
    fourier_scale: Annotated[float, "(0, inf)"] = 16.0
    resblock_type: Literal["ddpm", "biggan"] = "biggan"
    resamp_with_conv: bool = True
    fir: bool = True
    fir_kernel: Sequence[Annotated[float, "(-inf, inf)"]] = (1, 3, 3, 1)
    skip_rescale: bool = True
    progressive: Literal["none", "output_skip", "residual"] = "none"
    progressive_input: Literal["none", "input_skip", "residual"] = "none"
    progressive_combine: Literal["sum", "cat"] = "sum"
    init_scale: Annotated[float, "[0, inf)"] = 0.0
    num_classes: Annotated[int, "[0, inf)"] = 0
    label_embedding: Literal["table", "linear"] = "table"
    augment_dim: Annotated[int, "[0, inf)"] = 0
    learned_variance: bool = False
    encoder: nn.Module | None = None
    cross_resolutions: Sequence[Annotated[int, "[1, inf)"]] = ()
    cross_heads: Annotated[int, "[1, inf)"] = 4
    compute: Compute = Compute()

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """The entries of a condition that this network takes."""
        return taken_entries(self.num_classes, self.encoder)

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options that this network does not have."""
        check_unet(self, image_size, image_width)
        if self.fir and (len(self.fir_kernel) < 2 or not sum(self.fir_kernel) > 0):
            raise UsageError(f"model.fir_kernel={tuple(self.fir_kernel)} needs two taps or more with a positive sum.")
        if self.nf % 4:
            raise UsageError(f"model.nf={self.nf} must be a positive multiple of 4 (a channel group holds at least 4).")
        if self.num_classes and not self.conditional:
            raise UsageError(
                f"model.num_classes={self.num_classes}: labels enter with the noise level; set model.conditional=True."
            )
        if self.augment_dim and not self.conditional:
            raise UsageError(
                f"model.augment_dim={self.augment_dim}: labels of augmentations enter with the noise level; set "
                "model.conditional=True."
            )
        check_encoder(self, image_size)

    @nn.compact
    def __call__(
        self,
        x: ModelImages,
        noise_cond: PerSample,
        cond: Cond | None = None,
        *,
        dropout_keys: Keys | None = None,
        augment: Augment | None = None,
    ) -> ModelImages:
        act, compute, of = ACTIVATIONS[self.nonlinearity], self.compute, self.compute.block
        channels, levels = x.shape[-1], len(self.ch_mult)
        outputs = 2 * channels if self.learned_variance else channels
        temb = self._embed(noise_cond, act, cond, augment)
        if self.num_classes and self.label_embedding == "table":
            temb = temb + nn.Embed(self.num_classes + 1, temb.shape[-1])(self._classes(cond, len(x)))
        embedded = encoded_for_unet(self.encoder, cond, len(x), attends=bool(self.cross_resolutions))
        if embedded.vector is not None:
            temb = temb + nn.Dense(temb.shape[-1], name="of_encoder")(embedded.vector)

        def resample(module, features=None, with_conv=False):
            return module(features, with_conv, self.fir, self.fir_kernel)

        def block(h, features, **direction):
            kwargs = dict(act=act, features=features, dropout=self.dropout, skip_rescale=self.skip_rescale)
            kwargs |= dict(init_scale=self.init_scale, compute=compute)
            if self.resblock_type == "ddpm":
                return of(ResnetBlockDDPMpp)(**kwargs)(h, temb, dropout_keys)
            kwargs |= dict(fir=self.fir, fir_kernel=self.fir_kernel)
            return of(ResnetBlockBigGANpp)(**kwargs, **direction)(h, temb, dropout_keys)

        def attention(h, *, always=False):
            if always or h.shape[1] in self.attn_resolutions:
                h = of(AttnBlockpp)(self.skip_rescale, self.init_scale, compute)(h)
            if h.shape[1] in self.cross_resolutions:
                h = of(CrossAttention)(self.cross_heads, None, compute)(h, embedded.tokens, embedded.mask)
            return h

        def rescale(h):
            return rescaled(h) if self.skip_rescale else h

        def to_image(h, features, init_scale):
            return conv3x3(features, init_scale=init_scale)(GroupNorm(compute, act)(h).astype(x.dtype))

        # Down: push features on the stack of skips, resample, and join the input pyramid.
        pyramid = x if self.progressive_input != "none" else None
        skips = [compute.features(conv3x3(self.nf)(x))]
        for level, multiple in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                skips.append(attention(block(skips[-1], self.nf * multiple)))
            if level != levels - 1:
                if self.resblock_type == "ddpm":
                    h = resample(Downsample, with_conv=self.resamp_with_conv)(skips[-1])
                else:
                    h = block(skips[-1], skips[-1].shape[-1], down=True)
                if self.progressive_input == "input_skip":
                    pyramid = resample(Downsample)(pyramid)
                    h = Combine(self.progressive_combine)(pyramid, h)
                elif self.progressive_input == "residual":
                    pyramid = compute.features(resample(Downsample, h.shape[-1], with_conv=True)(pyramid))
                    h = pyramid = rescale(pyramid + h)
                skips.append(h)

        # Middle.
        h = block(skips[-1], skips[-1].shape[-1])
        h = attention(h, always=True)
        h = block(h, h.shape[-1])

        # Up: pop the skips, join them by concatenation, and build the output pyramid.
        pyramid = None
        for level, multiple in reversed(list(enumerate(self.ch_mult))):
            for _ in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), self.nf * multiple)
            h = attention(h)
            if self.progressive == "output_skip":
                if pyramid is None:
                    pyramid = to_image(h, outputs, self.init_scale)
                else:
                    pyramid = resample(Upsample)(pyramid)
                    pyramid = pyramid + to_image(h, outputs, self.init_scale)
            elif self.progressive == "residual":
                if pyramid is None:
                    pyramid = compute.features(to_image(h, h.shape[-1], 1.0))
                else:
                    pyramid = resample(Upsample, h.shape[-1], with_conv=True)(pyramid)
                    h = pyramid = rescale(pyramid + h)
            if level != 0:
                h = (
                    resample(Upsample, with_conv=self.resamp_with_conv)(h)
                    if self.resblock_type == "ddpm"
                    else block(h, h.shape[-1], up=True)
                )
        assert not skips
        output = pyramid if self.progressive == "output_skip" else to_image(h, outputs, self.init_scale)
        return output[..., :channels] if self.learned_variance else output

    def _classes(self, cond: Cond | None, n: int) -> Labels:
        """The class of each sample; null is `num_classes`, a row of its own in a table."""
        labels, null = read(cond, self.cond_entries, "labels", n)
        return jnp.where(null, self.num_classes, labels)

    def _embed(
        self, noise_cond: PerSample, act: Callable, cond: Cond | None = None, augment: Augment | None = None
    ) -> Embedding | None:
        """Embedding of noise level, and of what enters with it linearly: classes, and labels of augmentations.

        Called inside the compact method, so that its layers are numbered first.
        """
        if self.embedding_type == "positional":
            temb = sinusoidal_embedding(noise_cond, self.nf)
        else:
            takes_log = self.embedding_type == "fourier"
            temb = GaussianFourierProjection(self.nf, self.fourier_scale, takes_log)(noise_cond)
        if self.num_classes and self.label_embedding == "linear":
            one_hot = jax.nn.one_hot(self._classes(cond, len(temb)), self.num_classes)  # null is zero
            temb = temb + dense(temb.shape[-1], name="of_labels")(math.sqrt(self.num_classes) * one_hot)
        augment = augment_labels(augment, self.augment_dim, len(temb))
        if augment is not None:
            temb = temb + dense(temb.shape[-1], use_bias=False, name="of_augment")(augment)
        return embedding_mlp(temb, self.nf, act) if self.conditional else None
