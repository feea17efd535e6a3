import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.images import CENTERED, UNIT
from score_sde.likelihood import DIVERGENCES, bits_per_dim
from score_sde.oracles import Gaussian
from score_sde.process import from_score
from score_sde.randomness import expand, sample_keys
from score_sde.sampling import solve
from score_sde.sde import VE, VP, SubVP

SHAPE = (4, 4, 2)
SDES = [VP(), SubVP(), VE()]
DATA = Gaussian(np.full(SHAPE, 0.3), 0.25)
KEYS = sample_keys(jax.random.key(0), jnp.arange(16))


def exact_bits(data, sde, x):
    """In float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.jit(data.bits_per_dim, static_argnums=0)(sde, np.asarray(x, np.float64)))


@pytest.mark.parametrize("divergence", ["rademacher", "exact"])
@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_bits_per_dim_equal_the_closed_form(sde, divergence):
    """With one variance for all numbers the field's Jacobian is a multiple of I, and Rademacher probes are exact."""
    x = jax.jit(DATA.sample)(KEYS)
    solver = bits_per_dim(sde, DATA.model(sde), offset_bits=0, divergence=divergence)
    bpd, _, nfe = solve(solver, jax.random.key(1), x)
    np.testing.assert_allclose(bpd, exact_bits(DATA, sde, x), atol=1e-4)
    assert nfe.min() > 20


@pytest.mark.parametrize("divergence", ["rademacher", "gaussian"])
def test_hutchinsons_estimator_is_unbiased(divergence):
    """A score whose Jacobian is not diagonal: both probes scatter, about the exact value."""
    sde = VP()
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    variances = np.geomspace(0.05, 4, 8)

    def score_fn(x, t):
        m, s = expand(sde.alpha(t), x[:, :, 0, 0]), expand(sde.sigma(t), x[:, :, 0, 0])
        rotated = x[:, :, 0, 0] @ basis
        return (-(rotated / (jnp.square(m) * variances + jnp.square(s))) @ basis.T)[:, :, None, None]

    model = from_score(sde, score_fn)
    x = np.random.default_rng(2).normal(size=(1, 8)) * np.sqrt(variances) @ basis.T
    x = jnp.asarray(np.tile(x, (512, 1))[:, :, None, None], jnp.float32)
    exact, _, _ = solve(bits_per_dim(sde, model, offset_bits=0, divergence="exact"), jax.random.key(1), x[:1])
    estimates, _, _ = solve(bits_per_dim(sde, model, offset_bits=0, divergence=divergence), jax.random.key(1), x)
    exact, estimates = np.asarray(exact), np.asarray(estimates)
    assert np.std(estimates) > 1e-3
    assert abs(np.mean(estimates) - exact[0]) < 4 * np.std(estimates) / np.sqrt(len(estimates))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def field_and_divergence(matrix, name, num_probes, samples):
    keys = sample_keys(jax.random.key(0), jnp.arange(samples))
    x, estimator = jnp.zeros((samples, *SHAPE)), DIVERGENCES[name]
    return estimator.of(
        lambda x: (x.reshape(len(x), -1) @ matrix.T).reshape(x.shape) + 1, x, estimator.draw(keys, (num_probes, *SHAPE))
    )


def divergences(matrix, name, num_probes, samples=2000):
    """Estimates of the trace of a matrix (32, 32) as the divergence of x -> matrix x, each with its own probes."""
    field, estimates = field_and_divergence(matrix.astype(np.float32), name, num_probes, samples)
    assert np.all(np.asarray(field) == 1)
    return np.asarray(estimates, np.float64)


def decaying() -> np.ndarray:
    """Not symmetric, and with singular values 10 / i^2."""
    left, right = (np.linalg.qr(np.random.default_rng(seed).normal(size=(32, 32)))[0] for seed in (0, 1))
    return left * (10 / np.arange(1, 33) ** 2) @ (left + 0.2 * right).T


@pytest.mark.parametrize(
    ("name", "num_probes"),
    [("rademacher", 1), ("rademacher", 4), ("gaussian", 4), ("hutch++", 3), ("hutch++", 8)],
)
def test_every_estimator_of_the_divergence_is_unbiased(name, num_probes):
    estimates = divergences(decaying(), name, num_probes)
    error = np.std(estimates) / np.sqrt(len(estimates)) + 1e-5
    assert abs(np.mean(estimates) - np.trace(decaying())) < 4 * error


def test_several_probes_are_averaged():
    one, four = (np.var(divergences(decaying(), "gaussian", n)) for n in (1, 4))
    np.testing.assert_allclose(four, one / 4, rtol=0.2)


@pytest.mark.parametrize("num_probes", [6, 12])
def test_hutch_plus_plus_is_better_at_equal_cost_where_the_spectrum_decays(num_probes):
    plain, sketched = (np.var(divergences(decaying(), name, num_probes)) for name in ("rademacher", "hutch++"))
    assert sketched < plain / 3


@pytest.mark.parametrize("num_probes", [12, 13, 17])
def test_hutch_plus_plus_is_exact_up_to_its_rank(num_probes):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(32, 4)) @ rng.normal(size=(4, 32))
    np.testing.assert_allclose(divergences(matrix, "hutch++", num_probes, 50), np.trace(matrix), atol=2e-3)
    assert np.std(divergences(matrix, "hutch++", 11, 50)) > 1


def test_hutch_plus_plus_follows_the_ode():
    data, sde = Gaussian(np.full(SHAPE, 0.3), np.geomspace(0.01, 4, 32).reshape(SHAPE)), VP()
    x = jax.jit(data.sample)(KEYS[:4])
    solver = bits_per_dim(sde, data.model(sde), offset_bits=0, divergence="hutch++", num_probes=96)
    np.testing.assert_allclose(solve(solver, jax.random.key(1), x)[0], exact_bits(data, sde, x), atol=1e-4)


def test_the_offset_is_the_change_of_variables_to_256_levels():
    assert CENTERED.offset_bits == 7
    assert UNIT.offset_bits == 8
    data = DATA
    x = jnp.full((1, *SHAPE), 0.2)
    bits = [
        solve(bits_per_dim(VP(), data.model(VP()), offset_bits=offset), jax.random.key(0), x)[0] for offset in (0, 7)
    ]
    np.testing.assert_allclose(bits[1] - bits[0], 7, atol=1e-5)


def test_an_images_bits_do_not_depend_on_its_batch():
    data, sde = DATA, VP()
    x = np.asarray(jax.jit(data.sample)(KEYS[:8]))
    bits = jax.jit(functools.partial(solve, bits_per_dim(sde, data.model(sde), offset_bits=0)))
    whole, others = (np.asarray(bits(jax.random.key(1), images)[0]) for images in (x, np.r_[x[:1], 9 * x[1:]]))
    np.testing.assert_array_equal(whole[0], others[0])


@pytest.mark.parametrize("sde", SDES, ids=["vp", "subvp", "ve"])
def test_an_images_bits_are_those_of_the_closed_form_in_a_batch_of_any_size(sde):
    rng = np.random.default_rng(3)
    root = rng.normal(size=(32, 32)) / 6
    data = Gaussian(rng.normal(size=SHAPE), root @ root.T + 0.05 * np.eye(32))
    keys = sample_keys(jax.random.key(0), jnp.arange(40))
    x = jax.jit(data.sample)(keys)
    exact = exact_bits(data, sde, x)
    solver = bits_per_dim(sde, data.model(sde), offset_bits=0, divergence="exact")
    for n in (1, 3, 40):
        np.testing.assert_allclose(solve(solver, keys[:n], x[:n])[0], exact[:n], atol=1e-4)


@pytest.mark.parametrize("divergence", ["rademacher", "gaussian", "hutch++"])
def test_bits_are_computed_in_the_precision_of_the_images(divergence):
    with jax.enable_x64(True):
        solver = bits_per_dim(VP(), DATA.model(VP()), offset_bits=0, divergence=divergence, num_probes=3)
        x = jnp.asarray(np.random.default_rng(0).normal(DATA.mean, 0.5, (2, *SHAPE)))
        bits, z, _ = solve(solver, jax.random.key(0), x)
        assert (bits.dtype, z.dtype) == (np.float64, np.float64)


def test_unknown_estimators_are_refused():
    with pytest.raises(UsageError, match="did you mean 'rademacher'"):
        bits_per_dim(VP(), DATA.model(VP()), offset_bits=0, divergence="radmacher")
    with pytest.raises(UsageError, match=r"num_probes=2: .* hutch\+\+ needs at least 3"):
        bits_per_dim(VP(), DATA.model(VP()), offset_bits=0, divergence="hutch++", num_probes=2)
    with pytest.raises(UsageError, match="num_probes=0"):
        bits_per_dim(VP(), DATA.model(VP()), offset_bits=0, num_probes=0)
    with pytest.raises(UsageError, match=r"eps must be a number in \(0, 1\)"):
        bits_per_dim(VP(), DATA.model(VP()), offset_bits=0, eps=2.0)
