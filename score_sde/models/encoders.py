"""Encoders of conditions: each embeds an entry as a vector, which a network adds to its embedding of the noise level.

A network with a field `encoder` takes any of them, by `encoder.name` in a config: `score_sde.config.protocols.Encoder`.
"""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from score_sde.array_types import Array, Float
from score_sde.cond import Cond, Entry, read
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.models.layers import dense


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


ENCODERS: dict[str, type[nn.Module]] = {"vector": VectorEncoder}
