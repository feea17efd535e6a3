import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.configs.presets import compose, ddpmpp, vp

from score_sde.ema import Constant
from score_sde.errors import UsageError
from score_sde.training.recipe import check_overrides
from score_sde.training.state import NAN_GRADIENTS, adam, apply_gradients, initial_state
from score_sde.training.trainable import warmup_of

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


def test_the_rate_of_edm2_rises_over_images_and_falls_as_the_inverse_square_root():
    """Karras et al. (2024), eq. 15 and appendix A: Adam's first moment off, each update is -rate sign(g)."""
    ramp, after, rates = 2.5, 4.0, []
    states = run([[1.0, 1.0, 1.0]] * 12, beta1=0.0, warmup=ramp, decay_after=after)
    for n, (before, now) in enumerate(itertools.pairwise(states)):
        rates.append(0.1 * min(n / ramp, 1) / np.sqrt(max(n / after, 1)))
        np.testing.assert_allclose(before.params["w"] - now.params["w"], rates[-1], rtol=1e-5, atol=1e-7)
    assert rates[0] == 0 and rates[3] == rates[4] == 0.1 > rates[5]


def test_the_ramp_of_edm_is_counted_in_images_whatever_the_batch():
    config = compose(ddpmpp, vp)
    config.optim.warmup_images = 10_000_000
    for batch, updates in ((512, 19_531.25), (256, 39_062.5), (4096, 2_441.40625)):
        config.training.batch_size = batch
        assert warmup_of(config) == updates
    with pytest.raises(UsageError, match=r"optim.warmup has no effect, because optim.warmup_images=10000000"):
        check_overrides(config, ["optim.warmup"])


def test_the_decay_of_the_second_moment_can_be_set():
    gradients = [[1.0, 2.0, 3.0], [0.1, 0.0, 0.2]]
    w, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
    for n, g in enumerate(np.array(gradients)):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - 0.1 * (m / (1 - 0.9 ** (n + 1))) / (np.sqrt(v / (1 - 0.99 ** (n + 1))) + 1e-8)
    np.testing.assert_allclose(run(gradients, beta2=0.99)[-1].params["w"], w, rtol=1e-5)


def test_gradients_that_are_not_finite_are_replaced_as_edm_and_edm2_do():
    grads = {"w": jnp.array([jnp.nan, jnp.inf, -jnp.inf, 2e5])}
    np.testing.assert_array_equal(NAN_GRADIENTS["replace"](grads)["w"], np.float32([0, 1e5, -1e5, 2e5]))
    np.testing.assert_array_equal(NAN_GRADIENTS["zero"](grads)["w"], np.float32([0, 0, 0, 2e5]))
    assert NAN_GRADIENTS["nonfinite"](grads) is grads


def test_an_update_with_replaced_gradients_is_made():
    spoiled = jnp.array([jnp.nan, 1.0, -jnp.inf])
    skipped = run([spoiled])[-1]
    made = run([NAN_GRADIENTS["zero"]({"w": spoiled})["w"]])[-1]
    np.testing.assert_array_equal(skipped.params["w"], PARAMS["w"])
    np.testing.assert_allclose(made.params["w"] - PARAMS["w"], [0.0, -0.1, 0.0], atol=1e-6)


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
