"""Floating-point operations of a function's convolutions and matrix products, a multiply-add as two, from its trace."""

import math
from collections.abc import Callable
from typing import Any

import jax


def flops(fn: Callable, *args: Any) -> int:
    """Floating-point operations of fn(*args); args may be shapes.

    A loop counts once for each iteration that is known before it runs.
    """
    return _of(jax.make_jaxpr(fn)(*args).jaxpr)


def _of(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = str(equation.primitive), equation.params
    if name == "conv_general_dilated":
        out, kernel = equation.outvars[0].aval, equation.invars[1].aval
        features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2 * out.size * kernel.size // features
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    times = params["length"] if name == "scan" else 1
    inner = [getattr(value, "jaxpr", value) for value in params.values()]
    return times * sum(_of(jaxpr) for jaxpr in inner if hasattr(jaxpr, "eqns"))
