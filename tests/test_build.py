"""Samplers as a config chooses them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.objective import Objective
from score_sde.parameterization import NOISE_CONDS, Noise
from score_sde.randomness import sample_keys
from score_sde.sampling import SAMPLERS, slerp, solve
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.training.build import Experiment
from score_sde.training.memory_estimate import kept_bytes
from score_sde.weights import NoiseWeight

KEYS = sample_keys(jax.random.key(0), jnp.arange(3))


@pytest.fixture
def experiment(tiny_config):
    """The tiny config with changes -> its Experiment."""

    def build(name="vp/digits_ddpmpp_continuous", **sampling):
        config = tiny_config(name)
        config.sampling.update(**sampling)
        return Experiment(config)

    return build


def parameters(built):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(np.float32), built.param_shapes)


@pytest.mark.parametrize("method", [m for m in SAMPLERS if m not in ("pc", "ode", "adaptive")])
def test_every_fast_solver_is_a_word_of_the_config(experiment, method):
    built = experiment(method=method.upper(), num_steps=7, grid="karras")
    sampler = built.sampler(built.param_shapes)
    assert sampler.nfe >= 8
    assert sampler.nfe == built.sampler(built.param_shapes, method).nfe


@pytest.mark.parametrize("method", ["adaptive", "unipc_3", "edm_stochastic"])
def test_samplers_run_with_a_network(experiment, method):
    built = experiment(num_steps=4, sde_rtol=0.5, sde_atol=0.5)
    params = parameters(built)
    x, nfe = solve(built.sampler(params, method), KEYS, built.prior(KEYS))
    assert x.shape == (3, 8, 8, 1)
    assert np.all(np.isfinite(x))
    assert nfe.min() > 3


def test_options_reach_their_solver(experiment):
    deterministic = experiment(method="ddim", num_steps=3)
    ancestral = experiment(method="ddim", num_steps=3, eta=1.0)
    params = parameters(deterministic)
    x_T = deterministic.prior(KEYS)
    other_keys = sample_keys(jax.random.key(7), jnp.arange(3))
    for built, same in ((deterministic, True), (ancestral, False)):
        sample = jax.jit(functools.partial(solve, built.sampler(params)))
        pair = [sample(keys, x_T)[0] for keys in (KEYS, other_keys)]
        assert np.array_equal(*pair) == same
    long = experiment(method="ddim", num_steps=30)
    assert (deterministic.sampler(params).nfe, long.sampler(params).nfe) == (4, 31)


def test_the_bound_refuses_truncated_normal_dequantization_however_it_is_spelt(tiny_config):
    config = tiny_config()
    config.eval.dequantization = "Truncated_Normal"
    built = Experiment(config)
    with pytest.raises(UsageError, match="uniform or variational"):
        built.bound(built.param_shapes)


def test_temperature_scales_the_latents(experiment):
    np.testing.assert_allclose(experiment(temperature=0.7).prior(KEYS), 0.7 * experiment().prior(KEYS), rtol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (dict(method="dpmpp2m"), "did you mean 'dpmpp_2m'"),
        (dict(method="ddim", grid="logsnr"), "did you mean 'log_snr'"),
        (dict(method="ddim", num_steps=0), "num_steps"),
        (dict(method="ddim", eta=1.5), "eta"),
        (dict(method="edm", s_min=3.0, s_max=1.0), "s_min"),
        (dict(method="heun", grid="karras", rho=0.0), "rho"),
        (dict(method="adaptive", sde_rtol=-1.0), "sde_rtol"),
        (dict(method="heun", grid="karras", rho=float("inf")), "finite"),
        (dict(temperature=0.0), "temperature"),
        (dict(corrector="langevin", snr=0.0), "snr"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_before_anything_runs(experiment, sampling, words):
    with pytest.raises(UsageError, match=words):
        experiment(**sampling)


@pytest.mark.parametrize("method", ["ode", "adaptive", "dpmpp_2m"])
def test_samplers_between_the_noise_levels_refuse_a_ve_network_that_knows_only_those(tiny_config, method):
    config = tiny_config("ve/digits_ncsnpp_continuous")
    config.training.continuous = False
    config.model.embedding_type = "positional"
    config.sampling.method = method
    with pytest.raises(UsageError, match=r"sampling\.method=pc"):
        Experiment(config)


@pytest.mark.parametrize(
    ("name", "label_of"), [("vp/digits_ddpmpp_continuous", 1.0), ("ve/digits_ncsnpp_continuous", 0.0)]
)
def test_a_chain_of_twice_the_steps_walks_the_labels_of_training_by_halves(tiny_config, name, label_of):
    """The paper's P2000 (table 1): VP's betas halve, VE's sigmas keep their ends, and labels stay within 1 of i/2."""
    config = tiny_config(name)
    config.training.continuous = False
    config.model.embedding_type = "positional"
    config.sde.num_scales = 1000
    config.sampling.num_scales = 2000
    built = Experiment(config)
    t = jnp.linspace(1.0, built.sde.sampling_eps, 2000)
    row = built.objective.parameterization
    labels = NOISE_CONDS[row.noise_cond](row, built.sde, t)
    halves = np.arange(2000) / 2
    expected = 999.5 - halves if label_of else halves
    assert np.abs(labels - expected).max() <= 1
    trained, sampled = built.sde.chain(jnp.ones(1))[1], built.sampling_sde.chain(jnp.ones(1))[1]
    if label_of:
        np.testing.assert_allclose(sampled, trained / np.sqrt(2), rtol=1e-6)
    else:
        np.testing.assert_allclose(built.sampling_sde.sigma(t)[0], built.sde.sigma(t)[0])
        assert sampled < trained
    assert built.sampler(built.param_shapes).nfe == 2000 * (1 if label_of else 2)


def test_spherical_interpolation_keeps_the_length_of_latents():
    z0, z1 = np.random.default_rng(0).standard_normal((2, 5, 8, 8, 1), np.float32)
    between = jax.jit(slerp, static_argnums=2)
    lengths = [np.linalg.norm(np.reshape(between(z0, z1, f), (5, -1)), axis=1) for f in (0, 0.25, 0.5, 1)]
    np.testing.assert_allclose(lengths[1], 0.75 * lengths[0] + 0.25 * lengths[3], rtol=1e-5)
    np.testing.assert_allclose(between(z0, z1, 0.0), z0, atol=1e-5)
    np.testing.assert_allclose(between(z0, z1, 1.0), z1, atol=1e-5)
    cosines = np.sum(np.asarray(between(z0, z1, 0.5)) * z0, axis=(1, 2, 3)) / lengths[0] / lengths[2]
    whole = np.sum(z0 * z1, axis=(1, 2, 3)) / lengths[0] / lengths[3]
    np.testing.assert_allclose(np.arccos(cosines), np.arccos(whole) / 2, atol=1e-3)
    np.testing.assert_allclose(between(z0, 2 * z0, 0.5), 1.5 * z0, rtol=1e-4)  # no angle between them


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return jnp.sin(nn.Conv(5, (3, 3))(x))[..., :1]


def test_a_convolution_keeps_its_input_for_the_backward_pass_and_a_sine_its_slope(tiny_config):
    objective = Objective(VP(), Noise(), Uniform(), NoiseWeight())
    experiment = Experiment(tiny_config(), objective, Convolution(), image_shape=(8, 8, 1))
    assert kept_bytes(experiment) == 4 * 8 * 8 * (1 + 5)  # and the kernel once, for all images
