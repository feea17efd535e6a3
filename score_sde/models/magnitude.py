"""Magnitude-preserving layers: activations stay at the size of the input's (Karras et al., 2024, EDM2, appendix B).

A layer of weights w computes with w / (epsilon + rms(w)) sqrt(1 / n) for each output channel, n its number of inputs,
so that its outputs have unit variance where its inputs are uncorrelated and have unit variance. No layer has a bias.

    import jax.numpy as jnp
    from score_sde.models import magnitude

    h = magnitude.add(jnp.ones(4), -jnp.ones(4), 0.3)  # (0.7 - 0.3) / sqrt(0.7^2 + 0.3^2)
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, PerSample, PyTree
from score_sde.config.arguments import check_arguments
from score_sde.models.compute import Layer
from score_sde.models.resampling import LAYOUT

EPSILON = 1e-4  # the published networks add it to a magnitude that they divide by
SILU = 0.596  # root mean square of silu(x) for x ~ N(0, 1)
# A square too small to change a magnitude above 1e-6; it makes the derivative of the magnitude of zeros 0, and not NaN.
TINY = 1e-20
WEIGHT = "weight"  # name of the leaves whose rows have a fixed magnitude in training

Numbers = Float[Array, "..."]
Axes = Sequence[Annotated[int, "(-inf, inf)"]]
Balance = Annotated[float, "[0, 1]"]


@check_arguments
def magnitude(x: Numbers, axes: Axes) -> Numbers:
    """Root mean square over these axes, which stay with length 1, in float32."""
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), tuple(axes), keepdims=True) + TINY)


@check_arguments
def normalize(x: Numbers, axes: Axes) -> Numbers:
    """Numbers of unit magnitude over these axes: x / (1e-4 + rms(x)), in the type of x (EDM2, algorithm 1)."""
    return x / (EPSILON + magnitude(x, axes)).astype(x.dtype)


@check_arguments
def silu(x: Numbers) -> Numbers:
    """Magnitude-preserving SiLU (EDM2, eq. 81)."""
    return nn.silu(x) / SILU


@check_arguments
def add(a: Float[Array, "*n"], b: Float[Array, "*n"], balance: Balance) -> Float[Array, "*n"]:
    """Magnitude-preserving sum (1 - t) a + t b over sqrt((1 - t)^2 + t^2), t = balance (EDM2, eq. 88)."""
    return (a + balance * (b - a)) / math.sqrt((1 - balance) ** 2 + balance**2)


@check_arguments
def concatenate(a: Float[Array, "b h w _"], b: Float[Array, "b h w _"], balance: Balance) -> Float[Array, "b h w _"]:
    """Magnitude-preserving concatenation of channels (EDM2, eq. 103).

    The shares of a and b in the mean square of the result are as (1 - t)^2 to t^2, t = balance, whatever their numbers
    of channels.
    """
    n_a, n_b = a.shape[-1], b.shape[-1]
    total = math.sqrt((n_a + n_b) / ((1 - balance) ** 2 + balance**2))
    weights = total * (1 - balance) / math.sqrt(n_a), total * balance / math.sqrt(n_b)
    return jnp.concatenate([weights[0] * a, weights[1] * b], axis=-1)


@check_arguments
def forced(params: PyTree) -> PyTree:
    """Forced weight normalisation: parameters whose weights have rows of norm sqrt(n), n inputs each (EDM2, eq. 66).

    params: a tree in which the leaves named `weight` have the outputs as their last axis; other leaves stay. Training
    calls it after each update, so that the size of weights, and with it the effective learning rate, does not drift.

        import jax.numpy as jnp
        from score_sde.models.magnitude import forced

        params = forced({"weight": jnp.array([[3.0], [4.0]])})  # 0.6 sqrt(2), 0.8 sqrt(2)
    """

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        if not path or getattr(path[-1], "key", None) != WEIGHT:
            return leaf
        leaf = jnp.asarray(leaf)
        return leaf / magnitude(leaf, range(leaf.ndim - 1))

    return jax.tree.map_with_path(one, params)


class MPLinear(Layer):
    """Magnitude-preserving linear map of the last axis, or a 3x3 or 1x1 convolution (EDM2, eq. 47).

    window: height and width of the convolution's kernel; () for a linear map. gain: a factor on the outputs.
    """

    features: int
    window: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Numbers, gain: float | Float[Array, ""] = 1.0) -> Numbers:
        shape = (*self.window, x.shape[-1], self.features)
        weight = self.param(WEIGHT, nn.initializers.normal(1.0), shape, jnp.float32)
        weight = normalize(weight, range(weight.ndim - 1)) * (gain / math.sqrt(math.prod(shape[:-1])))
        weight = weight.astype(x.dtype)
        if self.window == (3, 3):
            return jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=LAYOUT)
        # One product of two matrices, so that the derivative by the weight is one too, also on CPUs.
        y = x.reshape(-1, x.shape[-1]) @ weight.reshape(-1, self.features)
        return y.reshape(*x.shape[:-1], -1)


class MPFourier(nn.Module):
    """Magnitude-preserving Fourier features sqrt(2) cos(f noise_cond + phase), f and phase fixed (EDM2, eq. 75)."""

    features: int

    @nn.compact
    def __call__(self, noise_cond: PerSample) -> Float[Array, "b _"]:
        frequencies = self.param("frequencies", _times_two_pi(jax.random.normal), (self.features,), jnp.float32)
        phases = self.param("phases", _times_two_pi(jax.random.uniform), (self.features,), jnp.float32)
        frequencies, phases = jax.lax.stop_gradient((frequencies, phases))
        return jnp.cos(noise_cond[:, None] * frequencies + phases) * math.sqrt(2)


def _times_two_pi(draw: Callable) -> Callable:
    return lambda key, shape, dtype: 2 * math.pi * draw(key, shape, dtype)
