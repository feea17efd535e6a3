import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.oracles import Gaussian
from score_sde.score import data_prediction, noise_prediction, precondition, preconditioning, velocity_prediction
from score_sde.sde import EDM, VE, VP, SubVP

X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
T = jnp.array([0.001, 0.5, 1.0])


def seen_by_network(sde, t=T, **options):
    """The network's input and label, and the factor on its output."""
    seen = {}

    def network(x, label):
        seen.update(x=x, label=label)
        return jnp.ones_like(x)

    options = dict(continuous=True, centered=True, scale_by_sigma=isinstance(sde, VE)) | options
    score = precondition(network, preconditioning(sde, **options))(X[: len(t)], t)
    return seen["x"], seen["label"], score[:, 0, 0, 0]


@pytest.mark.parametrize("sde", [VP(num_scales=500), SubVP()])
def test_vp_networks_predict_the_noise_and_see_999_t(sde):
    x, label, factor = seen_by_network(sde)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_allclose(label, 999 * T, rtol=1e-6)
    np.testing.assert_allclose(factor, -1 / sde.sigma(T), rtol=1e-6)


def test_discrete_vp_networks_see_the_unrounded_position_in_the_chain():
    sde = VP(num_scales=500)
    t = jnp.array([0.0, 0.5, 1.0])
    _, label, factor = seen_by_network(sde, t, continuous=False)
    np.testing.assert_allclose(label, [0, 249.5, 499], rtol=1e-6)
    np.testing.assert_allclose(factor, -1 / sde.chain_marginal(jnp.array([0, 249, 499]) / 499)[1], rtol=1e-6)


def test_ve_networks_see_sigma_and_are_divided_by_it():
    sde = VE()
    x, label, factor = seen_by_network(sde, centered=False)
    np.testing.assert_allclose(x, 2 * X - 1, rtol=1e-6)
    np.testing.assert_allclose(label, sde.sigma(T), rtol=1e-6)
    np.testing.assert_allclose(factor, 1 / sde.sigma(T), rtol=1e-6)


def test_discrete_ve_networks_see_labels_that_count_from_the_highest_noise():
    sde = VE(num_scales=10)
    t = jnp.linspace(1.0, 1e-5, 10)
    x = jnp.zeros((10, 2, 2, 1))
    labels = []
    score = precondition(
        lambda x, label: labels.append(label) or jnp.ones_like(x),
        preconditioning(sde, continuous=False, centered=False, scale_by_sigma=True),
    )(x, t)
    np.testing.assert_array_equal(labels[0], np.arange(10))
    np.testing.assert_allclose(score[:, 0, 0, 0], 1 / np.geomspace(50, 0.01, 10), rtol=1e-5)


def test_ve_networks_without_scaling_learn_the_raw_score():
    np.testing.assert_array_equal(seen_by_network(VE(), scale_by_sigma=False)[2], 1)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), EDM()], ids=["vp", "subvp", "ve", "edm"])
@pytest.mark.parametrize("row", [noise_prediction, data_prediction, velocity_prediction])
def test_networks_that_predict_noise_data_or_velocity_give_the_same_score(sde, row):
    oracle = Gaussian(np.full(X.shape[1:], 0.3), 0.25)

    def network(x, label):
        t = label / 999
        m, std = (scale[:, None, None, None] for scale in (sde.alpha(t), sde.sigma(t)))
        x0, z = oracle.posterior_mean(sde, x, t), -std * oracle.score(sde, x, t)
        return {noise_prediction: z, data_prediction: x0, velocity_prediction: m * z - std * x0}[row]

    with jax.enable_x64(True):
        # Nearer to the data the score is a difference of two numbers 1 / std^2 times as large.
        x, t = jnp.asarray(np.asarray(X), float), jnp.array([0.05, 0.5, 1.0])
        expected = oracle.score(sde, x, t)
        np.testing.assert_allclose(precondition(network, row(sde))(x, t), expected, rtol=1e-8, atol=1e-9)


def test_combinations_that_are_not_defined_are_refused():
    with pytest.raises(UsageError, match="continuous=True"):
        seen_by_network(SubVP(), continuous=False)
    with pytest.raises(UsageError, match="scale_by_sigma"):
        seen_by_network(VP(), scale_by_sigma=True)
