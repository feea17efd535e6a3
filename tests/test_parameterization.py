import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.objective import Objective
from score_sde.oracles import Gaussian
from score_sde.parameterization import (
    NOISE_CONDS,
    PARAMETERIZATIONS,
    KarrasF,
    Noise,
    ScaledScore,
    Velocity,
    cosine_levels,
    linear_levels,
    scaled_linear_levels,
)
from score_sde.paths import PROCESSES, Linear
from score_sde.process import LEAST_TIME, score
from score_sde.randomness import expand
from score_sde.sde import EDM, VE, VP, SubVP
from score_sde.times import OnChain, Uniform
from score_sde.training.recipe import _of_paper
from score_sde.weights import NoiseWeight

X = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
T = jnp.array([0.001, 0.5, 1.0])


def seen_by_network(sde, t=T, *, continuous=True, centered=True, scale_by_sigma=None):
    """The input and noise condition of a network of the paper, and the factor of its output in the score."""
    seen, times = {}, Uniform() if continuous else OnChain()

    def network(x, noise_cond):
        seen.update(x=x, noise_cond=noise_cond)
        return jnp.ones_like(x)

    scaled = isinstance(sde, VE) if scale_by_sigma is None else scale_by_sigma
    row = _of_paper(sde, times, scale_by_sigma=scaled)
    levels = Objective(sde, row, times, NoiseWeight()).levels
    factor = score(levels, row.model(network, levels, centered=centered)(X[: len(t)], t), t)
    return seen["x"], seen["noise_cond"], factor[:, 0, 0, 0]


@pytest.mark.parametrize("sde", [VP(num_scales=500), SubVP()])
def test_vp_networks_predict_the_noise_and_see_999_t(sde):
    x, noise_cond, factor = seen_by_network(sde)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_allclose(noise_cond, 999 * T, rtol=1e-6)
    np.testing.assert_allclose(factor, -1 / sde.sigma(T), rtol=1e-6)


def test_discrete_vp_networks_see_the_unrounded_position_in_the_chain():
    sde = VP(num_scales=500)
    t = jnp.array([0.0, 0.5, 1.0])
    _, noise_cond, factor = seen_by_network(sde, t, continuous=False)
    np.testing.assert_allclose(noise_cond, [0, 249.5, 499], rtol=1e-6)
    np.testing.assert_allclose(factor, -1 / sde.chain_marginal(jnp.array([0, 249, 499]) / 499)[1], rtol=1e-6)


def test_ve_networks_see_sigma_and_are_divided_by_it():
    sde = VE()
    x, noise_cond, factor = seen_by_network(sde, centered=False)
    np.testing.assert_allclose(x, 2 * X - 1, rtol=1e-6)
    np.testing.assert_allclose(noise_cond, sde.sigma(T), rtol=1e-6)
    np.testing.assert_allclose(factor, 1 / sde.sigma(T), rtol=1e-6)


def test_discrete_ve_networks_see_labels_that_count_from_the_highest_noise():
    sde = VE(num_scales=10)
    t = jnp.linspace(1.0, 1e-5, 10)
    x = jnp.zeros((10, 2, 2, 1))
    row, told = _of_paper(sde, OnChain(), scale_by_sigma=True), []
    levels = OnChain().levels(sde)
    model = row.model(lambda x, noise_cond: told.append(noise_cond) or jnp.ones_like(x), levels, centered=False)
    factor = score(levels, model(x, t), t)
    np.testing.assert_array_equal(told[0], np.arange(10))
    np.testing.assert_allclose(factor[:, 0, 0, 0], 1 / np.geomspace(50, 0.01, 10), rtol=1e-5)
    for off in (0.3 / 9, -0.3 / 9):  # the noise level is that of the label, off the points of the chain too
        between = levels.sigma(jnp.clip(t + off, 0, 1))
        np.testing.assert_allclose(between, np.geomspace(50, 0.01, 10), rtol=1e-5)


def test_ve_networks_without_scaling_learn_the_raw_score():
    np.testing.assert_allclose(seen_by_network(VE(), scale_by_sigma=False)[2], 1, rtol=1e-6)


def test_combinations_that_are_not_defined_are_refused():
    with pytest.raises(UsageError, match="continuous=True"):
        seen_by_network(SubVP(), continuous=False)
    with pytest.raises(UsageError, match="scale_by_sigma"):
        seen_by_network(VP(), scale_by_sigma=True)
    with pytest.raises(UsageError, match="Linear has no chain"):
        OnChain().levels(Linear())
    with pytest.raises(UsageError, match="levels of a chain have no velocity"):
        Objective(VP(), Velocity(), OnChain(), NoiseWeight())
    with pytest.raises(UsageError, match=r"parameterization\.name"):
        _of_paper(Linear(), Uniform(), scale_by_sigma=False)
    with pytest.raises(UsageError, match=r"data\.centered=True"):
        KarrasF().model(lambda x, noise_cond: x, VP(), centered=False)


every_row = pytest.mark.parametrize("row", [row() for row in PARAMETERIZATIONS.values()], ids=PARAMETERIZATIONS)
every_process = pytest.mark.parametrize("process", [make() for make in PROCESSES.values()], ids=PROCESSES)

DATA = Gaussian(np.linspace(-0.5, 0.6, 32).reshape(4, 4, 2), np.linspace(0.01, 0.4, 32).reshape(4, 4, 2))


@every_process
@every_row
def test_an_exact_network_under_any_row_and_process_is_the_exact_prediction(row, process):
    """Times from near the data to 1, where alpha may be 0. The posterior mean of x_0 gives eps and the target."""
    with jax.enable_x64(True):
        x, t = jnp.asarray(np.asarray(X), float), jnp.array([0.05, 0.5, 1.0])
        at = row._read_at(process, t)  # rows of eps alone are asked at the last time with a finite noise level
        x0 = DATA.posterior_mean(process, x, at)
        eps = (x - expand(process.alpha(at), x) * x0) / expand(process.sigma(at), x)
        found = row.model(lambda *_: row.target(process, x0, eps, at), process)(x, t)
        np.testing.assert_allclose(found.x0, x0, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.eps, eps, rtol=1e-9, atol=1e-10)


@every_process
@every_row
def test_every_row_is_the_general_formula(row, process):
    """x_0 = (q x - sigma F) / det, eps = (alpha F - p x) / det; an error of F is one of eps times det / alpha."""
    with jax.enable_x64(True):
        t, F, one = jnp.array([0.05, 0.5, 0.95]), jnp.asarray(np.asarray(X[::-1]), float), jnp.ones((3, 4, 4, 2))
        p, q = (np.asarray(row.target(process, *pair, t))[:, :1, :1, :1] for pair in ((one, 0 * one), (0 * one, one)))
        alpha, sigma = (np.asarray(expand(scale(t), F), float) for scale in (process.alpha, process.sigma))
        det, x = alpha * q - sigma * p, np.asarray(X, float)
        found = row.predict(process, jnp.asarray(x), F, t)
        np.testing.assert_allclose(found.x0, (q * x - sigma * F) / det, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.eps, (alpha * F - p * x) / det, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(row.noise_error(process, t), (alpha / det)[:, 0, 0, 0], rtol=1e-9)


@every_process
@every_row
def test_predictions_are_finite_in_float32_from_the_first_time_to_the_last(row, process):
    t = jnp.array([LEAST_TIME, 0.5, 1.0])
    found = row.model(lambda x, noise_cond: x + expand(noise_cond, x), process)(X, t)
    assert np.all(np.isfinite(found.x0)) and np.all(np.isfinite(found.eps))


@every_process
def test_under_karras_row_input_and_target_have_variance_1(process):
    row, seen = KarrasF(sigma_data=0.7), []
    with jax.enable_x64(True):
        t = jnp.array([0.01, 0.5, 1.0])
        alpha, sigma, one = process.alpha(t), process.sigma(t), jnp.ones((3, 1, 1, 1))
        row.model(lambda x, noise_cond: seen.append((x, noise_cond)) or x, process)(one, t)
        c_in = seen[0][0][:, 0, 0, 0]
        np.testing.assert_allclose(c_in**2 * (alpha**2 * 0.49 + sigma**2), 1, rtol=1e-12)
        p, q = (row.target(process, *pair, t)[:, 0, 0, 0] for pair in ((one, 0 * one), (0 * one, one)))
        np.testing.assert_allclose(p**2 * 0.49 + q**2, 1, rtol=1e-12)
        np.testing.assert_allclose(p * alpha * 0.49 + q * sigma, 0, atol=1e-12)  # so x_t tells nothing of it
    assert np.all(np.isfinite(seen[0][1]))


@pytest.mark.parametrize(
    ("process", "row", "c_in", "c_out", "c_noise"),
    [
        (VP(), Noise(), lambda s: 1 / jnp.sqrt(s**2 + 1), lambda s: -s, lambda s: 999 * vp_time(s)),
        (EDM(0.02, 100.0), ScaledScore("log_half_noise_level"), jnp.ones_like, lambda s: s, lambda s: jnp.log(s / 2)),
        (VE(0.02, 100.0), ScaledScore("log_half_noise_level"), jnp.ones_like, lambda s: s, lambda s: jnp.log(s / 2)),
    ],
    ids=["VPPrecond", "VEPrecond under edm", "VEPrecond"],
)
def test_the_preconditionings_of_karras_give_the_same_score_as_ours(process, row, c_in, c_out, c_noise):
    """A denoiser D = x + c_out F(c_in x, c_noise) (Karras et al., 2022, table 1) has the score (D - x) / s^2 at x."""

    def network(x, noise_cond):
        return jnp.sin(3 * x) + jnp.cos(expand(noise_cond, x) / 50)

    with jax.enable_x64(True):
        s, x = jnp.array([0.03, 0.9, 70.0]), jnp.asarray(np.asarray(X), float)
        noise_cond = c_noise(s)
        denoised = x + expand(c_out(s), x) * network(expand(c_in(s), x) * x, noise_cond)
        t = process.time(s)
        alpha = expand(process.alpha(t), x)
        ours = score(process, row.model(network, process)(alpha * x, t), t)
        np.testing.assert_allclose(alpha * ours, (denoised - x) / expand(s, x) ** 2, rtol=1e-9, atol=1e-12)


def vp_time(s):
    return (jnp.sqrt(0.01 + 39.8 * jnp.log1p(s**2)) - 0.1) / 19.9


def test_the_network_of_edms_ve_sees_the_logarithm_of_songs_sigma():
    """Data in [0, 1] have half of the noise level; the network's input, 2x - 1, is the same."""
    ours, theirs = VE(0.01, 50.0), VE(0.02, 100.0)
    np.testing.assert_allclose(
        NOISE_CONDS["log_half_noise_level"](ScaledScore(), theirs, T), jnp.log(ours.sigma(T)), rtol=1e-5, atol=1e-6
    )


def test_the_index_of_iddpms_chain_is_that_of_the_nearest_level():
    levels, index = cosine_levels(), NOISE_CONDS["cosine_index"]
    steps = np.array([1, 2, 17, 500, 998])
    for shift in (-0.49, 0.0, 0.49):  # of the way to a neighbour
        k = levels[steps] + shift * np.diff(levels)[steps - (shift < 0)]
        np.testing.assert_array_equal(index(Noise(), EDM(1e-4, 1e4), jnp.asarray(k / 1e4, jnp.float32)), steps - 1)
    assert index(Noise(), EDM(1e-4, 1e4), jnp.array([1e-7]))[0] == -1
    assert index(Noise(), PROCESSES["cosine"](), jnp.ones(1))[0] == 999


def test_the_index_of_ddpms_chain_is_that_of_the_nearest_level():
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = np.sqrt((1 - kept) / kept)
    np.testing.assert_allclose(linear_levels()[1:], levels, rtol=1e-9)
    k = jnp.asarray(levels[[0, 1, 16, 499, 999]] / 1e4, jnp.float32)
    np.testing.assert_array_equal(NOISE_CONDS["linear_index"](Noise(), EDM(1e-4, 1e4), k), [0, 1, 16, 499, 999])
    assert NOISE_CONDS["linear_index"](Noise(), EDM(1e-4, 1e4), jnp.array([1e-7]))[0] == 0


def test_the_step_of_stable_diffusions_chain_counts_from_1_and_its_last_level_is_146_tenths():
    levels, step = scaled_linear_levels(), NOISE_CONDS["scaled_linear_step"]
    beta = (0.00085**0.5 + np.arange(1000) / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
    np.testing.assert_allclose(1 / (1 + levels[1:] ** 2), np.cumprod(1 - beta), rtol=1e-9)
    assert levels[-1] == pytest.approx(14.6146, abs=1e-4)
    k = jnp.asarray(levels[[0, 1, 2, 500, 1000]] / 1e4, jnp.float32)
    np.testing.assert_array_equal(step(Noise(), EDM(1e-4, 1e4), k), [1, 1, 2, 500, 1000])
