"""EDM2's magnitude-preserving U-Net, its "config G" (Karras et al., 2024, https://arxiv.org/abs/2312.02696, figure 21).

It has no biases and no group normalisation: weights, pixels and attention's keys are normalised instead, and sums and
concatenations are weighted, so that activations keep their size through the network (`score_sde.models.magnitude`).
"""

from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, FeatureMaps, Float, Keys, ModelImages, PerSample, PyTree
from score_sde.cond import Cond, Entry, read
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models import magnitude
from score_sde.models.compute import Compute
from score_sde.models.cross_attention import MPCrossAttention, check_encoder
from score_sde.models.encoders import Encoded, encoded_for_unet, taken_entries
from score_sde.models.layers import Dropout, check_halvings
from score_sde.models.magnitude import MPFourier, MPLinear
from score_sde.models.resampling import mean_downsample, nearest_upsample

Embedding = Float[Array, "b d"]

# Constants of all networks that were published.
RESIDUAL, ATTENTION = 0.3, 0.3  # shares of a residual branch, and of attention, in their sums
CONCAT, LABEL = 0.5, 0.5  # shares of the skip connection in a concatenation, and of a condition in the embedding
LARGEST = 256.0  # activations after each block are clipped at it


def attended(x: FeatureMaps, heads: int) -> FeatureMaps:
    """Features and cosine self-attention over all pixels; call it inside a compact method.

    Queries, keys and values have unit magnitude in each head, so that a logit is a cosine times sqrt(channels).
    """
    b, h, w, c = x.shape
    qkv = MPLinear(3 * c, (1, 1), name="attn_qkv")(x).reshape(b, h * w, heads, c // heads, 3)
    q, k, v = jnp.moveaxis(magnitude.normalize(qkv, (3,)), -1, 0)
    logits = jnp.einsum("bnhc,bmhc->bhnm", q, k / (c // heads) ** 0.5, preferred_element_type=jnp.float32)
    y = jnp.einsum("bhnm,bmhc->bnhc", jax.nn.softmax(logits).astype(v.dtype), v)
    return magnitude.add(x, MPLinear(c, (1, 1), name="attn_proj")(y.reshape(x.shape)), ATTENTION)


class Block(nn.Module):
    """A residual block, with attention to pixels after it if it has heads, and to a condition's tokens by cross_heads.

    encoder: whether it is of the encoder, which maps and normalises pixels before both branches; the decoder's maps
    pixels on the skip branch alone. resample: "", "down" or "up", before all else.
    """

    features: int
    encoder: bool
    heads: int
    cross_heads: int
    dropout: float
    resample: str = ""

    @nn.compact
    def __call__(
        self, x: FeatureMaps, embedding: Embedding, embedded: Encoded, dropout_keys: Keys | None
    ) -> FeatureMaps:
        def mapped(x: FeatureMaps) -> FeatureMaps:
            return x if x.shape[-1] == self.features else MPLinear(self.features, (1, 1), name="conv_skip")(x)

        if self.resample:
            x = mean_downsample(x) if self.resample == "down" else nearest_upsample(x)
        if self.encoder:
            x = magnitude.normalize(mapped(x), (3,))

        y = MPLinear(self.features, (3, 3), name="conv_res0")(magnitude.silu(x))
        gain = self.param("emb_gain", nn.initializers.zeros, (), jnp.float32)
        scale = MPLinear(self.features, name="emb_linear")(embedding, gain) + 1
        y = magnitude.silu(y * scale[:, None, None].astype(y.dtype))
        y = Dropout(self.dropout)(y, dropout_keys)
        y = MPLinear(self.features, (3, 3), name="conv_res1")(y)

        x = magnitude.add(x if self.encoder else mapped(x), y, RESIDUAL)
        x = attended(x, self.heads) if self.heads else x
        if self.cross_heads:
            x = MPCrossAttention(self.cross_heads, name="cross")(x, embedded.tokens, embedded.mask)
        return jnp.clip(x, -LARGEST, LARGEST)


@check_arguments
class EDM2UNet(nn.Module):
    """EDM2's magnitude-preserving U-Net. `noise_cond`: log(sigma) / 4, of the parameterization `edm`.

    nf: channels of the first level; ch_mult: factors on it, one per level; attn_resolutions: heights with attention,
    besides the lowest level. head_channels: channels of each head. num_classes: number of classes in the
    condition's `labels`, or 0; the null label is the zero vector in the place of a one-hot one. Height and width of the
    images must be divisible by 2 ** (len(ch_mult) - 1). encoder: of other entries of the condition
    (`score_sde.models.encoders`), whose vector and tokens are normalised; cross_resolutions: heights at which pixels
    attend to its tokens, with cross_heads heads, after self-attention or where it would be. The published networks have
    neither. dropout_keys: one for each image, in training.

    Training calls `normalized` after each update; without it the network learns otherwise, and not as published.

        import jax
        import jax.numpy as jnp
        from score_sde.models import EDM2UNet

        network = EDM2UNet(nf=64, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), num_classes=10)
        network.check(8)
        arguments = jnp.zeros((2, 8, 8, 3)), jnp.zeros(2), {"labels": jnp.array([3, 7])}  # x, noise_cond, cond
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    """

    nf: Annotated[int, "[1, inf)"] = 192
    ch_mult: Sequence[Annotated[int, "[1, inf)"]] = (1, 2, 3, 4)
    num_res_blocks: Annotated[int, "[1, inf)"] = 3
    attn_resolutions: Sequence[Annotated[int, "[1, inf)"]] = (16, 8)
    head_channels: Annotated[int, "[1, inf)"] = 64
    dropout: Annotated[float, "[0, 1)"] = 0.0
    num_classes: Annotated[int, "[0, inf)"] = 0
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
        if not self.ch_mult:
            raise UsageError("model.ch_mult=() must hold one positive integer a level, like (1, 2, 3, 4).")
        halvings = len(self.ch_mult) - 1
        check_halvings(image_size, image_width, halvings, f"the {halvings + 1} levels of model.ch_mult")
        check_encoder(self, image_size)
        for level, multiple in enumerate(self.ch_mult):
            attends = level == halvings or image_size >> level in self.attn_resolutions
            if attends and self.nf * multiple % self.head_channels:
                raise UsageError(
                    f"The {self.nf * multiple} channels of level {level} do not split into heads of "
                    f"model.head_channels={self.head_channels}; set that to a divisor of them."
                )

    def normalized(self, params: PyTree) -> PyTree:
        """The parameters with the rows of all weights at their fixed norm: see `magnitude.forced`.

        The published code does this at the start of the next forward pass in training, so that its averages see the
        weights before it, and ours those after it.
        """
        return magnitude.forced(params)

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        embedded = encoded_for_unet(self.encoder, cond, len(x), attends=bool(self.cross_resolutions))
        embedding, last = self._embed(noise_cond, cond, embedded.vector), len(self.ch_mult) - 1
        cls = self.compute.block(Block)

        def block(name: str, h: FeatureMaps, level: int, *, attends: bool | None = None, resample: str = ""):
            height = x.shape[1] >> level
            crosses = attends is not False and height in self.cross_resolutions
            if attends is None:
                attends = height in self.attn_resolutions
            channels = h.shape[-1] if resample else self.nf * self.ch_mult[level]
            heads = channels // self.head_channels if attends else 0, self.cross_heads if crosses else 0
            made = cls(channels, name.startswith("enc"), *heads, self.dropout, resample, name=name)
            return made(h, embedding, embedded, dropout_keys)

        # Encoder: the output of each of its layers is a skip connection.
        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)  # the ones take the place of a bias
        h = self.compute.features(MPLinear(self.nf, (3, 3), name="enc0_conv")(h))
        skips = [h]
        for level in range(last + 1):
            if level:
                h = block(f"enc{level}_down", h, level, attends=False, resample="down")
                skips.append(h)
            for i in range(self.num_res_blocks):
                h = block(f"enc{level}_block{i}", h, level)
                skips.append(h)

        # Decoder.
        h = block(f"dec{last}_in0", h, last, attends=True)
        h = block(f"dec{last}_in1", h, last, attends=False)
        for level in reversed(range(last + 1)):
            if level != last:
                h = block(f"dec{level}_up", h, level, attends=False, resample="up")
            for i in range(self.num_res_blocks + 1):
                h = block(f"dec{level}_block{i}", magnitude.concatenate(h, skips.pop(), CONCAT), level)
        gain = self.param("out_gain", nn.initializers.zeros, (), jnp.float32)
        return MPLinear(x.shape[-1], (3, 3), name="out_conv")(h.astype(x.dtype), gain)

    def _embed(self, noise_cond: PerSample, cond: Cond | None, vector: Float[Array, "b v"] | None) -> Embedding:
        """The embedding of noise level, class and the encoder's vector; called inside the compact method."""
        width = self.nf * max(self.ch_mult)
        features = MPFourier(self.nf * self.ch_mult[0], name="emb_fourier")(noise_cond)
        embedding = MPLinear(width, name="emb_noise")(features)
        if self.num_classes:
            labels, null = read(cond, self.cond_entries, "labels", len(noise_cond))
            one_hot = jax.nn.one_hot(jnp.where(null, -1, labels), self.num_classes)  # of -1: zeros
            of_class = MPLinear(width, name="emb_label")(one_hot * self.num_classes**0.5)
            embedding = magnitude.add(embedding, of_class, LABEL)
        if vector is not None:
            of_encoder = MPLinear(width, name="emb_encoder")(magnitude.normalize(vector, (1,)))
            embedding = magnitude.add(embedding, of_encoder, LABEL)
        return magnitude.silu(embedding)
