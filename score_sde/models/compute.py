"""Computation of a network, apart from its definition: precision, and what is kept for the backward pass.

A layer computes in the type of its input. A network casts its features after its first convolution, and back before its
last: at small times the noise in an image is too fine for bfloat16. Parameters are always float32, and so are the
statistics of normalisations and the embedding of the noise level.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Bool, Float
from score_sde.errors import UsageError

Tokens = Float[Array, "b n c"]
Heads = Float[Array, "b n h d"]
OtherHeads = Float[Array, "b m h d"]  # of tokens that are attended to


class Compute(NamedTuple):
    """Options of a network's computation.

    dtype: type of the features. products: JAX's name of the precision of products. remat: whether each block keeps only
    its input for the backward pass, and is computed again there. fused: whether training uses derivatives written by
    hand, without a forward mode: of normalisations, and of attention by cuDNN where possible.
    """

    dtype: Any = jnp.float32
    products: str = "default"
    remat: bool = False
    fused: bool = False

    def features(self, h: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        return h.astype(self.dtype)

    def block(self, block: type[nn.Module]) -> type[nn.Module]:
        """The class of a block, or a class that computes the block again in the backward pass."""
        return _again(block) if self.remat else block

    def attend(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        """Attention softmax(q k^T / sqrt(c)) v, with the softmax in float32."""
        if self._by_cudnn(q[:, :, None]):
            q, k, v = q[:, :, None], k[:, :, None], v[:, :, None]
            return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")[:, :, 0]
        logits = jnp.einsum("bnc,bmc->bnm", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
        return jnp.einsum("bnm,bmc->bnc", jax.nn.softmax(logits).astype(v.dtype), v)

    def attend_heads(
        self,
        q: Heads,
        k: OtherHeads,
        v: OtherHeads,
        mask: Bool[Array, "b 1 #n m"] | None = None,
        *,
        causal: bool = False,
    ) -> Heads:
        """Attention of several heads, with the softmax in float32. mask: True where a query may see a key."""
        by_cudnn = mask is None and self._by_cudnn(q)
        implementation = "cudnn" if by_cudnn else "xla"
        return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=implementation)

    def _by_cudnn(self, q: Heads) -> bool:
        return self.fused and q.dtype == jnp.bfloat16 and _cudnn_takes(q.shape[1:])

    def apply(self, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The result of `network.apply`, with the network and its encoder computed in this way."""
        with jax.default_matmul_precision(self.products):
            return self._of(network).apply(*args, **kwargs)

    def _of(self, module: nn.Module) -> nn.Module:
        """The module, and its encoder, with this field `compute` if they have one."""
        encoder = getattr(module, "encoder", None)
        fields = {"encoder": self._of(encoder)} if isinstance(encoder, nn.Module) else {}
        fields |= {"compute": self} if hasattr(module, "compute") else {}
        return module.clone(**fields) if fields else module


PRECISIONS = {
    "float32": Compute(products="highest"),
    "tf32": Compute(),  # the device's quickest products: TF32 on today's GPUs, exact on CPUs
    "bfloat16": Compute(jnp.bfloat16),
}


def check_computes(network: nn.Module, precision: str, *, remat: bool) -> None:
    """Raises `UsageError` if an option of computation is set and the network has no field `compute` to follow it."""
    if not hasattr(network, "compute"):
        for key, is_set in ((f"precision={precision}", precision == "bfloat16"), ("remat=True", remat)):
            if is_set:
                raise UsageError(
                    f"{type(network).__name__} has no field `compute: Compute = Compute()` to heed training.{key} by; "
                    "give it one (score_sde.models.compute), or unset that."
                )


def as_input(*arrays: Any, **_: Any) -> tuple[Any, ...]:
    """The arrays in the type of the first, which is the layer's input; None stays. Flax calls it `promote_dtype`."""
    return tuple(None if array is None else jnp.asarray(array, arrays[0].dtype) for array in arrays)


class Layer(nn.Module):
    """Base class of layers whose initialisers take a shape first, as all of Flax do.

    Flax traces the initialiser of a parameter that exists, to compare shapes: half of the time of tracing a network.
    """

    def param(self, name: str, init_fn: Callable, *init_args: Any, **options: Any) -> Any:
        """The parameter of this name, made if there is none. Raises `UsageError` for one of another shape."""
        if not self.has_variable("params", name):
            return super().param(name, init_fn, *init_args, **options)
        value, shape = self.get_variable("params", name), tuple(init_args[0])
        if value.shape != shape:
            where = "/".join((*self.path, name))
            raise UsageError(f"The parameters do not fit the network: {where} is {value.shape}, and should be {shape}.")
        return value


class Conv(Layer, nn.Conv):
    """A convolution in the type of its input."""

    promote_dtype: Any = as_input


class Dense(Layer, nn.Dense):
    """A linear map of the last axis."""


@functools.cache
def _again(block: type[nn.Module]) -> type[nn.Module]:
    again = nn.remat(block)
    again.__name__ = again.__qualname__ = block.__name__  # because the class's name is that of the parameters
    return again


@functools.cache
def _cudnn_takes(shape: tuple[int, ...]) -> bool:
    """Whether this cuDNN supports attention and its gradient for tokens of this shape; versions differ."""
    if jax.default_backend() != "gpu":
        return False

    def total(q, h):
        return jax.nn.dot_product_attention(q, h, h, implementation="cudnn").astype(jnp.float32).sum()

    tokens = jax.ShapeDtypeStruct((1, *shape), jnp.bfloat16)
    try:
        jax.jit(jax.grad(total, argnums=(0, 1))).lower(tokens, tokens).compile()
    except Exception:  # whatever the reason is
        return False
    return True
