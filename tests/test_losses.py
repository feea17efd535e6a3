import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.losses import continuous_perturbation, discrete_perturbation, dsm_loss
from score_sde.oracles import Gaussian
from score_sde.randomness import expand, normal, sample_keys, stream
from score_sde.sde import VE, VP, SubVP

KEYS = sample_keys(jax.random.key(0), jnp.arange(20_000))
OPTIONS = dict(likelihood_weighting=False, reduce_mean=True)

DATA = Gaussian(np.full((2, 2, 1), 0.3), 0.25)


def draw(perturbation, shape=(2, 2, 1), keys=KEYS):
    return perturbation.sample_times(stream(keys, 1)), normal(stream(keys, 2), shape)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_the_exact_score_has_the_least_possible_loss(sde):
    """E (s score + z)^2 is 1 - s^2 / (m^2 v + s^2), the variance of z that x leaves open."""
    perturbation = continuous_perturbation(sde)
    t, z = draw(perturbation)
    losses = dsm_loss(DATA.score_fn(sde), perturbation, DATA.sample(stream(KEYS, 3)), t, z, **OPTIONS)
    m, s = np.asarray(sde.alpha(t), np.float64), np.asarray(sde.sigma(t), np.float64)
    least = 1 - s**2 / (m**2 * 0.25 + s**2)
    error = np.std(losses - least) / np.sqrt(len(t))
    assert abs(np.mean(losses - least)) < 4 * error


def test_continuous_times_are_uniform_above_eps():
    t = np.asarray(continuous_perturbation(VP(), eps=0.1).sample_times(KEYS))
    assert 0.1 <= t.min() < 0.101
    assert 0.999 < t.max() <= 1
    np.testing.assert_allclose(t.mean(), 0.55, atol=4 * 0.26 / np.sqrt(len(t)))


@pytest.mark.parametrize("sde", [VP(num_scales=50), VE(num_scales=10)])
def test_discrete_times_hit_every_step_of_the_chain_equally_often(sde):
    t = discrete_perturbation(sde).sample_times(KEYS)
    counts = np.bincount(sde.chain_index(t), minlength=sde.num_scales)
    assert len(counts) == sde.num_scales
    expected = len(t) / sde.num_scales
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_the_smld_loss_is_the_papers():
    """sigma^2 |net - (-noise / sigma^2)|^2, half the sum."""
    sde = VE(num_scales=10)
    perturbation, keys = discrete_perturbation(sde), KEYS[:5]
    t, z = draw(perturbation, keys=keys)
    x0 = normal(stream(keys, 3), z.shape[1:])

    def score_fn(x, t):
        return jnp.sin(x) - 0.3

    actual = dsm_loss(score_fn, perturbation, x0, t, z, likelihood_weighting=False, reduce_mean=False)
    sigma = np.geomspace(0.01, 50, 10)[np.asarray(sde.chain_index(t))][:, None, None, None]
    noise = sigma * np.asarray(z)
    target = -noise / sigma**2
    expected = 0.5 * np.sum((np.sin(x0 + noise) - 0.3 - target) ** 2, axis=(1, 2, 3)) * sigma[:, 0, 0, 0] ** 2
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_ddpm_loss_is_the_papers():
    """|net - noise|^2, mean over the elements, for a network that predicts the noise."""
    sde = VP(num_scales=100)
    perturbation, keys = discrete_perturbation(sde), KEYS[:5]
    t, z = draw(perturbation, keys=keys)
    x0 = normal(stream(keys, 3), z.shape[1:])

    def network(x):
        return jnp.cos(x) + 0.1

    def score_fn(x, t):
        return -network(x) / expand(sde.chain_marginal(t)[1], x)

    actual = dsm_loss(score_fn, perturbation, x0, t, z, **OPTIONS)
    alphas = np.cumprod(1 - np.linspace(0.1 / 100, 20 / 100, 100))[np.asarray(sde.chain_index(t))][:, None, None, None]
    x = np.sqrt(alphas) * np.asarray(x0) + np.sqrt(1 - alphas) * np.asarray(z)
    np.testing.assert_allclose(actual, np.mean((network(x) - z) ** 2, axis=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_likelihood_weighting_weighs_by_the_squared_diffusion(sde):
    perturbation, keys = continuous_perturbation(sde, eps=0.01), KEYS[:5]
    t, z = draw(perturbation, keys=keys)
    x0 = jnp.zeros_like(z)
    score_fn = DATA.score_fn(sde)
    actual = dsm_loss(score_fn, perturbation, x0, t, z, likelihood_weighting=True, reduce_mean=False)
    std, g = np.asarray(sde.sigma(t)), np.asarray(sde.g(t))
    score = np.asarray(score_fn(expand(sde.sigma(t), z) * z, t))
    expected = 0.5 * np.sum((score + z / std[:, None, None, None]) ** 2, axis=(1, 2, 3)) * g**2
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_sub_vp_has_no_discrete_training():
    with pytest.raises(UsageError, match="continuous=True"):
        discrete_perturbation(SubVP())
