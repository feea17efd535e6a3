"""A Brownian path determined by a key: W(s) is the same whatever steps lead to s."""

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, Keys, Times
from score_sde.config.arguments import check_arguments
from score_sde.randomness import Size, expand, normal, stream

# Not diffrax.VirtualBrownianTree: the same construction with other numbers, so that all samples of the adaptive solver
# would be others, for a dependency of four packages.

LEVELS = 22  # bisections of [0, 1]: cells of 2.4e-7, about the spacing of float32 numbers near 1


@check_arguments
def brownian(keys: Keys, shape: tuple[Size, ...], s: Times) -> Float[Array, "b ..."]:
    """W(s) of shape (b, *shape) for s in [0, 1], each row from its own key; W(0) = 0.

    It uses Levy's construction: the interval around s is halved again and again, and W at each midpoint is drawn given
    the ends, with a key for each interval of the tree. Inside the last cell W(s) is drawn given the cell's ends.

        import jax
        import jax.numpy as jnp
        from score_sde.sampling.brownian import brownian

        keys = jax.random.split(jax.random.key(0), 2)
        w = brownian(keys, (8, 8, 1), jnp.array([0.25, 0.5]))  # (2, 8, 8, 1), of variances 0.25 and 0.5
    """

    def halve(_, carry: tuple) -> tuple:
        keys, low, high, w_low, w_high = carry
        middle = (low + high) / 2
        deviation = expand(jnp.sqrt(high - low) / 2, w_low)
        w_middle = (w_low + w_high) / 2 + deviation * normal(stream(keys, 0), shape)
        right = s >= middle
        keys = jax.vmap(jax.random.fold_in)(keys, 1 + right)
        wide = expand(right, w_low)
        return (
            keys,
            jnp.where(right, middle, low),
            jnp.where(right, high, middle),
            jnp.where(wide, w_middle, w_low),
            jnp.where(wide, w_high, w_middle),
        )

    w_one = normal(stream(keys, 0), shape).astype(s.dtype)
    start = (stream(keys, 1), jnp.zeros_like(s), jnp.ones_like(s), jnp.zeros_like(w_one), w_one)
    keys, low, high, w_low, w_high = jax.lax.fori_loop(0, LEVELS, halve, start)
    left, right = expand((s - low) / (high - low), w_low), expand((high - s) / (high - low), w_low)
    bridge = jnp.sqrt(jnp.maximum(left * right * expand(high - low, w_low), 0.0))
    return right * w_low + left * w_high + bridge * normal(stream(keys, 0), shape)
