import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from score_sde.errors import UsageError
from score_sde.images import CENTERED, UNIT
from score_sde.inference.train_dequantizer import dequantizer_step
from score_sde.likelihood.dequantization import truncated_normal, uniform, variational
from score_sde.models import Dequantizer
from score_sde.oracles import Empirical, Gaussian
from score_sde.randomness import sample_keys
from score_sde.sde import VE, VP, SubVP
from score_sde.training.build import Dequantizing, Experiment

PIXELS = np.array([0, 99, 200, 255], np.uint8).reshape(1, 2, 2, 1)
KEYS = sample_keys(jax.random.key(0), jnp.arange(20_000))
X = np.tile(np.float32(PIXELS / 255), (len(KEYS), 1, 1, 1))


def to_model(scaling, x):
    """In float64."""
    return scaling.scale * x + scaling.shift


def skewed(x):
    """A network of variational dequantization that was not fitted to anything."""
    return 0.3 + 0.2 * x, -0.2 + 0.1 * x


# name -> (q, SDE, scaling, the middles of the levels' cells in [0, 1], how many of these cells fill it)
CASES = {
    "uniform": (uniform(CENTERED), VP(), CENTERED, (PIXELS + 0.5) / 256, 256),
    "variational": (variational(CENTERED, skewed), SubVP(), CENTERED, (PIXELS + 0.5) / 256, 256),
    "truncated": (truncated_normal(VP(), CENTERED, dequantized=True), VP(), CENTERED, (PIXELS + 0.5) / 256, 256),
    "levels": (truncated_normal(SubVP(), CENTERED, dequantized=False), SubVP(), CENTERED, PIXELS / 255, 255),
    "ve": (truncated_normal(VE(), UNIT, dequantized=False), VE(), UNIT, PIXELS / 255, 255),
}


@pytest.mark.parametrize("name", CASES)
def test_bits_per_dim_bound_the_code_length_of_the_cells_mass(name):
    """A pixel's mass, a difference of normal distribution functions, is E_q [p / q] and above exp E_q log(p / q)."""
    q, sde, scaling, middles, cells = CASES[name]
    cell = scaling.scale / cells
    data = Gaussian(to_model(scaling, middles[0]) + 0.3 * cell, (0.6 * cell) ** 2)

    @jax.jit
    def sample(keys, x):
        y, log_q = q.sample(keys, x)
        log_p = data.log_density(sde, y, jnp.full(len(y), q.eps)) / (4 * np.log(2))
        return y, log_q - log_p

    y, bits = (np.asarray(values, np.float64) for values in sample(KEYS, X))
    t = np.array([q.eps])
    m, s = sde.alpha(t), sde.sigma(t)
    p = stats.norm(m * data.mean, np.sqrt(m**2 * (0.6 * cell) ** 2 + s**2))
    lower, upper = (m * (to_model(scaling, middles[0]) + sign * cell / 2) for sign in (-1, 1))
    mass = np.prod(p.cdf(upper) - p.cdf(lower))
    assert np.all((lower - 1e-6 <= y) & (y <= upper + 1e-6))
    ratios = 2 ** (-4 * bits)
    assert abs(ratios.mean() - mass) < 4 * ratios.std() / np.sqrt(len(ratios))
    exact, error = -np.log2(mass) / 4, bits.std() / np.sqrt(len(bits))
    assert exact - 4 * error < bits.mean() < exact + 1.5


@pytest.mark.parametrize(("sde", "scaling"), [(VP(), CENTERED), (SubVP(), CENTERED), (VE(), UNIT)])
@pytest.mark.parametrize("dequantized", [True, False])
def test_the_bound_is_tight_where_q_is_the_density_in_the_cell(sde, scaling, dequantized):
    """Data that is the middle of the cell, plus the noise at eps: every sample gives the mass within tau deviations."""
    q = truncated_normal(sde, scaling, dequantized=dequantized)
    middles = (PIXELS + 0.5) / 256 if dequantized else PIXELS / 255
    data = Empirical(to_model(scaling, middles))

    @jax.jit
    def bits(keys, x):
        y, log_q = q.sample(keys, x)
        return log_q - data.log_density(sde, y, jnp.full(len(y), q.eps)) / (4 * np.log(2))

    tau = scaling.scale / (512 if dequantized else 510) / sde.noise_level(np.array([q.eps]))
    expected = -np.log2(special.erf(tau / np.sqrt(2))).repeat(100)
    np.testing.assert_allclose(bits(KEYS[:100], X[:100]), expected, atol=2e-3)


def test_the_noise_is_scipys_truncated_normal():
    q, sde = truncated_normal(VP(), CENTERED, dequantized=True), VP()
    y, log_q = jax.jit(q.sample)(KEYS, X)
    t = np.array([q.eps])
    z = (np.asarray(y, np.float64) - sde.alpha(t) * to_model(CENTERED, (PIXELS + 0.5) / 256)) / sde.sigma(t)
    expected = stats.truncnorm(-3, 3)
    np.testing.assert_allclose(
        log_q, (expected.logpdf(z.clip(-3, 3)) - np.log(sde.sigma(t))).mean((1, 2, 3)) / np.log(2), atol=2e-3
    )
    assert stats.kstest(z[:5000].ravel(), expected.cdf).pvalue > 1e-3


def test_the_ode_starts_where_a_cell_is_six_deviations_wide():
    for sde, scaling in ((VP(), CENTERED), (SubVP(), CENTERED), (VE(sigma_min=1e-4), UNIT)):
        eps = truncated_normal(sde, scaling, dequantized=True).eps
        assert eps > 1e-5
        np.testing.assert_allclose(sde.noise_level(np.array([eps])), scaling.scale / 512 / 3, rtol=1e-6)
    assert truncated_normal(VE(), UNIT, dequantized=True).eps == 1e-5  # its noise is never below 0.01


def test_variational_dequantization_starts_as_uniform():
    network = Dequantizer(nf=4)
    params = jax.jit(network.init)(jax.random.key(0), X[:1])
    y, log_q = jax.jit(variational(CENTERED, lambda x: network.apply(params, x)).sample)(KEYS, X)
    y_uniform, log_q_uniform = jax.jit(uniform(CENTERED).sample)(KEYS, X)
    np.testing.assert_allclose(y, y_uniform, atol=1e-6)
    np.testing.assert_allclose(log_q, log_q_uniform, atol=1e-6)
    assert np.all(np.asarray(log_q_uniform) == 7)


def test_training_variational_dequantization_lowers_bits_per_dim(tiny_config):
    """An oracle's score, of data in the lower part of each cell; what is left is the family's distance from it."""
    config = tiny_config()
    config.dequantizer.update(nf=4, num_res_blocks=0, batch_size=8, lr=0.05, num_times=4)
    experiment = Experiment(config)
    pixels = np.tile(np.array([99, 200], np.uint8).repeat(32).reshape(1, 8, 8, 1), (8, 1, 1, 1))
    data = Gaussian(to_model(CENTERED, (pixels[0] + 0.3) / 256), (0.15 * 2 / 256) ** 2)
    experiment.model = lambda _: data.model(experiment.sde)
    dequantizing = Dequantizing(experiment, config.dequantizer.to_dict())
    step, start = jax.jit(dequantizer_step(dequantizing)), jax.jit(dequantizing.init_state)()
    state = start
    for _ in range(100):
        state, _ = step(state, {}, pixels)

    @jax.jit
    def bits(params):
        x = jnp.tile(jnp.asarray(pixels[:1] / 255, jnp.float32), (256, 1, 1, 1))
        y, log_q = variational(CENTERED, dequantizing.network_fn(params)).sample(KEYS[:256], x)
        return log_q - data.log_density(experiment.sde, y, jnp.full(256, 1e-5)) / (64 * np.log(2))

    before, after = (np.asarray(bits(params)) for params in (start.params, state.ema_params))
    spread = np.sqrt(1e-6 / 4 + (0.15 / 128) ** 2)  # with the noise at eps
    mass = stats.norm(to_model(CENTERED, 99.3 / 256), spread)
    exact = -np.log2(mass.cdf(to_model(CENTERED, 100 / 256)) - mass.cdf(to_model(CENTERED, 99 / 256)))
    assert exact - 4 * after.std() / 16 < after.mean() < before.mean() - 0.5


def test_a_dequantizer_that_cannot_be_trained_is_refused(tiny_config):
    config = tiny_config()
    experiment = Experiment(config)
    for key, value in (("nf", 0), ("lr", 0.0), ("num_times", 0)):
        with pytest.raises(UsageError, match=rf"dequantizer\.{key}={value}"):
            Dequantizing(experiment, config.dequantizer.to_dict() | {key: value})
    discrete = tiny_config("ve/digits_ncsnpp_continuous")
    discrete.training.continuous = False
    discrete.model.embedding_type = "positional"
    with pytest.raises(UsageError, match="trained at discrete"):
        Dequantizing(Experiment(discrete), discrete.dequantizer.to_dict())
