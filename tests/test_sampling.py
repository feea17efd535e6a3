"""Samplers with the exact score of a Gaussian instead of a network: mean and variance are known at every step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimised import solve

from score_sde import sampling
from score_sde.errors import UsageError
from score_sde.oracles import Gaussian
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import advance, predictor_corrector, probability_flow
from score_sde.sampling.predictor_corrector import time_steps
from score_sde.sampling.predictors import PREDICTORS, exponential
from score_sde.sde import VE, VP, SubVP

MEAN, STD = 0.3, 0.5
SDES = [VP(), SubVP(), VE()]
SHAPE = (4, 4, 2)
DATA = Gaussian(np.full(SHAPE, MEAN), STD**2)
KEYS = sample_keys(jax.random.key(0), jnp.arange(512))
N = len(KEYS) * np.prod(SHAPE)


def start(sde, keys=KEYS):
    return sde.prior_sample(stream(keys, Stream.PRIOR), SHAPE)


def exact_moments(sde, predictor, *, probability_flow=False, noise_removal=True):
    """Mean and variance of the sampler's output for a Gaussian: an affine recursion, in float64."""
    mean, variance = 0.0, sde.prior_std**2
    times = np.linspace(1.0, sde.sampling_eps, sde.num_scales, dtype=np.float32)
    step = jax.jit(PREDICTORS[predictor], static_argnums=(0, 3))(sde, times, None, 0.0 if probability_flow else 1.0)
    scale, std = (np.asarray(v, np.float64) for v in (sde.alpha(times), sde.sigma(times)))
    score_weights = -std * np.asarray(step.eps, np.float64)  # eps is -std score
    for i, (a, b, c) in enumerate(zip(np.asarray(step.x), score_weights, np.asarray(step.z), strict=True)):
        v = (scale[i] * STD) ** 2 + std[i] ** 2
        mean = (a - b / v) * mean + b * scale[i] * MEAN / v
        variance = (a - b / v) ** 2 * variance
        if not (noise_removal and i == len(times) - 1):
            variance += c**2
    return mean, variance


def assert_moments(x, mean, variance):
    """Within four standard errors; and numbers of an image independent."""
    x = np.asarray(x, np.float64)
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / N)
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / N)
    correlations = np.corrcoef(x.reshape(len(x), -1).T) - np.eye(np.prod(SHAPE))
    assert np.abs(correlations).max() < 5.5 / np.sqrt(len(x))


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion", "ancestral_sampling"])
@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_predictors_give_the_moments_of_their_recursion(sde, predictor, flow):
    if predictor == "ancestral_sampling" and (flow or isinstance(sde, SubVP)):
        with pytest.raises(UsageError, match="reverse_diffusion"):
            predictor_corrector(sde, DATA.model(sde), predictor=predictor, probability_flow=flow)
        return
    solver = predictor_corrector(sde, DATA.model(sde), predictor=predictor, probability_flow=flow)
    x, nfe = solve(solver, KEYS, start(sde))
    assert_moments(x, *exact_moments(sde, predictor, probability_flow=flow))
    np.testing.assert_array_equal(nfe, 1000)


def std_at(sde, eps, predictor, probability_flow=False):
    """The standard deviation at eps that a predictor gives data N(0, 0.25): an affine recursion, in float64."""
    grid = time_steps(sde, eps)
    t, t_next = (np.asarray(column, np.float32) for column in grid)
    predict = exponential if probability_flow else PREDICTORS[predictor]
    step = jax.jit(predict, static_argnums=(0, 3))(sde, t, t_next, 0.0 if probability_flow else 1.0)
    of_x, of_x0, of_eps, of_z = (0.0 if part is None else np.asarray(part, np.float64) for part in step)
    m, s = sde.alpha(grid.t), sde.sigma(grid.t)
    v = m**2 * 0.25 + s**2
    variance = v[0]
    for kept, noise in zip(of_x + (of_x0 * m * 0.25 + of_eps * s) / v, of_z, strict=True):
        variance = kept**2 * variance + noise**2
    return np.sqrt(variance)


@pytest.mark.parametrize(
    ("sde", "exact", "predictors"),
    [
        (VP(), 0.838, ("euler_maruyama", "reverse_diffusion", "ancestral_sampling")),
        (SubVP(), 0.681, ("euler_maruyama", "reverse_diffusion")),
        (VE(), 0.516, ("euler_maruyama", "reverse_diffusion", "ancestral_sampling")),
    ],
    ids=["vp", "subvp", "ve"],
)
def test_samples_end_at_the_last_time_that_is_asked_for(sde, exact, predictors):
    for predictor in predictors:
        assert std_at(sde, 0.3, predictor) == pytest.approx(exact, rel=0.005)
    assert std_at(sde, 0.3, "euler_maruyama", probability_flow=True) == pytest.approx(exact, rel=0.005)


def test_a_sampler_takes_the_steps_of_its_grid():
    """On 50 steps, as its recursion says; projections are to the time where a step ends."""
    sde, ends = VE(num_scales=50), []

    def project(keys, t, x, x_mean):
        jax.debug.callback(lambda t: ends.append(float(t)), t[0])
        return x, x_mean

    data, options = Gaussian(np.zeros(SHAPE), 0.25), dict(predictor="reverse_diffusion", noise_removal=False, eps=0.3)
    x, _ = solve(predictor_corrector(sde, data.model(sde), project=project, **options), KEYS, start(sde))
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(ends, reverse=True), np.linspace(1, 0.3, 51)[1:], rtol=1e-6)
    # The recursion begins at p_1, the sampler at the prior: forgotten.
    assert abs(np.var(np.asarray(x, np.float64)) / std_at(sde, 0.3, "reverse_diffusion") ** 2 - 1) < 4 * np.sqrt(2 / N)


@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_at_a_process_own_last_time_steps_are_those_of_the_papers_code(sde):
    grid = time_steps(sde, sde.sampling_eps)
    assert grid.t_next is None and len(grid.t) == 1000 and grid.t[-1] == sde.sampling_eps
    corrected = time_steps(sde, 0.3, predicts=False)  # without a predictor nothing moves on from the last time
    assert corrected.t_next is None and corrected.t[-1] == 0.3


@pytest.mark.parametrize(("corrector", "size"), [("langevin", 4), ("langevin_per_sample", 16)])
@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_predictor_corrector_samplers_return_the_data(sde, corrector, size):
    """Discretisation bias of N = 1000 is below 2 % of the standard deviation; with steps a sample, in many dimensions.

    Their size depends on where the sample is, a bias of order 1/D: with the 32 numbers of the other case it is 4 %.
    """
    score_fn = Gaussian(np.full((size, size, 2), MEAN), STD**2).model(sde)
    solver = predictor_corrector(
        sde, score_fn, predictor="reverse_diffusion", corrector=corrector, snr=0.16, n_steps_each=2
    )
    keys = KEYS[: 512 * 16 // size**2]
    x, nfe = solve(solver, keys, sde.prior_sample(stream(keys, Stream.PRIOR), (size, size, 2)))
    np.testing.assert_allclose([np.mean(x), np.std(x)], [MEAN, STD], atol=0.02 * STD)
    np.testing.assert_array_equal(nfe, 3000)


@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_the_ode_sampler_follows_the_exact_flow(sde):
    x_T = start(sde)
    x, _ = solve(probability_flow(sde, DATA.model(sde), rtol=1e-6, atol=1e-6, noise_removal=False), KEYS, x_T)
    exact = jax.jit(DATA.flow, static_argnums=0)(sde, x_T, np.ones(len(x)), np.full(len(x), sde.sampling_eps))
    np.testing.assert_allclose(x, exact, atol=1e-4)
    denoised, nfe = solve(probability_flow(sde, DATA.model(sde)), KEYS, x_T)
    np.testing.assert_allclose([np.mean(denoised), np.std(denoised)], [MEAN, STD], atol=0.02)
    assert len(np.unique(nfe)) > 1  # every sample has its own steps


@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_encoding_inverts_sampling(sde):
    options = dict(rtol=1e-6, atol=1e-6, eps=1e-5)
    x = jax.jit(DATA.sample)(KEYS[:8])
    z, _ = solve(probability_flow(sde, DATA.model(sde), encode=True, **options), KEYS[:8], x)
    back, _ = solve(probability_flow(sde, DATA.model(sde), noise_removal=False, **options), KEYS[:8], z)
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_annealed_langevin_dynamics_alone_reaches_the_data():
    sde = VE(num_scales=200)
    solver = predictor_corrector(
        sde, DATA.model(sde), predictor="none", corrector="ald", snr=0.16, n_steps_each=20, noise_removal=False
    )
    x, nfe = solve(solver, KEYS, start(sde))
    np.testing.assert_allclose([np.mean(x), np.std(x)], [MEAN, STD], atol=0.03)
    np.testing.assert_array_equal(nfe, 4000)


@pytest.mark.parametrize(
    ("predictor", "corrector", "n_steps"),
    [("euler_maruyama", "none", 1), ("none", "ald", 2), ("reverse_diffusion", "langevin", 3)],
)
def test_network_evaluations_are_counted_exactly(predictor, corrector, n_steps):
    sde, calls = VE(num_scales=7), []
    exact = DATA.model(sde)

    def counted(x, t):
        jax.debug.callback(lambda t: calls.append(t), t[0])
        return exact(x, t)

    solver = predictor_corrector(sde, counted, predictor=predictor, corrector=corrector, n_steps_each=n_steps)
    _, nfe = solve(solver, KEYS[:2], start(sde, KEYS[:2]))
    jax.effects_barrier()
    assert nfe.tolist() == [len(calls)] * 2


def test_the_sampler_may_take_another_number_of_steps_than_the_chain_of_training():
    sde = dataclasses.replace(VP(), num_scales=200)
    x, nfe = solve(predictor_corrector(sde, DATA.model(VP())), KEYS, start(sde))
    assert_moments(x, *exact_moments(sde, "euler_maruyama"))
    np.testing.assert_array_equal(nfe, 200)


def test_without_noise_removal_the_last_steps_noise_stays():
    sde = VE(num_scales=100)
    solver = predictor_corrector(sde, DATA.model(sde), predictor="reverse_diffusion", noise_removal=False)
    x, _ = solve(solver, KEYS, start(sde))
    assert_moments(x, *exact_moments(sde, "reverse_diffusion", noise_removal=False))


def test_projections_act_on_every_update():
    sde = VP(num_scales=50)
    known = jnp.full(SHAPE, 0.7)

    def project(keys, t, x, x_mean):
        return x.at[:, :2].set(known[:2]), x_mean.at[:, :2].set(known[:2])

    solver = predictor_corrector(sde, DATA.model(sde), corrector="ald", project=project)
    x, _ = solve(solver, KEYS[:4], start(sde, KEYS[:4]))
    np.testing.assert_array_equal(x[:, :2], np.float32(0.7))
    assert np.ptp(x[:, 2:]) > 0.1


@pytest.mark.parametrize("corrector", ["ald", "langevin_per_sample"])
def test_a_sample_depends_on_its_key_only(corrector):
    sde = VP(num_scales=50)
    sampler = predictor_corrector(sde, DATA.model(sde), corrector=corrector)
    whole, _ = solve(sampler, KEYS[:8], start(sde, KEYS[:8]))
    part, _ = solve(sampler, KEYS[4:8], start(sde, KEYS[4:8]))
    np.testing.assert_allclose(whole[4:], part, rtol=1e-5, atol=1e-6)


def test_advancing_in_parts_changes_nothing():
    sde = VP(num_scales=30)
    solver = predictor_corrector(sde, DATA.model(sde), corrector="langevin")
    state = solver.init(KEYS[:4], start(sde, KEYS[:4]))
    for steps in (7, 7, 100):
        state = jax.jit(lambda s, n: advance(solver, s, n))(state, steps)
    assert float(solver.fraction(state)) == 1
    whole, _ = sampling.solve(solver, KEYS[:4], start(sde, KEYS[:4]))
    np.testing.assert_allclose(solver.result(state)[0], whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(predictor="euler"), "did you mean 'euler_maruyama'"),
        (dict(corrector="langvin"), "did you mean 'langevin'"),
        (dict(predictor="none"), "both 'none'"),
        (dict(corrector="ald", snr=0.0), "snr"),
        (dict(n_steps_each=0), "n_steps_each"),
    ],
)
def test_undefined_samplers_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        predictor_corrector(VP(), DATA.model(VP()), **options)
    with pytest.raises(UsageError, match="rtol"):
        probability_flow(VP(), DATA.model(VP()), rtol=1e-9)
