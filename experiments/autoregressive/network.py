"""A causal transformer over the bytes of images: at each position, logits of the byte there from those before it.

Blocks normalise before attention and before the MLP (GPT-2). Positions are learned. The sequence begins with a start
token, one for each class if there are classes. The last layer begins at zero, so that at first all bytes are equally
likely.
"""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Int, Keys, Labels
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.compute import Compute
from score_sde.models.layers import Dropout
from score_sde.models.transformer import MLP, SelfAttention, Sequence, normalized

Tokens = Int[Array, "b n"]
Logits = Float[Array, "b n levels"]
Position = Int[Array, ""]
EPSILON = 1e-5  # of normalisations
SMALL = nn.initializers.normal(0.02)


class Block(nn.Module):
    """Causal attention and an MLP, each added to what it is computed from."""

    num_heads: int
    length: int
    dropout: float
    compute: Compute

    @nn.compact
    def __call__(self, x: Sequence, dropout_keys: Keys | None, at: Position | None) -> Sequence:
        attention = SelfAttention(self.num_heads, causal=True, length=self.length, compute=self.compute)
        h = attention(normalized(x, EPSILON, learned=True), at=at)
        x = x + Dropout(self.dropout)(h, dropout_keys)
        h = MLP(nn.gelu)(normalized(x, EPSILON, learned=True))
        return x + Dropout(self.dropout)(h, dropout_keys)


@check_arguments
class PixelTransformer(nn.Module):
    """Logits of the byte at each of `length` positions, from the bytes at earlier ones.

    levels: the bytes are 0 ... levels - 1. width: numbers of a token, a multiple of num_heads. depth: number of blocks.
    num_classes: number of classes of `labels`, or 0. dropout_keys: one for each image, in training.

    tokens: bytes (b, n), n at most `length`. With `at`, a position, tokens (b, 1) are the bytes before it, and the
    logits (b, 1, levels) are those at it; the collection `cache` keeps what later positions need. Raises `UsageError`
    for more tokens than positions.

        import jax
        import jax.numpy as jnp
        from score_sde.experiments.autoregressive.network import PixelTransformer

        network, tokens = PixelTransformer(length=4, levels=2, width=8, depth=1, num_heads=2), jnp.array([[0, 1, 1, 0]])
        params = network.init(jax.random.key(0), tokens)["params"]
        logits = network.apply({"params": params}, tokens)  # (1, 4, 2), zeros at first
    """

    length: Annotated[int, "[1, inf)"]
    levels: Annotated[int, "[2, 256]"] = 256
    width: Annotated[int, "[1, inf)"] = 64
    depth: Annotated[int, "[1, inf)"] = 3
    num_heads: Annotated[int, "[1, inf)"] = 4
    num_classes: Annotated[int, "[0, inf)"] = 0
    dropout: Annotated[float, "[0, 1)"] = 0.0
    compute: Compute = Compute()

    @nn.compact
    def __call__(
        self,
        tokens: Tokens,
        *,
        labels: Labels | None = None,
        dropout_keys: Keys | None = None,
        at: Position | None = None,
    ) -> Logits:
        b, n = tokens.shape
        if n > self.length:
            raise UsageError(f"The transformer has {self.length} positions, and here are {n} tokens; give fewer.")
        bytes_ = self.param("bytes", SMALL, (self.levels, self.width))
        positions = self.param("positions", SMALL, (self.length, self.width))
        starts = self.param("starts", SMALL, (max(1, self.num_classes), self.width))
        start = starts[jnp.zeros(b, jnp.int32) if labels is None else labels][:, None]
        if at is None:
            h = jnp.concatenate([start, bytes_[tokens[:, :-1]]], axis=1) + positions[:n]
        else:
            h = jnp.where(at == 0, start, bytes_[tokens]) + jax.lax.dynamic_slice_in_dim(positions, at, 1)
        h = self.compute.features(Dropout(self.dropout)(h, dropout_keys))
        block = self.compute.block(Block)
        for i in range(self.depth):
            h = block(self.num_heads, self.length, self.dropout, self.compute, name=f"block_{i}")(h, dropout_keys, at)
        h = normalized(h.astype(jnp.float32), EPSILON, learned=True)
        return nn.Dense(self.levels, kernel_init=nn.initializers.zeros)(h)
