"""Golden numbers of the paper's code: x = 2, score -1, so x_mean = 2 a - b and the noise's std is c."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.sampling.correctors import ald, langevin, langevin_per_sample
from score_sde.sampling.predictors import ancestral_sampling, euler_maruyama, reverse_diffusion
from score_sde.sde import VE, VP, SubVP

GOLDEN = [  # sde, t, predictor, x_mean, noise std, x_mean of the probability flow
    (VP(), 1.0, euler_maruyama, 2.0, 0.14142133, 2.01),
    (VP(), 0.5, euler_maruyama, 2.0, 0.10024971, 2.0050249),
    (VP(), 1e-3, euler_maruyama, 2.0, 0.01094984, 2.0000598),
    (VP(), 1.0, reverse_diffusion, 2.0001009, 0.14142133, 2.0101008),
    (VP(), 0.5, reverse_diffusion, 2.0000253, 0.10020006, 2.0050454),
    (VP(), 1e-3, reverse_diffusion, 2.0, 0.01000007, 2.0000501),
    (VP(), 1.0, ancestral_sampling, 2.0001018, 0.14142133, None),
    (VP(), 0.5, ancestral_sampling, 2.0000255, 0.10020006, None),
    (VP(), 1e-3, ancestral_sampling, 2.0, 0.01000007, None),
    (SubVP(), 0.5, euler_maruyama, 2.0000629, 0.09993587, 2.0050564),
    (SubVP(), 0.5, reverse_diffusion, 2.0000629, 0.09993587, 2.0050564),
    (SubVP(), 1e-3, euler_maruyama, 2.0001199, 1.62360e-4, 2.0001199),
    (SubVP(), 1e-3, reverse_diffusion, 2.0001199, 1.62360e-4, 2.0001199),
    (VE(), 1.0, euler_maruyama, -40.585972, 6.5257936, -19.292986),
    (VE(), 0.5, euler_maruyama, 1.9914829, 0.09228870, 1.9957414),
    (VE(), 1e-3, euler_maruyama, 1.9999982, 0.00131629, 1.9999992),
    (VE(), 1.0, reverse_diffusion, -40.268066, 6.5013895, -19.134033),
    (VE(), 0.5, reverse_diffusion, 1.9916184, 0.09155118, 1.9958092),
    (VE(), 1e-3, reverse_diffusion, 1.9999000, 0.00999999, 1.9999501),
    (VE(), 1.0, ancestral_sampling, -40.268066, 6.4461961, None),
    (VE(), 0.5, ancestral_sampling, 1.9916184, 0.09077390, None),
    (VE(), 1e-3, ancestral_sampling, 1.9999000, 0.0, None),
]


def of_score(predictor, sde, t, w=1.0):
    """(a, b, c) of x_mean = a x + b score and x = x_mean + c z."""
    t = jnp.full(1, t, jnp.float32)
    step = predictor(sde, t, None, w)
    assert step.x0 is None
    return float(step.x[0]), float(-sde.sigma(t)[0] * step.eps[0]), float(step.z[0])


@pytest.mark.parametrize(("sde", "t", "predictor", "x_mean", "std", "flow_mean"), GOLDEN)
def test_predictors_equal_those_of_the_papers_code(sde, t, predictor, x_mean, std, flow_mean):
    a, b, c = of_score(predictor, sde, t)
    # Where the reference's own float32 arithmetic is coarser than 1e-5, the bound is its rounding error: in the VE
    # chain G^2 is a difference of two squares near 2500 computed from a table that is off by 4e-6 of 50; in the sub-VP
    # diffusion at 1e-3 a difference from 1; and sqrt(1/1000) is rounded.
    b_error = 2 * 2500 * 1e-7 * 4 if isinstance(sde, VE) and t == 1 else 1e-6
    c_error = 1.2e-7 * 0.12 / 1e3 / (2 * std) if isinstance(sde, SubVP) else 3e-5 * std
    np.testing.assert_allclose(2 * a - b, x_mean, atol=b_error, rtol=1e-6)
    np.testing.assert_allclose(c, std, atol=c_error + 1e-9)
    if flow_mean is not None:
        a, b, c = of_score(predictor, sde, t, 0.0)
        np.testing.assert_allclose(2 * a - b, flow_mean, atol=b_error, rtol=1e-6)
        assert c == 0


def test_annealed_langevin_steps_equal_those_of_the_papers_code():
    t = jnp.full(1, 0.5)
    x = jnp.ones((1, 2, 2, 1))
    np.testing.assert_allclose(ald(VE(), t, 0.16, x, x), [0.0256], rtol=1e-5)
    np.testing.assert_allclose(ald(VP(), t, 0.16, x, x), [0.0466785], rtol=1e-5)


def test_langevin_steps_use_norms_averaged_over_the_batch():
    t = jnp.full(2, 0.5)
    score = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1) * jnp.ones((2, 2, 2, 1))  # norms 2 and 6
    z = jnp.array([2.0, 4.0]).reshape(2, 1, 1, 1) * jnp.ones((2, 2, 2, 1))  # norms 4 and 8
    expected = 2 * (0.16 * 6 / 4) ** 2
    np.testing.assert_allclose(langevin(VE(), t, 0.16, score, z), [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(langevin(VP(), t, 0.16, score, z), [expected * 0.98996] * 2, rtol=1e-5)
    alpha = 1 - 10.05 / 1000
    np.testing.assert_allclose(langevin(SubVP(), t, 0.16, score, z), [expected * alpha] * 2, rtol=1e-5)


def test_langevin_steps_a_sample_use_its_own_norm_and_the_expected_norm_of_noise():
    t = jnp.full(2, 0.5)
    score = jax.random.normal(jax.random.key(0), (2, 4, 4, 2)) * jnp.array([1.0, 3.0])[:, None, None, None]
    z = jax.random.normal(jax.random.key(1), score.shape)
    norms = np.linalg.norm(np.asarray(score).reshape(2, -1), axis=1)
    np.testing.assert_allclose(langevin_per_sample(VE(), t, 0.16, score, z), 2 * 0.16**2 * 32 / norms**2, rtol=1e-6)
    alone = langevin_per_sample(VE(), t[:1], 0.16, score[:1], z[:1])
    np.testing.assert_array_equal(langevin_per_sample(VE(), t, 0.16, score, z)[:1], alone)
    assert langevin(VE(), t[:1], 0.16, score[:1], z[:1])[0] != langevin(VE(), t, 0.16, score, z)[0]
