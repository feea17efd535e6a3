"""Derivatives of solvers whose number of steps is not known beforehand: forward mode only, and a sentence for the rest.

JAX differentiates a loop of unknown length in forward mode (`jax.jvp`, `jax.jacfwd`). In reverse mode (`jax.grad`,
`jax.vjp`) it would need every state of the loop, whose number a program must know.
"""

from typing import NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from score_sde.array_types import PyTree
from score_sde.errors import UsageError

# The identity. JAX has no other public way to forbid one mode: a function with a rule for one has none for the other.
_IDENTITY = Primitive("score_sde_forward_only")


def _refuse(*_) -> NoReturn:
    raise UsageError(
        "A solver with adaptive steps has no derivative in reverse mode (grad, vjp), because the number of its steps "
        "is not known beforehand; take forward mode (jax.jvp, jax.jacfwd), or fixed steps, as of dpmpp_2m or pc."
    )


_IDENTITY.def_impl(lambda x: x)
_IDENTITY.def_abstract_eval(lambda x: x)
mlir.register_lowering(_IDENTITY, lambda _, x: [x])
batching.defvectorized(_IDENTITY)
ad.deflinear2(_IDENTITY, _refuse)


def forward_only(tree: PyTree) -> PyTree:
    """The same arrays, of which derivatives in reverse mode raise `UsageError`.

    import jax
    import jax.numpy as jnp
    from score_sde.sampling.derivatives import forward_only

    x, dx = jax.jvp(lambda x: forward_only(2 * x), (jnp.ones(3),), (jnp.ones(3),))  # jax.grad would raise
    """
    return jax.tree.map(lambda x: _IDENTITY.bind(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
