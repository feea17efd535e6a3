r"""Group normalisation with the activation after it, and its derivative by hand.

With h = (x - mean) rate and y = act(scale h + bias), where mean and rate = 1 / sqrt(variance + epsilon) are those of a
group's pixels and channels, the gradients of a loss are, with g that of scale h + bias,

    of bias: sum(g),    of scale: sum(g h),    of x: rate (scale g - mean(scale g) - h mean(scale g h)),    (1)

sums over batch and pixels, means over a group. Two sums for each image and channel give all of them, and x is all that
is kept for it; what JAX derives from the forward pass keeps h and the activation's input as well.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float

Channels = Float[Array, " c"] | Float[np.ndarray, " c"]
Activation = Callable[[Array], Array]


def group_norm(
    x: FeatureMaps, scale: Channels, bias: Channels, groups: int, epsilon: float, act: Activation
) -> FeatureMaps:
    """y of contiguous groups of channels, in float32 inside, whatever the type of x.

    Statistics are reduced over pixels first and over the channels of a group after, which spares a reshape of x.
    """
    return _forward(x, scale, bias, groups, epsilon, act)[0]


group_norm_by_hand = jax.custom_vjp(group_norm, nondiff_argnums=(3, 4, 5))  # no forward-mode derivative


def _forward(x, scale, bias, groups, epsilon, act):
    h = x.astype(jnp.float32)
    mean, rate = _statistics(h, groups, epsilon)
    return act((h - mean) * (rate * scale) + bias).astype(x.dtype), (x, mean, rate, scale, bias)


def _backward(groups, epsilon, act, kept, g):
    x, mean, rate, scale, bias = kept
    h = (x.astype(jnp.float32) - mean) * rate
    (g,) = jax.vjp(act, h * scale + bias)[1](g.astype(jnp.float32))
    total, along = g.sum((1, 2)), (g * h).sum((1, 2))
    pixels = x.shape[1] * x.shape[2]
    of_x = rate * (
        g * scale - _group_mean(total * scale / pixels, groups) - h * _group_mean(along * scale / pixels, groups)
    )
    return of_x.astype(x.dtype), along.sum(0), total.sum(0)


group_norm_by_hand.defvjp(_forward, _backward)


def _statistics(x: FeatureMaps, groups: int, epsilon: float) -> tuple[FeatureMaps, FeatureMaps]:
    """Mean and rate, of shape (b, 1, 1, c)."""
    mean = _group_mean(x.mean((1, 2)), groups)
    return mean, jax.lax.rsqrt(_group_mean(jnp.square(x - mean).mean((1, 2)), groups) + epsilon)


def _group_mean(per_channel: Float[Array, "b c"], groups: int) -> FeatureMaps:
    c = per_channel.shape[-1]
    return jnp.repeat(per_channel.reshape(-1, groups, c // groups).mean(-1), c // groups, axis=-1)[:, None, None, :]
