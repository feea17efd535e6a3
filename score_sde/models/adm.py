"""ADM's U-Net (Dhariwal and Nichol, 2021), in the forms that OpenAI and EDM (Karras et al., 2022) released.

It differs from DDPM's in these points: heads of 64 channels in attention, which follows every block of its resolutions;
the noise level's embedding scales and shifts normalised features; residual blocks resample. Classes add a learned
vector to the embedding, which is zero for the null label. The two publishers name and order the same parameters
differently: see `score_sde.inference.adm_layout`.

    from score_sde.models import ADM

    imagenet64 = ADM(nf=192, ch_mult=(1, 2, 3, 4), attn_resolutions=(32, 16, 8), num_classes=1000)  # of both publishers
    imagenet64.check(64)
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float, Keys, ModelImages, PerSample
from score_sde.cond import Cond, Entry, read
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models import resampling
from score_sde.models.compute import Compute, Conv, Dense, as_input
from score_sde.models.cross_attention import CrossAttention, check_encoder
from score_sde.models.encoders import augment_labels, encoded_for_unet, taken_entries
from score_sde.models.layers import ACTIVATIONS, Dropout, GroupNorm, check_unet, pytorch_init, upsampled_conv3x3

Embedding = Float[Array, "b d"]
EPSILON = 1e-5  # of normalisations
ZERO = dict(kernel_init=nn.initializers.zeros, bias_init=nn.initializers.zeros)


def conv(x: FeatureMaps, features: int, *, kernel: int = 3, stride: int = 1) -> FeatureMaps:
    """A convolution that starts as in PyTorch, with zeros around the image; call it inside a compact method."""
    pad, init = (kernel // 2,) * 2, pytorch_init(kernel * kernel * x.shape[-1])
    return Conv(features, (kernel, kernel), (stride, stride), padding=(pad, pad), **init)(x)


def linear(x: Array, features: int) -> Array:
    """A linear map that starts as in PyTorch, in the type of x; call it inside a compact method."""
    return Dense(features, promote_dtype=as_input, **pytorch_init(x.shape[-1]))(x)


def positional_embedding(noise_cond: PerSample, dim: int) -> Embedding:
    """[cos, sin](noise_cond f_j), f_j = 10000^(-2j / dim) from 1 to above 1/10000, zero-padded if `dim` is odd.

    Frequencies are rounded as in OpenAI's training, because noise_cond is up to 999 there.
    """
    half = dim // 2
    exponents = np.float32(-np.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    angles = noise_cond[:, None] * jnp.asarray(np.exp(exponents))[None, :]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class ResnetBlockADM(nn.Module):
    """A residual block that the embedding scales and shifts, or shifts alone, and that may resample.

    Resampling, of both branches, comes before the first convolution.
    """

    act: Callable
    features: int
    dropout: float
    scale_shift: bool
    groups: int | None
    compute: Compute
    up: bool = False
    down: bool = False

    @nn.compact
    def __call__(self, x: FeatureMaps, temb: Embedding, dropout_keys: Keys | None) -> FeatureMaps:
        h = GroupNorm(self.compute, self.act, self.groups, EPSILON)(x)
        if self.down:
            h, x = resampling.mean_downsample(h), resampling.mean_downsample(x)
        if self.up:
            h = upsampled_conv3x3(self.features, **pytorch_init(9 * h.shape[-1]))(h)
            x = resampling.nearest_upsample(x)
        else:
            h = conv(h, self.features)
        parts = linear(temb, self.features * (2 if self.scale_shift else 1))[:, None, None, :].astype(h.dtype)
        if self.scale_shift:
            scale, shift = jnp.split(parts, 2, axis=-1)
            h = GroupNorm(self.compute, groups=self.groups, epsilon=EPSILON)(h)
            h = self.act(h * (1 + scale) + shift)
        else:
            h = GroupNorm(self.compute, self.act, self.groups, EPSILON)(h + parts)
        h = Dropout(self.dropout)(h, dropout_keys)
        h = Conv(self.features, (3, 3), padding="SAME", **ZERO)(h)
        return h + (x if x.shape[-1] == self.features else conv(x, self.features, kernel=1))


class AttnBlockADM(nn.Module):
    """Self-attention of several heads over all pixels, with a residual connection.

    One linear map makes queries, keys and values, in this order; each is split into heads of consecutive channels.
    """

    heads: int
    groups: int | None
    compute: Compute

    @nn.compact
    def __call__(self, x: FeatureMaps) -> FeatureMaps:
        b, height, width, c = x.shape
        h = GroupNorm(self.compute, groups=self.groups, epsilon=EPSILON)(x)
        maps = linear(h.reshape(b, height * width, c), 3 * c)
        maps = maps.reshape(b, height * width, 3, self.heads, c // self.heads)
        q, k, v = (part.swapaxes(1, 2).reshape(b * self.heads, height * width, -1) for part in jnp.moveaxis(maps, 2, 0))
        h = self.compute.attend(q, k, v).reshape(b, self.heads, height * width, -1)
        h = Dense(c, promote_dtype=as_input, **ZERO)(h.swapaxes(1, 2).reshape(b, height * width, c))
        return x + h.reshape(x.shape)


@check_arguments
class ADM(nn.Module):
    """ADM's U-Net, with a positional embedding of `noise_cond`.

    nf, ch_mult: channels of a level are nf times its factor; attn_resolutions: heights with attention. Height and width
    of the images must be divisible by 2 ** (len(ch_mult) - 1). num_heads: heads of attention, or 0 for one for each
    `head_channels` channels. resblock_type: "biggan" for residual blocks that resample, "ddpm" for layers between them,
    with a convolution if `resamp_with_conv`. scale_shift: whether the embedding also scales. num_groups: groups of
    normalisations, or 0 for one for each 4 channels, at most 32. embedding_size: features of the noise level's
    positional embedding, a fourth of the width of its layers, or 0 for nf. learned_variance: whether the last
    convolution also gives a variance for each number, which is left out. num_classes: number of classes in the
    condition's `labels`, or 0; the null embedding is the zero vector. augment_dim: length of the labels of
    augmentations, `augment`, of which None are zeros; 0: none. encoder: of other entries of the condition
    (`score_sde.models.encoders`); cross_resolutions: heights at which pixels attend to its tokens, with cross_heads
    heads, after self-attention or where it would be. dropout_keys: one for each image, in training.

        import jax
        import jax.numpy as jnp
        from score_sde.models import ADM

        network = ADM(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), head_channels=32, num_classes=10)
        network.check(8)
        arguments = jnp.zeros((2, 8, 8, 3)), jnp.ones(2), {"labels": jnp.array([3, 7])}  # x, noise_cond, cond
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    """

    nf: Annotated[int, "[1, inf)"] = 192
    ch_mult: Sequence[Annotated[int, "[1, inf)"]] = (1, 2, 3, 4)
    num_res_blocks: Annotated[int, "[1, inf)"] = 3
    attn_resolutions: Sequence[Annotated[int, "[1, inf)"]] = (32, 16, 8)
    dropout: Annotated[float, "[0, 1)"] = 0.1
    nonlinearity: str = "swish"
    num_heads: Annotated[int, "[0, inf)"] = 0
    head_channels: Annotated[int, "[1, inf)"] = 64
    resblock_type: Literal["ddpm", "biggan"] = "biggan"
    resamp_with_conv: bool = True
    scale_shift: bool = True
    num_groups: Annotated[int, "[0, inf)"] = 0
    embedding_size: Annotated[int, "[0, inf)"] = 0
    learned_variance: bool = False
    num_classes: Annotated[int, "[0, inf)"] = 0
    augment_dim: Annotated[int, "[0, inf)"] = 0
    encoder: nn.Module | None = None
    cross_resolutions: Sequence[Annotated[int, "[1, inf)"]] = ()
    cross_heads: Annotated[int, "[1, inf)"] = 4
    compute: Compute = Compute()

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """The entries of a condition that this network takes."""
        return taken_entries(self.num_classes, self.encoder)

    def heads(self, channels: int) -> int:
        """Number of heads of attention over so many channels. Raises `UsageError` unless they divide the channels."""
        heads = self.num_heads or channels // self.head_channels
        if not heads or channels % heads or (not self.num_heads and channels % self.head_channels):
            option = f"num_heads={self.num_heads}" if self.num_heads else f"head_channels={self.head_channels}"
            raise UsageError(
                f"model.{option} does not divide the {channels} channels of a level with attention; choose a divisor "
                f"of model.nf={self.nf}."
            )
        return heads

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options that this network does not have."""
        check_unet(self, image_size, image_width)
        check_encoder(self, image_size)
        widths = [self.nf * multiple for multiple in self.ch_mult]
        for level, width in enumerate(widths):
            if image_size >> level in self.attn_resolutions or level == len(widths) - 1:
                self.heads(width)
            if width % (self.num_groups or max(min(width // 4, 32), 1)):
                rule = f"model.num_groups={self.num_groups}" if self.num_groups else "32 groups, or one for 4 channels,"
                raise UsageError(
                    f"The {width} channels of a level do not split into {rule}; choose model.nf={self.nf} as a "
                    f"multiple of {self.num_groups or (32 if width >= 128 else 4)}."
                )

    @nn.compact
    def __call__(
        self,
        x: ModelImages,
        noise_cond: PerSample,
        cond: Cond | None = None,
        *,
        dropout_keys: Keys | None = None,
        augment: Float[Array, "b k"] | None = None,
    ) -> ModelImages:
        act, compute, of = ACTIVATIONS[self.nonlinearity], self.compute, self.compute.block
        groups, last = self.num_groups or None, len(self.ch_mult) - 1
        embedded = encoded_for_unet(self.encoder, cond, len(x), attends=bool(self.cross_resolutions))
        temb = self._embed(noise_cond, cond, embedded.vector, augment, act)

        def block(h, features, **direction):
            options = dict(dropout=self.dropout, scale_shift=self.scale_shift, groups=groups, compute=compute)
            return of(ResnetBlockADM)(act, features, **options, **direction)(h, temb, dropout_keys)

        def attend(h, *, always=False):
            if always or h.shape[1] in self.attn_resolutions:
                h = of(AttnBlockADM)(self.heads(h.shape[-1]), groups, compute)(h)
            if h.shape[1] in self.cross_resolutions:
                h = of(CrossAttention)(self.cross_heads, groups, compute)(h, embedded.tokens, embedded.mask)
            return h

        def stage(h, features):
            return attend(block(h, features))

        def down(h):
            if self.resblock_type == "biggan":
                return block(h, h.shape[-1], down=True)
            return conv(h, h.shape[-1], stride=2) if self.resamp_with_conv else resampling.mean_downsample(h)

        def up(h):
            c = h.shape[-1]
            if self.resblock_type == "biggan":
                return block(h, c, up=True)
            return (
                upsampled_conv3x3(c, **pytorch_init(9 * c))(h)
                if self.resamp_with_conv
                else resampling.nearest_upsample(h)
            )

        skips = [compute.features(conv(x, self.nf * self.ch_mult[0]))]
        for level, multiple in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                skips.append(stage(skips[-1], self.nf * multiple))
            if level != last:
                skips.append(down(skips[-1]))

        h = block(skips[-1], skips[-1].shape[-1])
        h = block(attend(h, always=True), h.shape[-1])

        for level, multiple in reversed(list(enumerate(self.ch_mult))):
            for _ in range(self.num_res_blocks + 1):
                h = stage(jnp.concatenate([h, skips.pop()], axis=-1), self.nf * multiple)
            if level != 0:
                h = up(h)
        h = GroupNorm(compute, act, groups, EPSILON)(h).astype(x.dtype)
        h = Conv(x.shape[-1] * (2 if self.learned_variance else 1), (3, 3), padding="SAME", **ZERO)(h)
        return h[..., : x.shape[-1]]

    def _embed(
        self,
        noise_cond: PerSample,
        cond: Cond | None,
        vector: Float[Array, "b v"] | None,
        augment: Float[Array, "b k"] | None,
        act: Callable,
    ) -> Embedding:
        """Embedding of noise level, augmentation, class and the encoder's vector; called inside the compact method."""
        size, n = self.embedding_size or self.nf, len(noise_cond)
        temb = positional_embedding(noise_cond, size)
        augment = augment_labels(augment, self.augment_dim, n)
        if augment is not None:
            temb = temb + nn.Dense(size, use_bias=False, kernel_init=ZERO["kernel_init"], name="of_augment")(augment)
        temb = linear(act(linear(temb, 4 * size)), 4 * size)
        if self.num_classes:
            labels, null = read(cond, self.cond_entries, "labels", n)
            rows = nn.Embed(self.num_classes, 4 * size, embedding_init=nn.initializers.normal(1.0))(labels)
            temb = temb + jnp.where(null[:, None], 0, rows)
        if vector is not None:
            temb = temb + nn.Dense(4 * size, name="of_encoder")(vector)
        return act(temb)
