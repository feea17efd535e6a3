"""Predictions of x_0 held to the range of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.oracles import Gaussian
from score_sde.paths import Linear
from score_sde.process import Prediction
from score_sde.randomness import sample_keys
from score_sde.sampling import CLIPPINGS, SAMPLERS, clipped, solve
from score_sde.sde import VE, VP

SHAPE = (2, 2, 1)
KEYS = sample_keys(jax.random.key(0), jnp.arange(4))
INSIDE = Gaussian(
    np.full(SHAPE, 0.2), 0.05**2
)  # its posterior means hardly ever leave [-1, 1], and not from these keys
LIMITS = (-1.0, 1.0)
METHODS = {
    "pc": dict(predictor="reverse_diffusion", corrector="ald"),
    "ode": dict(rtol=1e-4, atol=1e-4),
    "adaptive": dict(rtol=0.1, atol=0.1),
    "unipc_3": dict(num_steps=9),
    "edm": dict(num_steps=5),
    "dpmpp_2m_sde": dict(num_steps=9),
}


@pytest.mark.parametrize("clip", ["range", "dynamic"])
@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_leaves_the_range_samples_are_what_they_were(method, clip):
    """But for the last bit, where XLA computes the two programs otherwise."""
    process = VE(num_scales=50) if clip == "range" else VP(num_scales=50)
    model = INSIDE.model(process)
    x = process.prior_sample(KEYS, SHAPE)
    plain, held = (
        solve(SAMPLERS[method](process, each, **METHODS[method]), KEYS, x)
        for each in (model, clipped(process, model, clip, LIMITS))
    )
    np.testing.assert_allclose(plain[0], held[0], rtol=5e-7, atol=5e-8)
    np.testing.assert_array_equal(plain[1], held[1])


@pytest.mark.parametrize("clip", ["range", "dynamic"])
@pytest.mark.parametrize("method", ["pc", "unipc_3", "dpmpp_2m_sde"])
def test_where_nothing_leaves_the_range_not_a_bit_is_changed(method, clip):
    """Operation by operation."""
    process, model = VE(num_scales=5), INSIDE.model(VE())
    x, found = process.prior_sample(KEYS, SHAPE), []
    for each in (model, clipped(process, model, clip, LIMITS)):
        solver = SAMPLERS[method](process, each, **METHODS[method] | ({} if method == "pc" else {"num_steps": 4}))
        with jax.disable_jit():
            state = solver.init(KEYS, x)
            for _ in range(solver.steps):
                state = solver.step(state)
            found.append(solver.result(state)[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm_solver_3", 3)])
def test_the_order_of_convergence_is_unchanged_where_the_data_stay_in_the_range(name, order):
    process = VP()
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((4, *SHAPE)))
        model = clipped(process, INSIDE.model(process), "range", LIMITS)
        exact = INSIDE.flow(process, x, jnp.ones(4), jnp.full(4, 1e-3))
        errors = [
            float(jnp.sqrt(jnp.mean(jnp.square(solve(solver, KEYS, x)[0] - exact))))
            for solver in (SAMPLERS[name](process, model, num_steps=n, noise_removal=False) for n in (100, 200))
        ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_eps_follows_from_what_x0_becomes():
    process, x, t = Linear(), jnp.full((2, *SHAPE), 0.7), jnp.array([0.5, 1.0])
    x0 = jnp.array([[0.3, -4.0], [2.5, 1.0]]).reshape(1, *SHAPE).repeat(2, 0)

    def model(x, t):
        return Prediction(x0, jnp.zeros_like(x))

    found = clipped(process, model, "range", LIMITS)(x, t)
    np.testing.assert_array_equal(found.x0[0].ravel(), np.float32([0.3, -1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found.eps[:, [0, 1], [0, 1]], 0)  # of what was in the range
    changed = np.array([[False, True], [True, False]])
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    made = alpha * found.x0[:, changed, 0] + sigma * found.eps[:, changed, 0]
    np.testing.assert_allclose(made, 0.7, rtol=1e-6)


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1.0)])
def test_dynamic_thresholds_divide_by_the_quantile_of_a_samples_size(limits):
    low, high = limits
    relative = jnp.array([[0.1, -0.2, 0.3, -0.4], [3.0, -1.0, 0.5, 2.0]]).reshape(2, *SHAPE)
    x0 = (low + high) / 2 + (high - low) / 2 * relative

    def model(x, t):
        return Prediction(x0, jnp.zeros_like(x))

    process, x, t = VE(), jnp.zeros((2, *SHAPE)), jnp.ones(2)
    found = clipped(process, model, "dynamic", limits, quantile=2 / 3)(x, t).x0  # the third of four: 2
    np.testing.assert_array_equal(found[0], x0[0])
    expected = (low + high) / 2 + (high - low) / 2 * np.array([1.0, -0.5, 0.25, 1.0])
    np.testing.assert_allclose(found[1].ravel(), expected, rtol=1e-6, atol=1e-7)


def test_clippings_that_are_none_are_refused():
    model = INSIDE.model(VP())
    assert clipped(VP(), model, "none", LIMITS) is model
    for name, quantile, words in (("rnge", 0.995, "did you mean 'range'"), ("dynamic", 0.0, "quantile must")):
        with pytest.raises(UsageError, match=words):
            clipped(VP(), model, name, LIMITS, quantile=quantile)
    assert set(CLIPPINGS) == {"none", "range", "dynamic"}
