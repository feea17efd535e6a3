import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.objective import Objective
from score_sde.oracles import Gaussian
from score_sde.parameterization import PARAMETERIZATIONS, KarrasF, Noise, ScaledScore, Score, Velocity
from score_sde.paths import PROCESSES, Cosine, Linear, Trigonometric
from score_sde.process import before_noise
from score_sde.randomness import Stream, expand, normal, sample_keys, stream, uniform
from score_sde.sde import EDM, VE, VP, SubVP
from score_sde.times import TIMES, Importance, LogitNormal, LogNormal, OnChain, Uniform, log_noise_rate
from score_sde.weights import (
    WEIGHTS,
    KarrasWeight,
    LikelihoodWeight,
    MinSNR,
    NoiseWeight,
    Uncertainty,
    VelocityWeight,
)

KEYS = sample_keys(jax.random.key(0), jnp.arange(20_000))
DATA = Gaussian(np.full((2, 2, 1), 0.3), 0.25)


def paper(sde, times=None, weight=None):
    """The objective of a network that learns the noise, or with VE sigma times the score."""
    row = ScaledScore() if isinstance(sde, VE) else Noise()
    return Objective(sde, row, times or Uniform(), weight or NoiseWeight())


def output_of(sde, eps):
    """What the network of `paper` returns for a prediction of eps."""
    return -eps if isinstance(sde, VE) else eps


def exact_eps(sde, x, t):
    return -expand(sde.sigma(t), x) * DATA.score(sde, x, t)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_the_exact_score_has_the_least_possible_loss(sde):
    """E (s score + z)^2 is 1 - s^2 / (m^2 v + s^2), the variance of z that x leaves open."""
    objective = paper(sde)
    t, z = objective.draw(KEYS, (2, 2, 1))
    x0 = DATA.sample(stream(KEYS, 3))
    losses = objective.loss(output_of(sde, exact_eps(sde, objective.perturb(x0, t, z), t)), x0, t, z)
    m, s = np.asarray(sde.alpha(t), np.float64), np.asarray(sde.sigma(t), np.float64)
    least = 1 - s**2 / (m**2 * 0.25 + s**2)
    error = np.std(losses - least) / np.sqrt(len(t))
    assert abs(np.mean(losses - least)) < 4 * error


def test_times_and_noise_are_drawn_as_ever_from_each_samples_key():
    t, z = paper(VP()).draw(KEYS[:4], (2, 2, 1))
    np.testing.assert_array_equal(t, 1e-5 + (1 - 1e-5) * uniform(stream(KEYS[:4], Stream.TIME)))
    np.testing.assert_array_equal(z, normal(stream(KEYS[:4], Stream.NOISE), (2, 2, 1)))


@pytest.mark.parametrize("sde", [VP(num_scales=50), VE(num_scales=10)])
def test_discrete_times_hit_every_step_of_the_chain_equally_often(sde):
    t = OnChain().sample(sde, KEYS)
    counts = np.bincount(sde.chain_index(t), minlength=sde.num_scales)
    assert len(counts) == sde.num_scales
    expected = len(t) / sde.num_scales
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


LAWS = [
    (Uniform(0.1), VP()),
    (LogNormal(-0.4, 0.8), EDM()),
    (LogNormal(-3.0, 2.0), VE()),
    (LogitNormal(0.5, 0.7), Linear()),
    (Importance(1e-3), VP()),
    (Importance(1e-3), Linear()),
]


@pytest.mark.parametrize(("law", "process"), LAWS, ids=lambda part: type(part).__name__)
def test_times_are_drawn_with_their_density(law, process):
    """The integral of the density up to a sample is uniform over samples: Kolmogorov and Smirnov's distance, at 1 %."""
    t = np.sort(np.asarray(before_noise(process, law.sample(process, KEYS)), np.float64))
    assert 0 < t.min() <= t.max() <= 1
    with jax.enable_x64(True):
        edges, middles = (process.time(np.geomspace(*process.noise_level(t[[0, -1]]), n)) for n in (4001, 8001))
        mass = np.asarray(law.density(process, jnp.asarray(middles[1::2]))) * np.diff(edges)
    below = np.mean(t == t[0])  # of a process with a least noise level above 0, trained on at its first time
    found = below + np.interp(t, edges, np.concatenate([[0.0], np.cumsum(mass)]))
    inside, expected = (t > t[0]) & (t < t[-1]), (np.arange(len(t)) + 0.5) / len(t)
    assert np.abs(found - expected)[inside].max() < 1.63 / np.sqrt(len(t))


def test_the_smld_loss_is_the_papers():
    """sigma^2 |net - (-noise / sigma^2)|^2, half the sum."""
    sde, keys = VE(num_scales=10), KEYS[:5]
    objective = Objective(sde, Score("level_index"), OnChain(), NoiseWeight("half_sum"))
    t, z = objective.draw(keys, (2, 2, 1))
    x0 = normal(stream(keys, 3), z.shape[1:])
    actual = objective.loss(jnp.sin(objective.perturb(x0, t, z)) - 0.3, x0, t, z)
    sigma = np.geomspace(0.01, 50, 10)[np.asarray(sde.chain_index(t))][:, None, None, None]
    noise = sigma * np.asarray(z)
    target = -noise / sigma**2
    expected = 0.5 * np.sum((np.sin(x0 + noise) - 0.3 - target) ** 2, axis=(1, 2, 3)) * sigma[:, 0, 0, 0] ** 2
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_ddpm_loss_is_the_papers():
    """|net - noise|^2, mean over the elements, for a network that predicts the noise."""
    sde, keys = VP(num_scales=100), KEYS[:5]
    objective = paper(sde, OnChain())
    t, z = objective.draw(keys, (2, 2, 1))
    x0 = normal(stream(keys, 3), z.shape[1:])

    def network(x):
        return jnp.cos(x) + 0.1

    actual = objective.loss(network(objective.perturb(x0, t, z)), x0, t, z)
    alphas = np.cumprod(1 - np.linspace(0.1 / 100, 20 / 100, 100))[np.asarray(sde.chain_index(t))][:, None, None, None]
    x = np.sqrt(alphas) * np.asarray(x0) + np.sqrt(1 - alphas) * np.asarray(z)
    np.testing.assert_allclose(actual, np.mean((network(x) - z) ** 2, axis=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE()])
def test_likelihood_weighting_weighs_by_the_squared_diffusion(sde):
    objective, keys = paper(sde, Uniform(0.01), LikelihoodWeight("half_sum")), KEYS[:5]
    t, z = objective.draw(keys, (2, 2, 1))
    x = objective.perturb(jnp.zeros_like(z), t, z)
    actual = objective.loss(output_of(sde, exact_eps(sde, x, t)), jnp.zeros_like(z), t, z)
    std, g = np.asarray(sde.sigma(t)), np.asarray(sde.g(t))
    score = np.asarray(DATA.score(sde, x, t))
    expected = 0.5 * np.sum((score + z / std[:, None, None, None]) ** 2, axis=(1, 2, 3)) * g**2
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def rows():
    """Objectives that have every row of each dictionary, chains and learned weights but for."""
    processes = [make() for make in PROCESSES.values()]
    rows = [row() for row in PARAMETERIZATIONS.values()]
    laws = [law() for name, law in TIMES.items() if name != "chain"]
    weights = [weight() for name, weight in WEIGHTS.items() if name != "uncertainty"]
    longest = max(len(processes), len(rows), len(laws), len(weights)) * 2
    turns = (itertools.islice(itertools.cycle(each), longest) for each in (processes, rows, laws, weights))
    return [Objective(*each) for each in zip(*turns, strict=True)]


@pytest.mark.parametrize("objective", rows(), ids=lambda o: "-".join(type(part).__name__ for part in vars(o).values()))
def test_at_equal_log_snr_gradients_by_x0_differ_by_the_factor_of_weights_and_densities(objective):
    """Kingma and Gao (2023): over log k, each is 2 (x0^ - x_0) times w k^-2 density(t) dt / dlog k, k = sigma / alpha.

    The network's output is read off a predicted x0^ by the target that is right for it.
    """
    with jax.enable_x64(True):
        k = jnp.array([0.05, 0.7, 3.0])
        x0, eps, guess = (jnp.asarray(np.random.default_rng(i).normal(size=(3, 2, 2, 1))) for i in range(3))
        process, row = objective.process, objective.parameterization
        t = process.time(k)
        x = objective.perturb(x0, t, eps)

        def of(guess):
            eps_of_guess = (x - expand(process.alpha(t), x) * guess) / expand(process.sigma(t), x)
            density = objective.times.density(process, t) / log_noise_rate(process, t)
            return jnp.sum(density * objective.loss(row.target(process, guess, eps_of_guess, t), x0, t, eps))

        found = jax.grad(of)(guess)
        plain = 2 * (guess - x0) / 4  # of the mean over 4 pixels
        factor = np.asarray(found / plain)
        # Against what the weight and the law of times are of k alone, written anew for each.
        np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1, :1, :1], factor.shape), rtol=1e-5)
        density = objective.times.density(process, t) / log_noise_rate(process, t)
        expected = density * weight_of_x0(objective.weight, process, np.asarray(k), t)
        np.testing.assert_allclose(factor[:, 0, 0, 0], expected, rtol=1e-5)


def weight_of_x0(weight, process, k, t):
    """The published factor on the error of x_0 at a noise level k = 1 / sqrt(SNR)."""
    d_alpha, d_sigma = (np.asarray(rate) for rate in process.rates(t))
    alpha, sigma = np.asarray(process.alpha(t)), np.asarray(process.sigma(t))
    return {
        NoiseWeight: lambda: 1 / k**2,
        LikelihoodWeight: lambda: np.asarray(process.g(t)) ** 2 / sigma**2 / k**2,
        KarrasWeight: lambda: (k**2 + 0.25) / (0.5 * k) ** 2,
        MinSNR: lambda: np.minimum(1 / k**2, 5),
        VelocityWeight: lambda: (d_alpha - d_sigma * alpha / sigma) ** 2,  # eps = (x - alpha x_0) / sigma
    }[type(weight)]()


def test_flow_matchings_loss_is_the_plain_error_of_the_velocity():
    """Liu et al. (2023): |F - (eps - x_0)|^2, at any t under linear."""
    objective, keys = Objective(Linear(), Velocity(), LogitNormal(), VelocityWeight()), KEYS[:50]
    t, eps = objective.draw(keys, (2, 2, 1))
    x0, output = normal(stream(keys, 3), (2, 2, 1)), normal(stream(keys, 4), (2, 2, 1))
    expected = np.mean((np.asarray(output) - (eps - x0)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(objective.loss(output, x0, t, eps), expected, rtol=1e-5)


@pytest.mark.parametrize("process", [EDM(), Linear()], ids=lambda p: type(p).__name__)
def test_on_normal_data_karras_network_is_0_and_its_loss_1_at_every_time(process):
    """For N(0, sigma_data^2) the best F is E[target | x_t] = 0, and the target's variance, with its weight, is 1."""
    objective = Objective(process, KarrasF(sigma_data=0.6), LogNormal(), KarrasWeight(sigma_data=0.6))
    with jax.enable_x64(True):
        t = process.time(jnp.geomspace(1e-3, 40.0, 9))
        np.testing.assert_allclose(objective._factor(t), 1, rtol=1e-12)  # lambda(sigma) c_out^2
        one = jnp.ones((9, 1, 1, 1))
        by_x0, by_eps = (
            objective.loss(0 * one, *pair, t=t, eps=e) for pair, e in (((0.6 * one,), 0 * one), ((0 * one,), one))
        )
        np.testing.assert_allclose(by_x0 + by_eps, 1, rtol=1e-12)  # x_0 and eps are independent
    t, eps = objective.draw(KEYS, (2, 2, 1))
    x0 = 0.6 * normal(stream(KEYS, 3), (2, 2, 1))
    losses = np.asarray(objective.loss(jnp.zeros_like(eps), x0, t, eps))
    assert abs(losses.mean() - 1) < 4 * losses.std() / np.sqrt(len(losses))


def test_a_learned_uncertainty_is_at_rest_where_it_is_the_log_of_the_expected_weighted_error():
    """d/du of E[w err^2] e^-u + u is 0 at u = log E[w err^2], and there the loss is 1 + u for each pixel."""
    weight = Uncertainty("sum", base="min_snr", gamma=2.0)
    objective, t = Objective(VP(), Noise(), Uniform(), weight), jnp.array([0.1, 0.4, 0.9])
    x0 = eps = jnp.zeros((3, 2, 2, 1))
    output = eps + jnp.array([0.5, 2.0, 0.1])[:, None, None, None]
    errors = MinSNR(gamma=2.0).on_noise(VP(), t) * jnp.array([0.5, 2.0, 0.1]) ** 2
    np.testing.assert_allclose(objective.loss(output, x0, t, eps), 4 * errors, rtol=1e-5)  # u is 0 at first
    params = {"bias": jnp.log(errors[1]), "kernel": jnp.zeros(128)}

    def loss(params):
        return objective.with_params({"weight": params}).loss(output, x0, t, eps)

    jacobian = jax.jit(jax.jacobian(loss))(params)
    np.testing.assert_allclose(jacobian["bias"][1], 0, atol=1e-5)
    np.testing.assert_allclose(jacobian["kernel"][1], 0, atol=1e-5)
    np.testing.assert_allclose(loss(params)[1], 4 * (1 + jnp.log(errors[1])), rtol=1e-5)
    assert jacobian["bias"][0] != 0


def test_a_learned_uncertainty_can_be_a_function_of_the_noise_level():
    t = jnp.linspace(0.01, 1.0, 200)
    k = np.asarray(VP().noise_level(t), np.float64)
    waves = np.asarray(Uncertainty().waves(VP(), t), np.float64)
    wanted = np.log(k**2 / (1 + k**2))
    fitted = waves @ np.linalg.lstsq(waves, wanted, rcond=1e-6)[0]
    assert np.abs(fitted - wanted).max() < 0.05


@pytest.mark.parametrize("process", [Linear(), Cosine(), Trigonometric()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("row", ["edm", "velocity", "x0", "v"])
def test_losses_are_finite_at_the_last_time_where_alpha_is_0(process, row):
    x0, eps = normal(KEYS[:3], (2, 2, 1)), normal(stream(KEYS[:3], 1), (2, 2, 1))
    for make in WEIGHTS.values():
        objective = Objective(process, PARAMETERIZATIONS[row](), Uniform(), make())
        t = before_noise(process, jnp.array([1e-5, 0.5, 1.0]))
        assert np.all(np.isfinite(objective.loss(jnp.zeros_like(eps), x0, t, eps)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OnChain().levels(SubVP()), "continuous=True"),
        (lambda: Objective(VP(), Noise(), OnChain(), LikelihoodWeight()), "no velocity and no g"),
        (lambda: Uniform(eps=0.0), r"eps must be a number in \(0, 1\)"),
        (lambda: LogNormal(P_std=0.0), "P_std must be"),
        (lambda: NoiseWeight("average"), "weight.reduction"),
        (lambda: MinSNR(gamma=-1.0), "gamma must be a number above 0, finite, and is -1.0"),
        (lambda: Uncertainty(base="uncertainty"), "weight.base"),
        (lambda: Noise(noise_cond="seconds"), "noise_cond"),
        (lambda: KarrasF(sigma_data=0.0), "sigma_data"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(make, words):
    with pytest.raises(UsageError, match=words):
        make()
