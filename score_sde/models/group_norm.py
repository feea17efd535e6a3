r"""Group normalisation with the activation after it, and its derivative written by hand.

With h = (x - mean) rate and y = act(scale h + bias), where mean and rate = 1 / sqrt(variance + epsilon) are over a
group's pixels and channels, and with g the loss's gradient by scale h + bias, the gradients of the loss are

    by bias: sum(g),    by scale: sum(g h),    by x: rate (scale g - mean(scale g) - h mean(scale g h)),    (1)

sums over batch and pixels, means over a group. Two sums for each image and channel give all of them, and only x is kept
for the backward pass; JAX's own derivative keeps h and the activation's input as well.

On CPUs means over groups are products, which XLA compiles to fast loops: see `_group_mean`.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

Channels = Float[Array, " c"] | Float[np.ndarray, " c"]
PerChannel = Float[Array, "b c"]
Activation = Callable[[Array], Array]


@check_arguments
def group_norm(
    x: Float[Array, "b _ _ c"],
    scale: Channels,
    bias: Channels,
    groups: Annotated[int, "[1, inf)"],
    epsilon: Annotated[float, "(0, inf)"],
    act: Activation,
) -> FeatureMaps:
    """Group normalisation y of contiguous groups of channels, in float32 inside, whatever the type of x.

    Statistics are reduced over pixels first and then over the channels of a group, which avoids a reshape of x. Raises
    `UsageError` for a number of groups that does not divide the channels.
    """
    if x.shape[-1] % groups:
        raise UsageError(f"group_norm: groups={groups} must divide the {x.shape[-1]} channels.")
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
    total, along = _pixel_sum(g), _pixel_sum(g * h)
    # Both means in one product, because XLA for CPUs otherwise fuses a loop over pixels into it and needs more memory.
    mean_g, mean_gh = jnp.split(_mean(jnp.concatenate([total * scale, along * scale]), _pixels(x), groups), 2)
    of_x = rate * (g * scale - mean_g - h * mean_gh)
    return of_x.astype(x.dtype), along.sum(0), total.sum(0)


group_norm_by_hand.defvjp(_forward, _backward)


def _statistics(x: FeatureMaps, groups: int, epsilon: float) -> tuple[FeatureMaps, FeatureMaps]:
    """Mean and rate of each channel's group, of shape (b, 1, 1, c)."""
    mean = _mean(_pixel_sum(x), _pixels(x), groups)
    return mean, jax.lax.rsqrt(_mean(_pixel_sum(jnp.square(x - mean)), _pixels(x), groups) + epsilon)


def _pixels(x: FeatureMaps) -> int:
    return x.shape[1] * x.shape[2]


def _mean(sums: PerChannel, pixels: int, groups: int) -> FeatureMaps:
    """Mean over the pixels and channels of a group, from sums over the pixels."""
    return _group_mean(sums / pixels, groups)[:, None, None, :]


def _pixel_sum(x: FeatureMaps) -> PerChannel:
    return x.sum((1, 2))


def _group_mean(per_channel: PerChannel, groups: int) -> PerChannel:
    """Mean over each group; on CPUs a product, so that later loops read the means of channels contiguously."""
    c = per_channel.shape[-1]
    if _on_cpu():
        mean = np.kron(np.eye(groups, dtype=np.float32), np.full((c // groups, c // groups), groups / c, np.float32))
        return jnp.matmul(per_channel, mean, precision="highest")
    return jnp.repeat(per_channel.reshape(-1, groups, c // groups).mean(-1), c // groups, axis=-1)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
