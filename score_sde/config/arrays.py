"""NumPy's arrays as JAX's, which have 32 bits, without numbers that change on the way."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class MisfitError(Exception):
    """Reason why a value is not of a kind; "" if there is no more to say than the kind's words."""


def as_jax(array: np.ndarray, dtype: Any = None) -> jax.Array:
    """The array in JAX's types, which have 32 bits.

    dtype: a type that the numbers have to fit as well, if it is of their kind; the array does not take it. Raises
    `MisfitError` for integers that would wrap around, and floats that would become infinite.
    """
    own = jax.dtypes.canonicalize_dtype(array.dtype)
    wanted = own if dtype is None else np.dtype(dtype)
    kinds = {own.kind, wanted.kind}
    dtype = wanted if kinds <= {"i", "u"} or kinds == {"f"} else own
    numbers = array[np.isfinite(array)] if own.kind == "f" else array
    if own.kind in "iuf" and numbers.size and array.dtype != dtype:
        limits = np.iinfo(dtype) if own.kind in "iu" else np.finfo(dtype)
        low, high = numbers.min(), numbers.max()
        if not (limits.min <= low and high <= limits.max):
            raise MisfitError(f"its numbers are from {low} to {high}, beyond those of {dtype}")
    return jnp.asarray(array)
