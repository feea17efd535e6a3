"""Encoders of text: a small transformer over tokens, trained with the network, and a map of features computed before.

import jax
import jax.numpy as jnp
from score_sde.models import ENCODERS

encoder = ENCODERS["text"](vocab_size=257, max_tokens=8, features=16, depth=1, num_heads=2)
encoder.check()
cond = {"tokens": jnp.array([[72, 105, 256]]), "tokens_mask": jnp.ones((1, 3), bool)}
encoded, params = encoder.init_with_output(jax.random.key(0), cond, 1)
encoded.vector, encoded.tokens, encoded.mask  # of shapes (1, 16), (1, 8, 16) and (1, 8)
"""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from score_sde.cond import MASK, Cond, Entry
from score_sde.config.arguments import check_arguments
from score_sde.models.compute import Compute
from score_sde.models.encoders import Encoded, padded, pooled, token_entries
from score_sde.models.transformer import MLP, Linears, Mask, SelfAttention, Sequence, check_heads, normalized

EPSILON = 1e-5  # of normalisations
INIT = nn.initializers.normal(0.02)
LINEAR = Linears(INIT)
NULL = nn.initializers.normal(1.0)  # of the size of normalised tokens


class TextBlock(nn.Module):
    """Self-attention and an MLP, each of normalised tokens and with a residual connection."""

    num_heads: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Sequence, mask: Mask) -> Sequence:
        attention = SelfAttention(self.num_heads, LINEAR, compute=self.compute, name="attn")
        x = x + attention(normalized(x, EPSILON, learned=True, name="norm1"), mask)
        return x + MLP(nn.gelu, linear=LINEAR, name="mlp")(normalized(x, EPSILON, learned=True, name="norm2"))


@check_arguments
class TextEncoder(nn.Module):
    """A transformer over tokens and their places, in which no token attends to padding; the vector is their mean.

    vocab_size: tokens are 0, 1, ..., vocab_size - 1. max_tokens: greatest length of a sequence, to which all are
    padded. features: width of a token. depth: blocks. num_heads: heads of attention, which divide the width. The
    condition's entries are `tokens`, int32 (b, L), and `tokens_mask`, bool (b, L), True where there is a token. The
    null condition is one learned token. Raises `UsageError` for more than max_tokens.
    """

    vocab_size: Annotated[int, "[1, inf)"]
    max_tokens: Annotated[int, "[1, inf)"] = 32
    features: Annotated[int, "[1, inf)"] = 128
    depth: Annotated[int, "[1, inf)"] = 2
    num_heads: Annotated[int, "[1, inf)"] = 4
    compute: Compute = Compute()

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """Tokens and their mask."""
        return token_entries(self.vocab_size)

    def check(self) -> None:
        """Raises `UsageError` unless the heads divide the width."""
        heads, of = f"encoder.num_heads={self.num_heads}", f"encoder.features={self.features}"
        check_heads(heads, self.num_heads, of, self.features)

    @nn.compact
    def __call__(self, cond: Cond | None, n: int) -> Encoded:
        tokens, mask, null = padded(cond, self.cond_entries, "tokens", n, self.max_tokens)
        table = nn.Embed(self.vocab_size, self.features, embedding_init=INIT, name="table")
        h = self.compute.features(table(tokens) + self.param("places", INIT, (self.max_tokens, self.features)))
        for i in range(self.depth):
            h = self.compute.block(TextBlock)(self.num_heads, self.compute, name=f"blocks_{i}")(h, mask)
        h = normalized(h.astype(jnp.float32), EPSILON, learned=True, name="norm")
        return pooled(h, mask, null, self.param("null", NULL, (self.features,)))


@check_arguments
class SequenceEncoder(nn.Module):
    """A normalisation and a linear map of each token's features, which were computed before; the vector is their mean.

    size: number of a token's features. entry: name of the condition's entry, float32 (b, L, size), whose mask is
    `entry` with `_mask`, bool (b, L), True where there is a token. features: width of the embedding. max_tokens:
    greatest length of a sequence, to which all are padded. The null condition is one learned token. Raises `UsageError`
    for more than max_tokens.

        import jax
        import jax.numpy as jnp
        from score_sde.models import ENCODERS

        encoder = ENCODERS["sequence"](size=6, features=16, max_tokens=8)
        cond = {"text": jnp.ones((1, 3, 6)), "text_mask": jnp.array([[True, True, False]])}
        encoded, params = encoder.init_with_output(jax.random.key(0), cond, 1)
        encoded.vector, encoded.tokens, encoded.mask  # of shapes (1, 16), (1, 8, 16) and (1, 8)
    """

    size: Annotated[int, "[1, inf)"]
    entry: str = "text"
    features: Annotated[int, "[1, inf)"] = 128
    max_tokens: Annotated[int, "[1, inf)"] = 32

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """Features of tokens, and their mask."""
        return {self.entry: Entry(jnp.float32, (None, self.size)), self.entry + MASK: Entry(jnp.bool_, (None,))}

    @nn.compact
    def __call__(self, cond: Cond | None, n: int) -> Encoded:
        values, mask, null = padded(cond, self.cond_entries, self.entry, n, self.max_tokens)
        h = Linears()(self.features, name="linear")(normalized(values, EPSILON, learned=True, name="norm"))
        return pooled(h, mask, null, self.param("null", NULL, (self.features,)))
