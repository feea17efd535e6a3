"""Every sampler solves the equation that it claims to: its order and its distribution."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.experiments.truth_table import problems
from score_sde.experiments.truth_table.distribution import distance
from score_sde.experiments.truth_table.measure import ORDER_WITHIN, Record, misses
from score_sde.experiments.truth_table.orders import Truths, errors, law, observed_order
from score_sde.experiments.truth_table.rows import FIRST_STEPS, FLOW, LAW, ROWS, SNR, TOLERANCE

from score_sde.oracles import Gaussian
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import adaptive, fast_solver, predictor_corrector, probability_flow, solve
from score_sde.sampling.predictors import euler_maruyama

TRUTHS = Truths()
SDES = list(problems.MEASURED)
SHORTER = {FLOW: (256, 1024), LAW: (64, 256), SNR: (0.1, 0.2), TOLERANCE: (1e-4, 1e-6)}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def assert_orders(row, sde_name):
    sizes = SHORTER[row.against]
    for data, found in errors(row, row.sdes[sde_name], sizes, TRUTHS).items():
        theory, observed = row.expected(sde_name, data), observed_order(row, sizes, found)
        high = np.inf if row.against == TOLERANCE else ORDER_WITHIN
        assert -ORDER_WITHIN <= observed - theory <= high, f"{data}: {observed:.2f} instead of {theory}"


def meetings(against):
    """Each sampler with one of the SDEs, in turn; `python -m experiments.truth_table` measures it with all."""
    params = []
    rows = [row for row in ROWS.values() if row.against == against and row.order is not None]
    for i, row in enumerate(rows):
        defined = [name for name in SDES if row.defined(row.sdes[name])]
        for name in defined[i % max(1, len(defined)) :][:1]:  # some rows have none
            params.append(pytest.param(row, name, id=f"{row.name.replace(' ', '_')}-{name}"))
    return params


@pytest.mark.parametrize(("row", "sde"), meetings(FLOW))
def test_deterministic_samplers_follow_the_exact_flow_with_their_order(double, row, sde):
    assert_orders(row, sde)


@pytest.mark.parametrize(("row", "sde"), meetings(LAW))
def test_stochastic_samplers_have_their_weak_order(double, row, sde):
    assert_orders(row, sde)


@pytest.mark.parametrize(("row", "sde"), meetings(SNR))
def test_the_bias_of_annealed_langevin_steps_is_of_second_order_in_snr(double, row, sde):
    assert_orders(row, sde)


@pytest.mark.parametrize(("row", "sde"), meetings(TOLERANCE))
def test_the_error_of_the_adaptive_ode_falls_with_its_tolerance(double, row, sde):
    assert_orders(row, sde)


def test_the_precision_of_the_other_tests_is_untouched():
    with jax.enable_x64(True):
        assert jnp.zeros(1).dtype == np.float64
    assert jnp.zeros(1).dtype == np.float32


def test_the_first_steps_of_methods_over_many_steps_are_of_lower_order():
    assert {name: (ROWS[name].order, order) for name, order in FIRST_STEPS.items()} == {
        "deis_2": (3, 2),
        "deis_3": (4, 2),
        "unipc_3": (4, 3),
    }


def test_unit_impulses_give_the_law_of_a_recursion_that_is_written_out(double):
    """Euler-Maruyama on a Gaussian, one matrix product a step."""
    sde = dataclasses.replace(problems.MEASURED["VP"], num_scales=40)
    data, eps = problems.GAUSSIAN, 1e-3
    mean, covariance = problems.moments(sde, data, 1.0)
    got = law(lambda **noise: predictor_corrector(sde, data.model(sde), eps=eps, noise_removal=False, **noise)).moments(
        mean, covariance
    )
    for t in np.linspace(1.0, eps, 40):
        step, std = euler_maruyama(sde, jnp.full(1, t)), float(sde.sigma(t))
        a, b, c = float(step.x[0]), -std * float(step.eps[0]), float(step.z[0])  # eps is -std score
        centre, spread = problems.moments(sde, data, t)
        gain = a * np.eye(2) - b * np.linalg.inv(spread)
        mean = gain @ mean + b * np.linalg.solve(spread, centre)
        covariance = gain @ covariance @ gain.T + c**2 * np.eye(2)
    np.testing.assert_allclose(got[0], mean, atol=1e-10)
    np.testing.assert_allclose(got[1], covariance, atol=1e-10)


def test_a_deterministic_sampler_has_no_noise_in_its_law(double):
    sde, data = problems.MEASURED["VE"], problems.GAUSSIAN
    found = law(lambda **noise: fast_solver(sde, data.model(sde), name="ddim", num_steps=10, **noise))
    assert found.noise.shape == (0, 2, 2)


def test_two_draws_from_one_key_are_noticed(double):
    sde, data = dataclasses.replace(problems.MEASURED["VE"], num_scales=5), problems.GAUSSIAN

    def careless(**noise):
        solver = predictor_corrector(sde, data.model(sde), **noise)
        return solver._replace(step=lambda state: solver.step(state._replace(i=state.i // 2))._replace(i=state.i + 1))

    with pytest.raises(AssertionError, match="one key"):
        law(careless)


@pytest.mark.parametrize("name", problems.DATA)
def test_exact_samples_have_no_distribution_error_and_wrong_ones_do(name):
    sde, data, t = problems.DEFAULTS["VP"], problems.DATA[name], 0.2
    keys = sample_keys(jax.random.key(0), jnp.arange(8192))
    perturbed = jax.jit(data.perturbed_sample, static_argnums=0)(sde, keys, np.full(len(keys), t))
    x = np.asarray(perturbed, np.float64)
    centre = x.mean(0)
    assert distance(sde, data, x, t).z < 2
    assert distance(sde, data, centre + 1.15 * (x - centre), t).z > 3
    assert distance(sde, data, x + 0.1, t).z > 3
    assert distance(sde, data, x[..., ::-1], t).z > 3


def test_closed_moments_and_characteristic_functions_are_those_of_the_samples():
    sde, data, t = problems.DEFAULTS["VP"], problems.MIXTURE, 0.1
    keys = sample_keys(jax.random.key(2), jnp.arange(20000))
    x = np.asarray(jax.jit(data.sample)(keys), np.float64).reshape(-1, 2)
    np.testing.assert_allclose(np.cov(x.T), problems.covariance(data), atol=0.02)
    w = np.array([[0.7, -0.4]])
    perturbed = jax.jit(data.perturbed_sample, static_argnums=0)(sde, keys, np.full(len(keys), t))
    expected = np.mean(np.exp(1j * np.asarray(perturbed, np.float64).reshape(-1, 2) @ w.T), axis=0)
    np.testing.assert_allclose(problems.characteristic_function(sde, data, t, w), expected, atol=0.02)


def p_value(x, y, permutations=999):
    """Of the two-sample permutation test by the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo).

    The statistic is the quadratic form -a'Da of the pooled distances D, with a = 1/n on one and -1/m on the other.
    """
    pooled = np.concatenate([x, y])
    distances = np.linalg.norm(pooled[:, None] - pooled[None], axis=-1)
    labels = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(y), -1 / len(y))])
    rng = np.random.default_rng(0)
    rows = np.stack([labels, *(rng.permutation(labels) for _ in range(permutations))])
    statistics = -np.sum((rows @ distances) * rows, axis=1)
    return np.mean(statistics >= statistics[0])


LEVEL = 0.01  # of the two-sample tests, with 400 samples of each


@pytest.mark.parametrize("sde", ["VP", "VE"])
def test_samples_of_the_ode_and_of_the_sde_have_one_distribution(sde):
    """On the mixture; starts and noise of the two are independent."""
    sde, n = problems.DEFAULTS[sde], 400
    score = problems.MIXTURE.model(sde)

    def draw(solver, seed):
        keys = sample_keys(jax.random.key(seed), jnp.arange(n))
        x = sde.prior_sample(stream(keys, Stream.PRIOR), problems.SHAPE)
        return np.asarray(solve(solver, keys, x)[0], np.float64).reshape(n, -1)

    ode = draw(probability_flow(sde, score), 1)
    assert p_value(ode, draw(predictor_corrector(sde, score, predictor="reverse_diffusion"), 2)) > LEVEL
    assert p_value(ode, draw(adaptive(sde, score), 3)) > LEVEL


def test_the_two_sample_test_tells_the_mixture_from_a_gaussian_of_its_moments():
    keys = sample_keys(jax.random.key(1), jnp.arange(400))
    x = np.asarray(jax.jit(problems.MIXTURE.sample)(keys), np.float64).reshape(400, 2)
    mean = sum(w * m for w, m, _ in problems.components(problems.MIXTURE))
    twin = Gaussian(mean.reshape(problems.SHAPE), problems.covariance(problems.MIXTURE))
    y = np.asarray(jax.jit(twin.sample)(stream(keys, 5)), np.float64).reshape(400, 2)
    assert p_value(x, y) <= LEVEL


RECORD = Record(
    sampler="dpmpp_2m",
    sde="VP",
    defined=True,
    against=FLOW,
    grid="log_snr",
    theory=2,
    sizes=(128, 256),
    errors={"Gaussian": [4e-4, 1e-4], "mixture": [4e-4, 1e-4]},
    observed={"Gaussian": 2.0, "mixture": 2.0},
    expected={"Gaussian": 2, "mixture": 2},
    distance={
        name: {"error": 0.02, "standard_error": 0.02, "z": 1.0, "bias": 0.0, "bound": 0.07} for name in problems.DATA
    },
    nfe=(21, 21),
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(observed={"Gaussian": 1.7, "mixture": 2.0}), "dpmpp_2m on VP, Gaussian: order 1.70 instead of 2"),
        (dict(observed={"Gaussian": 2.0, "mixture": float("nan")}), "mixture: order nan instead of 2"),
        (dict(nfe=(21, 22)), "21 evaluations reported, 22 counted"),
        (dict(distance={"Gaussian": {"bias": float("nan"), "bound": 0.07}}), "Gaussian: bias nan of the distribution"),
        (dict(distance={"mixture": {"bias": 0.2, "bound": 0.07}}), "mixture: bias 0.200 of the distribution, above"),
    ],
)
def test_the_table_says_what_is_missed(change, words):
    assert misses(RECORD) == ()
    [miss] = misses(RECORD._replace(**change))
    assert words in miss


def test_the_page_holds_its_pictures(tmp_path):
    report = pytest.importorskip("score_sde.experiments.truth_table.report")
    undefined = Record("pc ancestral_sampling", "sub-VP", False)
    page = report.write_page(tmp_path, [RECORD, undefined], 1.0).read_text()
    assert "<svg" in page and "Nothing misses." in page and "src=" not in page and "not defined" in page
    report.write_json(tmp_path, [RECORD, undefined], 1.0)
    assert json.loads((tmp_path / "truth_table.json").read_text())["records"][0]["nfe"] == [21, 21]
    assert len(report.text_table([RECORD, undefined]).splitlines()) == 4
