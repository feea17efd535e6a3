"""DiT (Peebles and Xie, 2022, https://arxiv.org/abs/2212.09748): a transformer over patches with adaLN-Zero blocks.

The embedding of the noise level and of the class shifts, scales and gates the branches of every block. All gates and
the last layer start at zero, so that a fresh network is zero everywhere.

    from score_sde.models import DiT

    small = DiT(patch_size=2, width=384, depth=12, num_heads=6)  # DiT-S/2
    small.check(32)
"""

import functools
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Keys, ModelImages, PerSample
from score_sde.cond import Cond, Entry
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.compute import Compute
from score_sde.models.encoders import encoded, taken_entries
from score_sde.models.transformer import (
    MLP,
    Linears,
    Mask,
    Patches,
    PerRow,
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

ForAll = Float[Array, "b 1 c"]  # the same for all tokens
EPSILON = 1e-6  # of normalisations
SINUSOIDS = 256  # of the noise level
INIT = nn.initializers.normal(0.02)
LINEAR = Linears(nn.initializers.xavier_uniform())
EMBEDDING = Linears(INIT)
ZERO = Linears(nn.initializers.zeros)


def grid_positions(rows: int, columns: int, dim: int) -> Float[Array, "n d"]:
    """The embeddings of the places of a grid, row by row: [sin, cos] of the column, then [sin, cos] of the row.

    Frequencies are 10000^(-4j / dim) for j < dim / 4, which must be whole.
    """
    frequencies = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))

    def line(length: int) -> Float[Array, "n d"]:
        angles = np.arange(length)[:, None] * frequencies
        return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), jnp.float32)

    of_column, of_row = (line(columns)[None], line(rows)[:, None])
    halves = [jnp.broadcast_to(half, (rows, columns, dim // 2)) for half in (of_column, of_row)]
    return jnp.concatenate(halves, axis=-1).reshape(rows * columns, dim)


def modulation(embedding: PerRow, parts: int, features: int, dtype: Any) -> list[ForAll]:
    """Vectors for all tokens by a linear map of the embedding that starts at zero; call it inside a compact method."""
    maps = ZERO(parts * features, name="adaLN_modulation")(nn.silu(embedding))
    return jnp.split(maps[:, None].astype(dtype), parts, axis=-1)


class DiTBlock(nn.Module):
    """Self-attention and an MLP of tokens that the embedding shifts and scales, with gated residual connections."""

    num_heads: int
    mlp_ratio: float
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(self, x: Sequence, embedding: PerRow, mask: Mask | None, dropout_keys: Keys | None) -> Sequence:
        attention = SelfAttention(self.num_heads, LINEAR, compute=self.compute, name="attn")
        mlp = MLP(nn.gelu, self.mlp_ratio, LINEAR, self.dropout, name="mlp")
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulation(embedding, 6, x.shape[-1], x.dtype)
        h = normalized(x, EPSILON, learned=False) * (1 + scale) + shift
        x = x + gate * attention(h, mask)
        h = normalized(x, EPSILON, learned=False) * (1 + scale_mlp) + shift_mlp
        return x + gate_mlp * mlp(h, dropout_keys)


class FinalLayer(nn.Module):
    """A linear map of shifted and scaled tokens that starts at zero."""

    features: int

    @nn.compact
    def __call__(self, x: Sequence, embedding: PerRow) -> Patches:
        shift, scale = modulation(embedding, 2, x.shape[-1], x.dtype)
        return ZERO(self.features, name="linear")(normalized(x, EPSILON, learned=False) * (1 + scale) + shift)


@check_arguments
class DiT(nn.Module):
    """DiT, with an MLP of 256 sinusoids of `noise_cond`; the publishers' is a step from 0 to 999.

    patch_size: height and width of a patch, which divides those of the images. width: features of a token, a multiple
    of 4. depth: blocks. num_heads: heads of attention, which divide the width. mlp_ratio: width of the inner layer of
    each MLP over that of a token. dropout: of these layers; the publishers have none. learned_variance: whether the
    last layer also gives a variance for each number, which is left out. num_classes: number of classes in the
    condition's `labels`, or 0; null is a learned row. encoder: of other entries of the condition
    (`score_sde.models.encoders`); its vector is added to the embedding, and its tokens are attended to as patches are.
    dropout_keys: one for each image, in training.

        import jax
        import jax.numpy as jnp
        from score_sde.models import DiT

        network = DiT(patch_size=2, width=64, depth=2, num_heads=4, num_classes=10)
        network.check(8)
        arguments = jnp.zeros((2, 8, 8, 3)), jnp.ones(2), {"labels": jnp.array([3, 7])}  # x, noise_cond, cond
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)["params"]
    """

    patch_size: Annotated[int, "[1, inf)"] = 2
    width: Annotated[int, "[1, inf)"] = 384
    depth: Annotated[int, "[1, inf)"] = 12
    num_heads: Annotated[int, "[1, inf)"] = 6
    mlp_ratio: Annotated[float, "(0, inf)"] = 4.0
    dropout: Annotated[float, "[0, 1)"] = 0.0
    learned_variance: bool = False
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
        if self.width % 4:
            raise UsageError(
                f"DiT's positions are sines and cosines of rows and of columns; set model.width={self.width} to a "
                "multiple of 4."
            )

    @nn.compact
    def __call__(
        self, x: ModelImages, noise_cond: PerSample, cond: Cond | None = None, *, dropout_keys: Keys | None = None
    ) -> ModelImages:
        size, (height, width, c) = self.patch_size, x.shape[1:]
        told = encoded(self.encoder, cond, len(x))
        embedding = self._embed(noise_cond, cond, told.vector)
        h = LINEAR(self.width, name="x_embedder")(patches_of(x, size))
        num_patches = h.shape[1]
        h = h + grid_positions(height // size, width // size, self.width)
        if told.tokens is not None:
            h = jnp.concatenate([LINEAR(self.width, name="context_embedder")(told.tokens), h], axis=1)
        mask = seen(told.mask, h.shape[1])

        options = (self.num_heads, self.mlp_ratio, self.dropout, self.compute)
        block, h = functools.partial(self.compute.block(DiTBlock), *options), self.compute.features(h)
        for i in range(self.depth):
            h = block(name=f"blocks_{i}")(h, embedding, mask, dropout_keys)
        h, outputs = h[:, -num_patches:].astype(x.dtype), c * (2 if self.learned_variance else 1)
        h = FinalLayer(size * size * outputs, name="final_layer")(h, embedding)
        return image_of(h, size, (height, width, outputs))[..., :c]

    def _embed(self, noise_cond: PerSample, cond: Cond | None, vector: Float[Array, "b _"] | None) -> PerRow:
        """Embedding of the noise level, the class and the condition's vector; called inside the compact method."""
        embedding = nn.silu(EMBEDDING(self.width, name="t_embedder_0")(timestep_embedding(noise_cond, SINUSOIDS)))
        embedding = EMBEDDING(self.width, name="t_embedder_2")(embedding)
        if self.num_classes:
            n = len(noise_cond)
            embedding = embedding + label_rows(cond, self.cond_entries, n, self.width, INIT, "y_embedder")
        return embedding if vector is None else embedding + EMBEDDING(self.width, name="of_encoder")(vector)
