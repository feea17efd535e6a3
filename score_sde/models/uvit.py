"""U-ViT (Bao et al., 2022, https://arxiv.org/abs/2209.12152): a transformer over patches with the U-Net's long skips.

The noise level, the class, and a condition's vector are one token each, beside the patches and a condition's tokens.
The first half of the blocks leave their outputs to the second half, in reverse order.

    from score_sde.models import UViT

    cifar10 = UViT(patch_size=2, width=512, depth=12, num_heads=8)  # U-ViT-S/2
    cifar10.check(32)
"""

import functools
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Keys, ModelImages, PerSample
from score_sde.cond import Cond, Entry
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.compute import Compute, Conv
from score_sde.models.encoders import encoded, taken_entries
from score_sde.models.layers import pytorch_init
from score_sde.models.transformer import (
    MLP,
    Linears,
    Mask,
    Patches,
    SelfAttention,
    Sequence,
    check_transformer,
    image_of,
    label_rows,
    normalized,
    patches_of,
    seen,
    timestep_embedding,
)

EPSILON = 1e-5  # of normalisations
INIT = nn.initializers.normal(0.02)
LINEAR = Linears(INIT)
gelu = functools.partial(nn.gelu, approximate=False)


class UViTBlock(nn.Module):
    """Self-attention and an MLP, each of normalised tokens and with a residual connection.

    skip: the output of an earlier block, of which one linear map with x makes the input.
    """

    num_heads: int
    mlp_ratio: float
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(self, x: Sequence, skip: Sequence | None, mask: Mask | None, dropout_keys: Keys | None) -> Sequence:
        norm = functools.partial(normalized, epsilon=EPSILON, learned=True)
        attention = SelfAttention(self.num_heads, LINEAR, qkv_bias=False, compute=self.compute, name="attn")
        mlp = MLP(gelu, self.mlp_ratio, LINEAR, self.dropout, name="mlp")
        if skip is not None:
            x = LINEAR(x.shape[-1], name="skip_linear")(jnp.concatenate([x, skip], axis=-1))
        x = x + attention(norm(x, name="norm1"), mask)
        return x + mlp(norm(x, name="norm2"), dropout_keys)


@check_arguments
class UViT(nn.Module):
    """U-ViT, with sinusoids of `noise_cond` as a token; the publishers' is 999 t.

    patch_size: height and width of a patch, which divides those of the images. width: features of a token. depth:
    blocks besides the middle one, an even number. num_heads: heads of attention, which divide the width. mlp_ratio:
    width of the inner layer of each MLP over that of a token. dropout: of these layers; the publishers have none. skip:
    whether there are long skip connections. conv: whether a 3x3 convolution of the image is last. mlp_time_embed:
    whether an MLP precedes the noise level's token. num_classes: number of classes in the condition's `labels`, or 0;
    null is a learned row. encoder: of other entries of the condition (`score_sde.models.encoders`). dropout_keys: one
    for each image, in training.

        import jax
        import jax.numpy as jnp
        from score_sde.models import UViT

        network = UViT(patch_size=2, width=64, depth=2, num_heads=4, num_classes=10)
        network.check(8)
        arguments = jnp.zeros((2, 8, 8, 3)), jnp.ones(2), {"labels": jnp.array([3, 7])}  # x, noise_cond, cond
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    """

    patch_size: Annotated[int, "[1, inf)"] = 2
    width: Annotated[int, "[1, inf)"] = 512
    depth: Annotated[int, "[0, inf)"] = 12
    num_heads: Annotated[int, "[1, inf)"] = 8
    mlp_ratio: Annotated[float, "(0, inf)"] = 4.0
    dropout: Annotated[float, "[0, 1)"] = 0.0
    skip: bool = True
    conv: bool = True
    mlp_time_embed: bool = False
    num_classes: Annotated[int, "[0, inf)"] = 0
    encoder: nn.Module | None = None
    compute: Compute = Compute()

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """The entries of a condition that this network takes."""
        return taken_entries(self.num_classes, self.encoder)

    def check(self, image_size: int, image_width: int | None = None) -> None:
        """Raises `UsageError` for options that this network does not have."""
        check_transformer(self.width, self.num_heads, self.patch_size, image_size, image_width)
        if self.depth % 2:
            raise UsageError(
                f"Half of U-ViT's blocks skip to the other half, so set model.depth={self.depth} to an even number; "
                "one more block is in the middle."
            )

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        patches = patches_of(x, self.patch_size)
        n, num_patches, numbers = patches.shape
        told = encoded(self.encoder, cond, n)
        h = jnp.concatenate([*self._extras(noise_cond, cond, told.vector), self._embed(patches)], axis=1)
        h = h + self.param("pos_embed", INIT, (1, h.shape[1], self.width))
        if told.tokens is not None:
            h = jnp.concatenate([LINEAR(self.width, name="context_embed")(told.tokens), h], axis=1)
        mask = seen(told.mask, h.shape[1])

        options = (self.num_heads, self.mlp_ratio, self.dropout, self.compute)
        block = functools.partial(self.compute.block(UViTBlock), *options)
        h, skips = self.compute.features(h), []
        for i in range(self.depth // 2):
            h = block(name=f"in_blocks_{i}")(h, None, mask, dropout_keys)
            skips.append(h)
        h = block(name="mid_block")(h, None, mask, dropout_keys)
        for i in range(self.depth // 2):
            earlier = skips.pop() if self.skip else None
            h = block(name=f"out_blocks_{i}")(h, earlier, mask, dropout_keys)

        h = normalized(h[:, -num_patches:].astype(x.dtype), EPSILON, learned=True, name="norm")
        image = image_of(LINEAR(numbers, name="decoder_pred")(h), self.patch_size, x.shape[1:])
        if not self.conv:
            return image
        c = x.shape[-1]
        return Conv(c, (3, 3), padding="SAME", name="final_layer", **pytorch_init(9 * c))(image)

    def _embed(self, patches: Patches) -> Sequence:
        """A token for each patch; called inside the compact method."""
        return Linears(**pytorch_init(patches.shape[-1]))(self.width, name="patch_embed")(patches)

    def _extras(
        self, noise_cond: PerSample, cond: Cond | None, vector: Float[Array, "b _"] | None
    ) -> list[Float[Array, "b 1 c"]]:
        """Tokens of the class, of the condition's vector and of the noise level, one each."""
        tokens, normal = [], nn.initializers.normal(1.0)
        if self.num_classes:
            n = len(noise_cond)
            tokens.append(label_rows(cond, self.cond_entries, n, self.width, normal, "label_emb"))
        if vector is not None:
            tokens.append(LINEAR(self.width, name="of_encoder")(vector))
        time = timestep_embedding(noise_cond, self.width)
        if self.mlp_time_embed:
            time = nn.silu(LINEAR(4 * self.width, name="time_embed_0")(time))
            time = LINEAR(self.width, name="time_embed_2")(time)
        return [token[:, None] for token in [*tokens, time]]
