import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from score_sde.errors import UsageError
from score_sde.oracles import Empirical, Gaussian, Mixture
from score_sde.randomness import sample_keys
from score_sde.sampling.probability_flow import drift
from score_sde.sde import EDM, VE, VP, SubVP

SHAPE = (2, 1, 2)
D = 4
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=SHAPE)
ROOT = RNG.normal(size=(D, D))
COVARIANCE = ROOT @ ROOT.T + 0.1 * np.eye(D)
POINTS = RNG.normal(size=(5, *SHAPE))
SDES = [VP(), SubVP(), VE(), EDM()]
TIMES = np.float32([1e-3, 0.05, 0.4, 1.0])
X = RNG.normal(size=(4, *SHAPE)).astype(np.float32)

GAUSSIAN = Gaussian(MEAN, COVARIANCE)
ORACLES = {
    "isotropic": Gaussian(MEAN, 0.3),
    "diagonal": Gaussian(MEAN, np.exp(MEAN)),
    "full": GAUSSIAN,
    "mixture": Mixture([1, 3], [GAUSSIAN, Gaussian(-MEAN, 0.2)]),
    "empirical": Empirical(POINTS),
    "mixture_with_points": Mixture([2, 1], [Empirical(POINTS), GAUSSIAN]),
}

each_oracle = pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)
each_sde = pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve", "edm"])


def covariance_of(oracle):
    values = oracle.variances
    return np.diag(values) if oracle.axes is None else oracle.axes @ np.diag(values) @ oracle.axes.T


def exact_log_density(oracle, m, s, x):
    """By SciPy, component by component."""
    if isinstance(oracle, Mixture):
        parts = [exact_log_density(part, m, s, x) for part in oracle.components]
        return logsumexp(np.array(parts) + np.log(oracle.weights)[:, None], axis=0)
    if isinstance(oracle, Empirical):
        parts = [multivariate_normal(m * point.ravel(), s**2).logpdf(x) for point in oracle.data]
        return logsumexp(np.array(parts), axis=0) - np.log(len(parts))
    return multivariate_normal(m * oracle.mean.ravel(), m**2 * covariance_of(oracle) + s**2 * np.eye(D)).logpdf(x)


@each_oracle
@each_sde
def test_log_densities_equal_scipys(sde, oracle):
    log_density = jax.jit(functools.partial(oracle.log_density, sde))
    for t in TIMES[1:]:
        m, s = float(sde.alpha(t)), float(sde.sigma(t))
        expected = exact_log_density(oracle, m, s, np.asarray(X, np.float64).reshape(len(X), -1))
        np.testing.assert_allclose(log_density(X, np.full(4, t)), expected, rtol=2e-5, atol=2e-5)


@each_oracle
@each_sde
def test_scores_are_gradients_of_log_densities(sde, oracle):
    @jax.jit
    def score_and_gradient(x, t):
        return oracle.score(sde, x, t), jax.grad(lambda x: jnp.sum(oracle.log_density(sde, x, t)))(x)

    np.testing.assert_allclose(*score_and_gradient(X, TIMES), rtol=1e-3, atol=1e-4)


@each_oracle
@each_sde
def test_posterior_means_obey_tweedies_formula(sde, oracle):
    @jax.jit
    def mean_and_formula(x, t):
        m, s = sde.alpha(t)[:, None, None, None], sde.sigma(t)[:, None, None, None]
        return oracle.posterior_mean(sde, x, t), (x + s**2 * oracle.score(sde, x, t)) / m

    with jax.enable_x64(True):
        np.testing.assert_allclose(*mean_and_formula(np.float64(X), np.float64(TIMES)), rtol=1e-8, atol=1e-8)


@each_oracle
def test_samples_have_the_moments_of_the_data(oracle):
    x = np.asarray(oracle.sample(sample_keys(jax.random.key(1), jnp.arange(20000)))).reshape(-1, D)
    parts, weights = (oracle.components, oracle.weights) if isinstance(oracle, Mixture) else ([oracle], [1.0])
    means = [p.mean.ravel() if isinstance(p, Gaussian) else p.data.reshape(-1, D).mean(0) for p in parts]
    spreads = [covariance_of(p) if isinstance(p, Gaussian) else np.cov(p.data.reshape(-1, D).T, ddof=0) for p in parts]
    mean = np.average(means, axis=0, weights=weights)
    second = sum(w * (c + np.outer(m, m)) for w, c, m in zip(weights, spreads, means, strict=True))
    covariance = second - np.outer(mean, mean)
    error = np.sqrt(np.diag(covariance) / len(x))
    assert np.all(np.abs(x.mean(0) - mean) < 4.5 * error)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.04 * np.max(np.diag(covariance)))


def test_perturbed_samples_have_the_moments_of_p_t():
    sde, t = VP(), np.full(20000, 0.3, np.float32)
    keys = sample_keys(jax.random.key(2), jnp.arange(20000))
    x = np.asarray(jax.jit(functools.partial(GAUSSIAN.perturbed_sample, sde))(keys, t)).reshape(-1, D)
    m, s = float(sde.alpha(t[0])), float(sde.sigma(t[0]))
    np.testing.assert_allclose(np.cov(x.T), m**2 * COVARIANCE + s**2 * np.eye(D), atol=0.15)
    np.testing.assert_allclose(x.mean(0), m * MEAN.ravel(), atol=0.05)


@each_sde
def test_the_exact_flow_solves_the_probability_flow_ode(sde):
    @jax.jit
    def there_and_back(x, t0, t1):
        y, speed = jax.jvp(lambda t: GAUSSIAN.flow(sde, x, t0, t), (t1,), (jnp.ones(4),))
        return speed, drift(sde, GAUSSIAN.model(sde))(t1, y), GAUSSIAN.flow(sde, y, t1, t0)

    with jax.enable_x64(True):
        x = np.float64(X)
        speed, expected, back = there_and_back(x, np.full(4, 0.1), np.full(4, 0.6))
        np.testing.assert_allclose(speed, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(back, x, rtol=1e-9)


@each_sde
def test_exact_bits_are_the_change_of_variables_along_the_flow(sde):
    with jax.enable_x64(True):
        x = np.float64(X[:1])

        def encode(flat):
            return GAUSSIAN.flow(sde, flat.reshape(1, *SHAPE), jnp.full(1, 1e-5), jnp.ones(1)).ravel()

        @jax.jit
        def change(x):
            return jax.jacobian(encode)(x.ravel()), sde.prior_logp(encode(x.ravel()).reshape(1, *SHAPE))

        jacobian, prior_logp = change(x)
        expected = -(prior_logp[0] + np.linalg.slogdet(jacobian)[1]) / (D * np.log(2))
        bits = jax.jit(functools.partial(GAUSSIAN.bits_per_dim, sde))(x)
        np.testing.assert_allclose(bits[0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["full", "mixture"])
def test_given_an_observation_densities_obey_bayes_rule(name):
    """p(x | y) p(y) = p(y | x) p(x), at any x."""
    oracle, x = ORACLES[name], RNG.normal(size=(5, D))
    matrix, y, noise = RNG.normal(size=(2, D)), np.array([0.4, -0.7]), 0.3
    posterior = oracle.posterior(matrix, y, noise)
    parts = zip(oracle.weights, oracle.components, strict=True) if name == "mixture" else [(1.0, oracle)]
    evidence = logsumexp([np.log(weight) + part.log_evidence(matrix, y, noise) for weight, part in parts])
    likelihood = np.array([multivariate_normal.logpdf(y, matrix @ point, noise**2 * np.eye(2)) for point in x])

    def log_density(data):
        parts = zip(data.weights, data.components, strict=True) if name == "mixture" else [(1.0, data)]
        return logsumexp(
            [np.log(w) + multivariate_normal.logpdf(x, g.mean.ravel(), g.covariance) for w, g in parts], axis=0
        )

    np.testing.assert_allclose(log_density(posterior) + evidence, likelihood + log_density(oracle), rtol=1e-7)


@pytest.mark.parametrize("name", ["full", "mixture"])
def test_the_old_name_of_a_posterior_is_answered_with_the_new_one(name):
    with pytest.raises(AttributeError, match=r"\.given is now \w+\.posterior"):
        ORACLES[name].given(np.eye(D), np.zeros(D), 0.1)
    with pytest.raises(AttributeError, match="has no 'flows'"):
        ORACLES[name].flows  # noqa: B018


def test_near_the_data_the_posterior_is_the_nearest_point():
    oracle, sde = Empirical(POINTS), VE()
    x, t = np.float32(POINTS[2:3] + 0.01), np.full(1, 1e-3, np.float32)
    mean = jax.jit(functools.partial(oracle.posterior_mean, sde))(x, t)
    np.testing.assert_allclose(mean, POINTS[2:3], atol=1e-6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Gaussian(np.zeros(4), 1.0), "give a mean"),
        (lambda: Gaussian(MEAN, np.eye(3)), "give a mean"),
        (lambda: Gaussian(MEAN, np.triu(np.ones((4, 4)))), "symmetric"),
        (lambda: Gaussian(MEAN, 0.0), "nor all zero"),
        (lambda: Mixture([1], [GAUSSIAN, GAUSSIAN]), "one positive weight"),
        (lambda: Mixture([1, 1], [GAUSSIAN, Gaussian(np.zeros((1, 1, 1)), 1.0)]), "one shape"),
        (lambda: Empirical(np.zeros((3, 4))), "n, h, w, c"),
        (lambda: Empirical(np.zeros((3, 2, 2, 1), np.uint8)), "to_unit"),
    ],
)
def test_what_is_no_distribution_is_refused(build, words):
    with pytest.raises(UsageError, match=words):
        build()
