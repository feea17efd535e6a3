"""Encoders of conditions: each embeds an entry as a vector, as a sequence of tokens, or as both.

A network with a field `encoder` takes any of them, by `encoder.name` in a config: `score_sde.config.protocols.Encoder`.
Every network adds the vector to its embedding of the noise level, or has it as a token. Transformers, `uvit` and `dit`,
also attend to the tokens, and U-Nets do at `cross_resolutions` (`score_sde.models.cross_attention`).
"""

from typing import Annotated, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import Array, Bool, Float, Shaped
from score_sde.cond import MASK, Cond, Entries, Entry, read
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.layers import Vector, dense


class Encoded(NamedTuple):
    """The embedding of a condition of n samples: what an encoder returns, unless it returns a vector alone.

    vector: (n, d), or None. tokens: (n, L, d), or None. mask: (n, L), True where there is a token; None: everywhere.
    What stands where the mask is False has no effect. Sums over tokens are the same to the last bit only for sequences
    of one length, so an encoder pads all conditions, and null, to the same L.
    """

    vector: Float[Array, "n d"] | None = None
    tokens: Float[Array, "n l d"] | None = None
    mask: Bool[Array, "n l"] | None = None


def encoded(encoder: nn.Module | None, cond: Cond | None, n: int) -> Encoded:
    """The embedding of a condition by a network's encoder, if it has one; call it inside a compact method."""
    result = Encoded() if encoder is None else encoder(cond, n)
    return result if isinstance(result, Encoded) else Encoded(result)


def encoded_for_unet(encoder: nn.Module | None, cond: Cond | None, n: int, *, attends: bool) -> Encoded:
    """The embedding of a condition for a U-Net, which attends to tokens or not; call it inside a compact method.

    Raises `UsageError` for an encoder that has nothing that the U-Net takes: tokens alone and no attention to them, or
    attention and no tokens.
    """
    result = encoded(encoder, cond, n)
    if encoder is not None and result.vector is None and not attends:
        raise UsageError(
            f"{type(encoder).__name__} has tokens and no vector, and this network takes the vector alone; set "
            "model.cross_resolutions, or choose model.name=uvit or dit, or an encoder with a vector."
        )
    if attends and result.tokens is None:
        raise UsageError(
            f"{type(encoder).__name__} has no tokens to attend to at model.cross_resolutions; choose encoder.name="
            "text, sequence or tokens, or set model.cross_resolutions=()."
        )
    return result


def taken_entries(num_classes: int, encoder: nn.Module | None = None) -> dict[str, Entry]:
    """The entries of a condition that a network with so many classes and this encoder takes."""
    labels = {"labels": Entry(jnp.int32, below=num_classes)} if num_classes else {}
    return labels if encoder is None else labels | dict(encoder.cond_entries)


def augment_labels(augment: Float[Array, "n a"] | None, augment_dim: int, n: int) -> Float[Array, "n a"] | None:
    """The labels of the augmentations of n images, of which None are zeros; None for a network that takes none.

    Raises `UsageError` for labels that the network does not take.
    """
    if augment_dim:
        return jnp.zeros((n, augment_dim)) if augment is None else augment
    if augment is not None:
        raise UsageError("The network takes no labels of augmentations; set model.augment_dim to their number.")
    return None


def token_entries(vocab_size: int) -> dict[str, Entry]:
    """The entries of tokens below `vocab_size`, in sequences of any length, and of their mask."""
    return {"tokens": Entry(jnp.int32, (None,), vocab_size), "tokens_mask": Entry(jnp.bool_, (None,))}


def padded(
    cond: Cond | None, entries: Entries, name: str, n: int, max_tokens: int
) -> tuple[Shaped[Array, "n l ..."], Bool[Array, "n l"], Bool[Array, " n"]]:
    """An entry of sequences, padded to length `max_tokens`; its mask; and where it is null.

    Padding is 0, whatever stood there. Raises `UsageError` for longer sequences.
    """
    (values, null), (mask, _) = (read(cond, entries, each, n) for each in (name, name + MASK))
    length = values.shape[1]
    if length > max_tokens:
        raise UsageError(
            f"The condition has {length} tokens, and the encoder takes {max_tokens}; shorten it, or train with a "
            "greater encoder.max_tokens."
        )
    values = jnp.where(mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)), values, 0)
    values = jnp.pad(values, ((0, 0), (0, max_tokens - length), *((0, 0),) * (values.ndim - 2)))
    return values, jnp.pad(mask, ((0, 0), (0, max_tokens - length))), null


def pooled(
    tokens: Float[Array, "n l d"], mask: Bool[Array, "n l"], null: Bool[Array, " n"], without: Vector
) -> Encoded:
    """Tokens with their mean as the vector, and the single token `without` in the place of all where they are null."""
    tokens = jnp.where(null[:, None, None], without, tokens)
    mask = jnp.where(null[:, None], jnp.arange(mask.shape[1]) == 0, mask)
    kept = jnp.where(mask[..., None], tokens, 0)
    return Encoded(kept.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1), kept, mask)


@check_arguments
class VectorEncoder(nn.Module):
    """Two dense layers that embed a vector of numbers of each image, such as attributes or measurements.

    entry: the name of the condition's entry, float32 (b, size); size: its length; features: width of the embedding. The
    null condition is a learned embedding. Numbers of order 1 are learned best, so scale them in the data set.

        import jax
        import jax.numpy as jnp
        from score_sde.models import ENCODERS

        encoder = ENCODERS["vector"](size=5, features=16)
        embedded, _ = encoder.init_with_output(jax.random.key(0), {"vector": jnp.ones((2, 5))}, 2)  # (2, 16)
    """

    size: Annotated[int, "[1, inf)"]
    entry: str = "vector"
    features: Annotated[int, "[1, inf)"] = 128

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """The single entry that this encoder takes."""
        return {self.entry: Entry(jnp.float32, (self.size,))}

    @nn.compact
    def __call__(self, cond: Cond | None, n: int) -> Float[Array, "n d"]:
        values, null = read(cond, self.cond_entries, self.entry, n)
        without = self.param("null", nn.initializers.normal(0.02), (self.features,))
        embedded = dense(self.features)(nn.swish(dense(self.features)(values)))
        return jnp.where(null[:, None], without, embedded)


@check_arguments
class TokenEncoder(nn.Module):
    """A learned embedding of each token and of its place; the vector is the mean over tokens.

    vocab_size: tokens are 0, 1, ..., vocab_size - 1. max_tokens: greatest length of a sequence. features: width of the
    embedding. The condition's entries are `tokens`, int32 (b, L), and `tokens_mask`, bool (b, L), True where there is a
    token. The null condition is one learned token. Raises `UsageError` for more than max_tokens.

        import jax
        import jax.numpy as jnp
        from score_sde.models import ENCODERS

        encoder = ENCODERS["tokens"](vocab_size=100, max_tokens=5, features=16)
        tokens, mask = [[7, 1, 99], [4, 0, 0]], [[True, True, True], [True, False, False]]
        cond = {"tokens": jnp.array(tokens), "tokens_mask": jnp.array(mask)}
        encoded, params = encoder.init_with_output(jax.random.key(0), cond, 2)
        encoded.vector, encoded.tokens, encoded.mask  # of shapes (2, 16), (2, 5, 16) and (2, 5)
    """

    vocab_size: Annotated[int, "[1, inf)"]
    max_tokens: Annotated[int, "[1, inf)"] = 32
    features: Annotated[int, "[1, inf)"] = 128

    @property
    def cond_entries(self) -> dict[str, Entry]:
        """Tokens and their mask."""
        return token_entries(self.vocab_size)

    @nn.compact
    def __call__(self, cond: Cond | None, n: int) -> Encoded:
        tokens, mask, null = padded(cond, self.cond_entries, "tokens", n, self.max_tokens)
        init = nn.initializers.normal(0.02)
        table = nn.Embed(self.vocab_size, self.features, embedding_init=init, name="table")
        places = self.param("places", init, (self.max_tokens, self.features))
        return pooled(table(tokens) + places, mask, null, self.param("null", init, (self.features,)))
