"""How a network is computed, which is no part of what it is: in what numbers, and what is kept for the backward pass.

A layer computes in the type of its input. A network casts its features after the convolution of the image, and back
before the one to the image: at small times the noise is finer than bfloat16 could tell from the image. Parameters are
float32 whatever the features are, and so are the statistics of normalisations and the embedding of the noise level.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, FeatureMaps, Float
from score_sde.errors import UsageError

Tokens = Float[Array, "b n c"]


class Compute(NamedTuple):
    """dtype: of features; products: as JAX calls their precision; remat: each block keeps its input alone for the
    backward pass, and is computed again there; fused: for training, by derivatives that are not JAX's, and have no
    forward mode: of normalisations, and of attention by cuDNN where that can.
    """

    dtype: Any = jnp.float32
    products: str = "default"
    remat: bool = False
    fused: bool = False

    def features(self, h: FeatureMaps) -> FeatureMaps:
        return h.astype(self.dtype)

    def block(self, block: type[nn.Module]) -> type[nn.Module]:
        """The class of a block, or what computes it again."""
        return _again(block) if self.remat else block

    def attend(self, q: Tokens, h: Tokens) -> Tokens:
        """softmax(q h^T / sqrt(c)) h, the softmax in float32."""
        if self.fused and q.dtype == jnp.bfloat16 and _cudnn_takes(q.shape[1:]):
            q, h = q[:, :, None], h[:, :, None]
            return jax.nn.dot_product_attention(q, h, h, implementation="cudnn")[:, :, 0]
        logits = jnp.einsum("bnc,bmc->bnm", q, h, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
        return jnp.einsum("bnm,bmc->bnc", jax.nn.softmax(logits).astype(h.dtype), h)

    def apply(self, network: nn.Module, *args: Any, **kwargs: Any) -> Array:
        """`network.apply` in this way."""
        network = network.clone(compute=self) if hasattr(network, "compute") else network
        with jax.default_matmul_precision(self.products):
            return network.apply(*args, **kwargs)


PRECISIONS = {
    "float32": Compute(products="highest"),
    "tf32": Compute(),  # the products that the device is quickest at: TF32 on today's GPUs, exact on CPUs
    "bfloat16": Compute(jnp.bfloat16),
}


def check_computes(network: nn.Module, precision: str, *, remat: bool) -> None:
    """Raises `UsageError` for a network without a field `compute` where it would have to heed that."""
    if not hasattr(network, "compute"):
        for key, asked in ((f"precision={precision}", precision == "bfloat16"), ("remat=True", remat)):
            if asked:
                raise UsageError(
                    f"{type(network).__name__} has no field `compute: Compute = Compute()` to heed training.{key} by; "
                    "give it one (score_sde.models.compute), or unset that."
                )


def as_input(*arrays: Any, **_: Any) -> tuple[Any, ...]:
    """What flax's layers call `promote_dtype`: all in the type of the first, their input; None stays."""
    return tuple(None if array is None else jnp.asarray(array, arrays[0].dtype) for array in arrays)


Conv = functools.partial(nn.Conv, promote_dtype=as_input)


@functools.cache
def _again(block: type[nn.Module]) -> type[nn.Module]:
    again = nn.remat(block)
    again.__name__ = again.__qualname__ = block.__name__  # it names the parameters
    return again


@functools.cache
def _cudnn_takes(shape: tuple[int, ...]) -> bool:
    """Whether this machine's cuDNN has attention, and its gradient, for tokens of this shape: its limits move."""
    if jax.default_backend() != "gpu":
        return False

    def total(q, h):
        return jax.nn.dot_product_attention(q, h, h, implementation="cudnn").astype(jnp.float32).sum()

    tokens = jax.ShapeDtypeStruct((1, shape[0], 1, shape[1]), jnp.bfloat16)
    try:
        jax.jit(jax.grad(total, argnums=(0, 1))).lower(tokens, tokens).compile()
    except Exception:  # whatever it is that it does not take
        return False
    return True
