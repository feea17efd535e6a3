"""Samples given a class or an observation, with exact scores: what they must be is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditioning import (
    GUIDES,
    Average,
    Inpaint,
    Observation,
    Options,
    classifier_guidance,
    extrapolation,
    particles,
    projection,
)
from score_sde.errors import UsageError
from score_sde.oracles import Gaussian, Mixture
from score_sde.process import Prediction, score
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import SAMPLERS, fast_solver, predictor_corrector, probability_flow, solve
from score_sde.sampling.grids import time_grid
from score_sde.sde import VE, VP, SubVP

SHAPE, D = (2, 2, 1), 4
KEYS = sample_keys(jax.random.key(0), jnp.arange(2048))
SDES = [VP(num_scales=200), SubVP(num_scales=200), VE(sigma_max=10.0, num_scales=200)]
by_sde = pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
ROOT = np.random.default_rng(0).standard_normal((D, D))
GAUSSIAN = Gaussian(np.full(SHAPE, 0.3), 0.1 * ROOT @ ROOT.T + 0.05 * np.eye(D))
MIXTURE = Mixture([0.3, 0.7], [Gaussian(np.full(SHAPE, -0.5), 0.1), Gaussian(np.full(SHAPE, 0.6), 0.05)])
MASK = np.zeros(SHAPE, bool)
MASK[:, :1] = True
A = np.eye(D)[MASK.ravel()]
Y = np.array([0.7, -0.1])


def start(sde, keys=KEYS):
    return sde.prior_sample(stream(keys, Stream.PRIOR), SHAPE)


def observation(noise, n=2048):
    y = np.zeros(SHAPE, np.float32)
    y[MASK] = Y
    mask, y = (jnp.asarray(np.broadcast_to(array, (n, *SHAPE))) for array in (MASK, y))
    return Observation(Inpaint(mask), y, jnp.asarray(np.full(n, noise, np.float32)))


def met(x, noise):
    """As samples are returned: without noise they meet the observation exactly."""
    given = observation(noise)
    return given.operator.impose(x, given.y) if noise == 0 else x


def assert_distribution(x, exact, slack=0.03):
    """Mean and covariance within four standard errors, and the sampler's own error, of `exact`'s."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    std = np.sqrt(np.diag(exact.covariance))
    errors = 4 / np.sqrt(len(x)) + slack
    np.testing.assert_array_less(np.abs(x.mean(0) - exact.mean.ravel()), errors * std + 1e-6)
    scale = np.outer(std, std)
    np.testing.assert_array_less(np.abs(np.cov(x.T) - exact.covariance), 2 * errors * scale + 1e-6)


def exact_logits(sde):
    return lambda x, t: MIXTURE.log_joint(sde, x, t).T


@by_sde
def test_guidance_by_the_exact_classifier_samples_the_class(sde):
    classes = jnp.ones(len(KEYS), jnp.int32)
    guided = classifier_guidance(sde, MIXTURE.model(sde), exact_logits(sde), classes)
    x, nfe = solve(predictor_corrector(sde, guided, predictor="reverse_diffusion"), KEYS, start(sde))
    assert_distribution(x, MIXTURE.components[1])
    assert set(nfe.tolist()) == {400}  # of the network and of the classifier


def test_each_sample_is_of_its_own_class():
    sde = SDES[0]
    classes = jnp.arange(len(KEYS)) % 2
    guided = classifier_guidance(sde, MIXTURE.model(sde), exact_logits(sde), classes)
    x, _ = solve(fast_solver(sde, guided, name="dpmpp_2m", num_steps=40), KEYS, start(sde))
    for number in (0, 1):
        assert_distribution(x[number::2], MIXTURE.components[number])


@pytest.mark.parametrize("method", ["pc", "ode", "unipc_3"])
def test_without_weight_the_sampler_is_the_unconditional_one_bit_for_bit(method):
    sde, keys = VP(num_scales=25), KEYS[:4]
    plain, classes = MIXTURE.model(sde), jnp.zeros(4, jnp.int32)

    def sampled(model):
        make = {
            "pc": lambda: predictor_corrector(sde, model, corrector="langevin"),
            "ode": lambda: probability_flow(sde, model, rtol=1e-3, atol=1e-3),
            "unipc_3": lambda: fast_solver(sde, model, name="unipc_3", num_steps=5),
        }
        return np.asarray(solve(make[method](), keys, start(sde, keys))[0])

    classified = classifier_guidance(sde, plain, exact_logits(sde), classes, scale=0.0)
    of_class = MIXTURE.components[0].model(sde)
    unconditional = sampled(plain)
    np.testing.assert_array_equal(sampled(classified), unconditional)
    np.testing.assert_array_equal(sampled(extrapolation(of_class, plain, scale=0.0)), unconditional)
    np.testing.assert_array_equal(sampled(extrapolation(of_class, plain, scale=1.0)), sampled(of_class))


def test_the_old_keyword_of_a_classifiers_labels_is_answered_with_the_new_one():
    sde = VP()
    with pytest.raises(UsageError, match="The keyword classes is now labels"):
        classifier_guidance(sde, MIXTURE.model(sde), exact_logits(sde), classes=jnp.zeros(4, jnp.int32))


def test_extrapolation_of_gaussians_is_a_gaussian():
    """w s_class - (w - 1) s_0, of N(m, v) and N(0, v), is the score of N(w m, v)."""
    sde = SDES[0]
    main, reference = Gaussian(np.full(SHAPE, 0.2), 0.1), Gaussian(np.zeros(SHAPE), 0.1)
    guided = extrapolation(main.model(sde), reference.model(sde), scale=3.0)
    x, t = 0.1 * np.asarray(start(sde, KEYS[:4])), np.array([0.01, 0.1, 0.5, 0.9])
    expected = jax.jit(Gaussian(np.full(SHAPE, 0.6), 0.1).model(sde))(x, t)
    for found, exact in zip(jax.jit(guided)(x, t), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ode", "adaptive"}))
def test_the_evaluations_planned_and_reported_are_those_made(name):
    """Within an interval up to a time of the grid, and from the last one, which float32 rounds up."""
    sde, calls = VP(num_scales=4), []
    times = np.linspace(1, 1e-3, 4) if name == "pc" else time_grid(sde, "log_snr", 3, eps=1e-3)
    options = {} if name == "pc" else dict(num_steps=3)

    def network(which):
        def score(x, t):
            calls.append(which)
            return Prediction(x, x)

        return score

    for interval in ((0.0, float(times[2])), (0.001, 0.5)):
        calls.clear()
        guided = extrapolation(network("main"), network("reference"), scale=2.0, interval=interval)
        solver = SAMPLERS[name](sde, guided, **options)
        with jax.disable_jit():  # each call is one
            state = solver.init(KEYS[:1], jnp.ones((1, 1, 1, 1)))
            while solver.fraction(state) < 1:
                state = solver.step(state)
            _, nfe = solver.result(state)
        assert solver.nfe == int(nfe[0]) == len(calls)
        assert calls.count("main") > calls.count("reference") > 0


@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("dpmpp_2m", dict(num_steps=10), 18),
        ("heun", dict(num_steps=5), 19),
        ("pc", dict(corrector="ald"), 74),
    ],
)
def test_an_interval_that_ends_at_the_last_time_holds_it(name, options, made):
    """The last time is 0.001, which float32 rounds up."""
    plain = MIXTURE.model(VP())
    guided = extrapolation(plain, plain, scale=2.0, interval=(0.001, 0.5))
    assert SAMPLERS[name](VP(num_scales=25), guided, **options).nfe == made


@pytest.mark.parametrize("name", ["ode", "adaptive"])
def test_a_batch_makes_more_evaluations_than_a_sample_of_it_uses(name):
    """Alone both are the calls; beside others a sample's own stay, and the batch's are the calls."""
    sde, calls, options = VP(), [], dict(rtol=0.05, atol=0.05)

    def network(which):
        def score(x, t):
            jax.debug.callback(lambda _: calls.append(which), t[0])
            return MIXTURE.model(sde)(x, t)

        return score

    guided = extrapolation(network("main"), network("reference"), scale=2.0, interval=(0.001, 0.5))
    solver = SAMPLERS[name](sde, guided, **options).with_batch_nfe()

    @jax.jit
    def run(keys):
        return solve(solver, keys, start(sde, keys))[1:]

    def counts(*rows):
        calls.clear()
        nfe, batch_nfe = run(KEYS[jnp.array(rows)])
        jax.effects_barrier()
        assert set(batch_nfe.tolist()) == {len(calls)}
        return nfe.tolist()

    together, made, of_main = counts(0, 1, 2), len(calls), calls.count("main")
    for i, nfe in enumerate(together):
        assert counts(i, i, i) == [nfe] * 3 == [len(calls)] * 3
    assert of_main < max(together) < made and len(set(together)) > 1


def test_a_classifier_counts_where_it_is_asked_and_derivatives_do_not():
    sde, classes = VP(num_scales=25), jnp.ones(4, jnp.int32)
    plain = MIXTURE.model(sde)
    within = classifier_guidance(sde, plain, exact_logits(sde), classes, interval=(0.001, 0.5))
    assert fast_solver(sde, within, num_steps=10).nfe == 18
    everywhere = classifier_guidance(sde, plain, exact_logits(sde), classes)
    for guide in GUIDES.values():
        guided = guide(sde, everywhere, observation(0.3, 4), Options())
        assert fast_solver(sde, guided, num_steps=30).nfe == 62
    assert particles(sde, everywhere, observation(0.3, 4), Options(), num_particles=4).nfe == 25 * 4 * 2


def test_within_an_interval_guidance_is_by_each_samples_own_time():
    sde = SDES[0]
    main, reference = MIXTURE.components[0].model(sde), MIXTURE.model(sde)
    x, t = start(sde, KEYS[:3]), jnp.array([0.1, 0.5, 0.9])
    found = jax.jit(extrapolation(main, reference, scale=3.0, interval=(0.4, 0.6)))(x, t)
    everywhere = jax.jit(extrapolation(main, reference, scale=3.0))(x, t)
    for guided, always, never in zip(found, everywhere, jax.jit(main)(x, t), strict=True):
        expected = np.where(np.array([False, True, False])[:, None, None, None], always, never)
        np.testing.assert_allclose(guided, expected, rtol=1e-6)


@pytest.mark.parametrize(("scale", "interval"), [(-1.0, (0, 1)), (np.nan, (0, 1)), (1.0, (0.5, 0.5)), (1.0, (0.1, 2))])
def test_guidance_that_means_nothing_is_refused(scale, interval):
    with pytest.raises(UsageError, match=r"scale|interval"):
        extrapolation(MIXTURE.model(VP()), MIXTURE.model(VP()), scale=scale, interval=interval)


@by_sde
def test_the_mean_of_an_update_keeps_no_noise_where_nothing_is_known(sde):
    """The paper's code gives it the noisy x there, so that its inpainted pixels end with the last step's noise."""
    x, x_mean = (np.asarray(start(sde, keys)) for keys in (KEYS[:8], KEYS[8:16]))
    x_mean, t = 0.5 * x_mean, np.full(8, 0.3, np.float32)
    project = jax.jit(projection(sde, observation(0.0, 8)).project)
    noisy, mean = map(np.asarray, project(KEYS[:8], t, x, x_mean))
    np.testing.assert_array_equal(mean[:, ~MASK], x_mean[:, ~MASK])
    np.testing.assert_allclose(mean[:, MASK], sde.alpha(t)[:, None] * Y[None], rtol=1e-5)
    np.testing.assert_array_equal(noisy[:, ~MASK], x[:, ~MASK])
    spread = (noisy - mean)[:, MASK] / sde.sigma(t)[:, None]
    assert 0.4 < float(np.std(spread)) < 1.8


def test_colouring_starts_with_the_priors_colours():
    """The paper's code masks the noise before it is decoupled, and the colours start with another covariance."""
    sde = VE(sigma_max=10.0)
    x = sde.prior_sample(KEYS, (2, 2, 3))
    grey = jnp.full((len(KEYS), 2, 2, 1), 0.4)
    held = projection(sde, Observation(Average(grey=True), grey, jnp.zeros(len(KEYS))))
    x, begun = np.asarray(x), np.asarray(jax.jit(held.start)(x))
    np.testing.assert_allclose(begun.mean(-1), 0.4, atol=1e-5)
    colours = np.array([[2, -1, -1], [0, 1, -1]]) / np.sqrt([[6], [2]])  # channels 1 and 2 of the paper's basis
    np.testing.assert_allclose(begun @ colours.T, x @ colours.T, atol=1e-4)


@pytest.mark.parametrize(("sde", "noise"), list(zip(SDES, (0.0, 0.3, 0.3), strict=True)), ids=["vp", "subvp", "ve"])
def test_moment_projection_is_exact_for_gaussians(sde, noise):
    guided = GUIDES["tmpd"](sde, GAUSSIAN.model(sde), observation(noise), Options())
    x, _ = solve(predictor_corrector(sde, guided, predictor="reverse_diffusion"), KEYS, start(sde))
    assert_distribution(met(x, noise), GAUSSIAN.posterior(A, Y, noise), slack=0.06)


def test_projection_in_a_fast_solver_is_exact_where_pixels_are_independent():
    sde, data = SDES[0], Gaussian(np.full(SHAPE, 0.3), 0.2)
    held = projection(sde, observation(0.0))
    options = dict(name="heun", grid="uniform", num_steps=40, project=held.project)
    x, _ = solve(fast_solver(sde, data.model(sde), **options), KEYS, held.start(start(sde)))
    assert_distribution(met(x, 0.0), data.posterior(A, Y, 0.0), slack=0.05)


def test_steps_of_diffusion_posterior_sampling_go_down_the_residual_by_their_length():
    """In the sampler each of its N steps adds g^2 / N times the guidance: zeta times the unit gradient."""
    sde, data = VP(num_scales=100), Gaussian(np.zeros(SHAPE), 1.0)  # xhat = m x under VP
    x, t = np.asarray(start(sde, KEYS[:3])), np.array([0.2, 0.5, 0.8])
    guided = GUIDES["dps"](sde, data.model(sde), observation(0.0, 3), Options(step=0.7))
    guidance = jax.jit(lambda x, t: score(sde, guided(x, t), t) - data.score(sde, x, t))(x, t)
    step = np.square(sde.g(t))[:, None] / 100 * np.asarray(guidance)[:, MASK]
    m = sde.alpha(t)[:, None]
    residual = Y - m * x[:, MASK]
    expected = 0.7 * m * residual / np.linalg.norm(residual, axis=1, keepdims=True)
    np.testing.assert_allclose(step, expected, rtol=2e-3, atol=1e-5)


def test_diffusion_posterior_sampling_takes_the_steps_of_its_sampler():
    """With the 1000 of training 20 steps are off by more than 50 times the covariance."""
    sde = VE()
    guided = GUIDES["dps"](sde, GAUSSIAN.model(sde), observation(0.3, 512), Options(num_steps=20))
    x, _ = solve(fast_solver(sde, guided, name="ddim", num_steps=20), KEYS[:512], start(sde, KEYS[:512]))
    exact = GAUSSIAN.posterior(A, Y, 0.3).covariance
    error = np.cov(np.asarray(x, np.float64).reshape(512, D).T) - exact
    assert np.linalg.norm(error) < 1.5 * np.linalg.norm(exact)


def test_guidance_reaches_no_further_than_it_may():
    sde = VP()
    x, t, far = start(sde, KEYS[:2]), np.array([0.5, 1.0]), Options(reach=0.1)
    guided = GUIDES["pigdm"](sde, GAUSSIAN.model(sde), observation(0.0, 2)._replace(y=jnp.full((2, *SHAPE), 9.0)), far)
    guidance = jax.jit(lambda x, t: score(sde, guided(x, t), t) - GAUSSIAN.score(sde, x, t))(x, t)
    moved = (sde.sigma(t) ** 2 / sde.alpha(t))[:, None, None, None] * np.asarray(guidance)
    assert float(np.max(np.abs(moved))) == pytest.approx(0.1, rel=1e-3)


def test_a_sample_of_particles_depends_on_its_key_only():
    sde = VP(num_scales=25)

    @jax.jit
    def sampled(keys):
        solver = particles(sde, MIXTURE.model(sde), observation(0.3, len(keys)).repeated(4), Options(), num_particles=4)
        return solve(solver, keys, start(sde, keys))[0]

    np.testing.assert_allclose(sampled(KEYS[:4])[2:], sampled(KEYS[2:4]), rtol=1e-5, atol=1e-6)


def test_particles_step_on_the_grid_of_the_predictor():
    """Of data at 0 the step to a time is known without noise: x moves as sigma^2 does."""
    sde = VE(num_scales=2)

    model = Gaussian(np.zeros(SHAPE), 1e-30).model(sde)
    solver = particles(sde, model, observation(1e6, 1).repeated(2), Options(), num_particles=2, eps=0.3)
    state, step = jax.jit(solver.init)(KEYS[:1], jnp.ones((1, *SHAPE))), jax.jit(solver.step)
    for start_of_step, end in ((1.0, 0.65), (0.65, 0.3)):
        before, state = state.x, step(state)
        ratio = np.square(sde.sigma(np.float64(end)) / sde.sigma(np.float64(start_of_step)))
        np.testing.assert_allclose(np.sort(state.x_mean.ravel()), np.sort(ratio * before.ravel()), rtol=1e-4)
    assert solver.fraction(state) == 1 and state.nfe.tolist() == [solver.nfe] == [4]


def test_particles_need_a_predictor_and_company():
    arguments = (VP(), MIXTURE.model(VP()), observation(0.3, 4), Options())
    with pytest.raises(UsageError, match="predictor"):
        particles(*arguments, predictor="none")
    with pytest.raises(UsageError, match="at least 2"):
        particles(*arguments, num_particles=1)
    with pytest.raises(UsageError, match="sub-VP"):
        particles(dataclasses.replace(SubVP()), *arguments[1:], predictor="ancestral_sampling")
