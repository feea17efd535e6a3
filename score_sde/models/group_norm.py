r"""Group normalisation with the activation after it, and its derivative by hand.

With h = (x - mean) rate and y = act(scale h + bias), where mean and rate = 1 / sqrt(variance + epsilon) are those of a
group's pixels and channels, the gradients of a loss are, with g that of scale h + bias,

    of bias: sum(g),    of scale: sum(g h),    of x: rate (scale g - mean(scale g) - h mean(scale g h)),    (1)

sums over batch and pixels, means over a group. Two sums for each image and channel give all of them, and x is all that
is kept for it; what JAX derives from the forward pass keeps h and the activation's input as well.

On CPUs sums are written in the forms that XLA makes fast loops of: see `_pixel_sum` and `_group_mean`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float

Channels = Float[Array, " c"] | Float[np.ndarray, " c"]
PerChannel = Float[Array, "b c"]
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
    total, along = _pixel_sum(g), _pixel_sum(g * h)
    # Both means by one product: XLA for CPUs then takes no loop over pixels into it, for which it wants more memory.
    mean_g, mean_gh = jnp.split(_mean(jnp.concatenate([total * scale, along * scale]), _pixels(x), groups), 2)
    of_x = rate * (g * scale - mean_g - h * mean_gh)
    return of_x.astype(x.dtype), along.sum(0), total.sum(0)


group_norm_by_hand.defvjp(_forward, _backward)


def _statistics(x: FeatureMaps, groups: int, epsilon: float) -> tuple[FeatureMaps, FeatureMaps]:
    """Mean and rate, of shape (b, 1, 1, c)."""
    mean = _mean(_pixel_sum(x), _pixels(x), groups)
    return mean, jax.lax.rsqrt(_mean(_pixel_sum(jnp.square(x - mean)), _pixels(x), groups) + epsilon)


def _pixels(x: FeatureMaps) -> int:
    return x.shape[1] * x.shape[2]


def _mean(sums: PerChannel, pixels: int, groups: int) -> FeatureMaps:
    """Over the pixels and the channels of a group, of sums over the pixels."""
    return _group_mean(sums / pixels, groups)[:, None, None, :]


def _pixel_sum(x: FeatureMaps) -> PerChannel:
    """On CPUs in halves, which are added in one loop with what x is made of: a sum alone is one of a library's, which
    takes the convolutions around it along, and is slower at those.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h * w, c)
    for _ in range(4 if _on_cpu() else 0):
        if x.shape[1] % 2 == 0:
            half = x.shape[1] // 2
            x = x[:, :half] + x[:, half:]
    return x.sum(1)


def _group_mean(per_channel: PerChannel, groups: int) -> PerChannel:
    """On CPUs a product: what follows can then read a mean for each channel in a row, not one in four or more."""
    c = per_channel.shape[-1]
    if _on_cpu():
        mean = np.kron(np.eye(groups, dtype=np.float32), np.full((c // groups, c // groups), groups / c, np.float32))
        return jnp.matmul(per_channel, mean, precision="highest")
    return jnp.repeat(per_channel.reshape(-1, groups, c // groups).mean(-1), c // groups, axis=-1)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
