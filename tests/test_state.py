import jax
import jax.numpy as jnp
import numpy as np

from score_sde.ema import Constant
from score_sde.training.state import adam, apply_gradients, initial_state

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0])}


AVERAGE = (Constant(0.9),)


def run(gradients, **options):
    options = dict(lr=0.1, beta1=0.9, eps=1e-8, weight_decay=0.0, warmup=0, grad_clip=-1.0) | options
    optimizer = adam(**options, trainable=jax.tree.map(lambda _: True, PARAMS))
    states = [initial_state(PARAMS, optimizer)]
    for gradient in gradients:
        states.append(apply_gradients(states[-1], jnp.float32(0), {"w": jnp.asarray(gradient)}, optimizer, AVERAGE)[0])
    return states


def test_updates_equal_adam_with_warm_up_written_out():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    states = run(gradients, warmup=4)
    w, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    ema = w.copy()
    for n, g in enumerate(gradients):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 0.1 * min(n / 4, 1)
        w = w - rate * (m / (1 - 0.9 ** (n + 1))) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-8)
        ema = 0.9 * ema + 0.1 * w
        np.testing.assert_allclose(states[n + 1].params["w"], w, rtol=1e-5)
        np.testing.assert_allclose(states[n + 1].ema_params["w"], ema, rtol=1e-5)
        assert int(states[n + 1].step) == n + 1


def test_the_first_update_of_a_warm_up_has_rate_zero():
    before, after = run([[1.0, 1.0, 1.0]], warmup=10)
    np.testing.assert_array_equal(before.params["w"], after.params["w"])


def test_gradients_are_clipped_by_their_global_norm_before_adam():
    small = run([[0.3, 0.0, -0.4], [3.0, 4.0, 0.0]], grad_clip=1.0)
    scaled = run([[0.3, 0.0, -0.4], [0.6, 0.8, 0.0]])
    np.testing.assert_allclose(small[-1].params["w"], scaled[-1].params["w"], rtol=1e-6)


def test_weight_decay_is_decoupled_and_spares_what_does_not_train():
    optimizer = adam(
        lr=0.1, beta1=0.9, eps=1e-8, weight_decay=0.5, warmup=0, grad_clip=-1.0, trainable={"w": True, "fixed": False}
    )
    params = {"w": jnp.ones(2), "fixed": jnp.ones(2)}
    start, zeros = initial_state(params, optimizer), jax.tree.map(jnp.zeros_like, params)
    state, _ = apply_gradients(start, jnp.float32(0), zeros, optimizer, AVERAGE)
    np.testing.assert_allclose(state.params["w"], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(state.params["fixed"], 1)
