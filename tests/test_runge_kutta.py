import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from score_sde.randomness import expand
from score_sde.sampling.runge_kutta import runge_kutta


def integrate(ode, y, args=None):
    return jax.jit(
        lambda y: jax.lax.while_loop(lambda s: ode.fraction(s) < 1, lambda s: ode.step(s, args), ode.init(y, args))
    )(y)


def field(t, y, _):
    """Smooth, and faster for larger |y|, so that samples want different steps."""
    return expand(jnp.cos(9 * t), y) * y - 3 * jnp.sin(2 * y)


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 1e-3)])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-4])  # in float32 a smaller one can tip a step either way
def test_each_sample_takes_scipys_steps_as_if_it_were_alone(t0, t1, tolerance):
    y = jax.random.normal(jax.random.key(0), (5, 3, 2)) * jnp.array([0.1, 0.5, 1, 2, 5])[:, None, None]
    state = integrate(runge_kutta(field, t0, t1, rtol=tolerance, atol=tolerance), y)

    def alone(t, flat):
        return np.asarray(field(jnp.array([t]), jnp.asarray(flat)[None], None))[0]

    for i in range(len(y)):
        y0 = np.asarray(y[i], np.float64).ravel()
        reference = solve_ivp(alone, (t0, t1), y0, method="RK45", rtol=tolerance, atol=tolerance)
        assert int(state.nfe[i]) == reference.nfev
        np.testing.assert_allclose(state.y[i].ravel(), reference.y[:, -1], rtol=2e-5, atol=2e-5)


def test_a_sample_does_not_notice_the_others():
    y = jax.random.normal(jax.random.key(1), (4, 8))
    ode = runge_kutta(field, 0.0, 1.0, rtol=1e-4, atol=1e-4)
    wild = y.at[0].mul(30.0)
    np.testing.assert_array_equal(integrate(ode, y).y[1:], integrate(ode, wild).y[1:])


def test_the_right_hand_side_is_counted_exactly():
    calls = []

    def counted(t, y, _):
        jax.debug.callback(lambda t: calls.append(t), t[0])
        return -y

    state = integrate(runge_kutta(counted, 0.0, 1.0, rtol=1e-4, atol=1e-4), jnp.ones((1, 2)))
    jax.effects_barrier()
    assert int(state.nfe[0]) == len(calls)


def test_several_arrays_and_arguments_are_integrated_together():
    def coupled(t, y, rate):
        return rate * y[1], -rate * y[0]

    ode = runge_kutta(coupled, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    x, v = integrate(ode, (jnp.ones((2, 1)), jnp.zeros((2, 1))), args=jnp.array([[1.0], [3.0]])).y
    np.testing.assert_allclose(x[:, 0], np.cos([1, 3]), atol=1e-5)
    np.testing.assert_allclose(v[:, 0], -np.sin([1, 3]), atol=1e-5)


def test_a_sample_that_fails_is_nan_and_leaves_the_others_alone():
    def blows_up(t, y, _):
        return jnp.where(y > 0, y**2, -y)  # from y = 2 infinite at t = 1/2

    state = integrate(runge_kutta(blows_up, 0.0, 1.0, rtol=1e-4, atol=1e-4), jnp.array([[2.0], [-1.0]]))
    assert np.isnan(state.y[0, 0])
    np.testing.assert_allclose(state.y[1, 0], -np.exp(-1), rtol=1e-4)
    state = integrate(runge_kutta(lambda t, y, _: y * jnp.nan, 0.0, 1.0, rtol=1e-4, atol=1e-4), jnp.ones((1, 1)))
    assert np.isnan(state.y[0, 0])
