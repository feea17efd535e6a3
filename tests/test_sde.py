import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.sde import EDM, VE, VP, SubVP

ALL = [VP(), SubVP(), VE(), EDM()]
TIMES = [1e-5, 1e-3, 0.1, 0.5, 1.0]


ULP = 1.2e-7  # the reference computes 1 - exp(-B) in float32, with an absolute error of one unit in the last place


@pytest.mark.parametrize(
    ("quantity", "expected", "cancellation"),
    [
        (VP().beta, [0.100199, 0.1199, 2.09, 10.05, 20], None),
        (VP().alpha, [0.99999952, 0.99994504, 0.94672179, 0.28118289, 0.00657159], None),
        (SubVP().alpha, [0.99999952, 0.99994504, 0.94672179, 0.28118289, 0.00657159], None),
        (VP().sigma, [0.00100662, 0.01048669, 0.32205257, 0.95965421, 0.99997836], lambda std, beta: ULP / (2 * std)),
        (
            SubVP().g,
            [4.5062e-4, 0.00513457, 0.64113772, 3.16024947, 4.47213602],
            lambda g, b: ULP * b / (2 * g),
        ),
        (SubVP().sigma, [1.01328e-6, 1.0997e-4, 0.10371786, 0.92093617, 0.99995679], lambda std, beta: ULP),
        (VE().sigma, [0.01000085, 0.01008554, 0.02343673, 0.70710677, 50], None),
        (VE().g, [0.04127625, 0.04162577, 0.09672979, 2.91842318, 206.363678], None),
    ],
)
def test_quantities_equal_those_of_the_papers_code(quantity, expected, cancellation):
    t = jnp.array(TIMES, jnp.float32)
    expected = np.array(expected)
    tolerance = 1e-5 * expected
    if cancellation is not None:
        tolerance += cancellation(expected, np.asarray(VP().beta(t)))
    assert np.all(np.abs(np.asarray(quantity(t)) - expected) <= tolerance)


@pytest.mark.parametrize("sde", [VP(), SubVP()])
def test_std_keeps_float32_precision_at_the_smallest_time(sde):
    for t in (1e-5, 1e-4, 1e-3):
        b = np.float64(0.1) * t + 0.5 * 19.9 * np.float64(t) ** 2
        exact = -np.expm1(-b)
        exact = np.sqrt(exact) if isinstance(sde, VP) else exact
        np.testing.assert_allclose(float(sde.sigma(jnp.float32(t))), exact, rtol=1e-6)
    exact = np.sqrt(-(0.1 + 19.9e-5) * np.expm1(-2 * (1e-6 + 0.5 * 19.9e-10)))
    np.testing.assert_allclose(float(SubVP().g(jnp.float32(1e-5))), exact, rtol=1e-6)


@pytest.mark.parametrize("sde", ALL)
def test_marginals_solve_the_moment_equations(sde):
    """d mean/dt = f mean and d var/dt = 2 f var + g^2."""

    @jax.jit
    @jax.vmap
    def both_sides(t):
        mean = jax.grad(sde.alpha)(t), sde.f(t) * sde.alpha(t)
        variance_slope = jax.grad(lambda t: jnp.square(sde.sigma(t)))(t)
        return mean, (variance_slope, 2 * sde.f(t) * jnp.square(sde.sigma(t)) + jnp.square(sde.g(t)))

    mean, variance = both_sides(np.linspace(0.01, 1.0, 50, dtype=np.float32))
    np.testing.assert_allclose(*mean, rtol=1e-4)
    np.testing.assert_allclose(*variance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sde", ALL)
def test_time_inverts_the_noise_level(sde):
    t = np.geomspace(1e-5, 1, 50)
    np.testing.assert_allclose(sde.time(sde.noise_level(t)), t, rtol=1e-9)
    assert sde.time(sde.noise_level(t)).dtype == np.float64
    t32 = jnp.asarray(t, jnp.float32)
    np.testing.assert_allclose(sde.time(sde.noise_level(t32)), t, rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("sde", ALL)
def test_numpy_and_jax_arrays_give_the_same_scalars(sde):
    t = np.linspace(1e-5, 1, 50)
    for function in (sde.f, sde.g, sde.alpha, sde.sigma, sde.noise_level):
        np.testing.assert_allclose(function(jnp.asarray(t, jnp.float32)), function(t), rtol=1e-5)


def test_the_ddpm_chain_equals_that_of_the_papers_code():
    sde = VP()
    t = np.float32([0, 1, 2, 499, 998, 999]) / 999
    beta = np.square(jax.jit(sde.chain)(t)[1])
    np.testing.assert_allclose(beta[:3], [1e-4, 1.1992e-4, 1.3984e-4], rtol=1e-5)
    np.testing.assert_allclose(beta[4:], [0.01998008, 0.02], rtol=1e-6)
    mean_scale, std = jax.jit(sde.chain_marginal)(t[[0, 3, 5]])
    np.testing.assert_allclose(np.square(mean_scale), [0.9999, 0.07858724, 4.03583e-5], rtol=1e-5)
    # The reference takes 1 - alphas_cumprod in float32: std^2 is off by up to half a unit in the last place of 1.
    np.testing.assert_allclose(np.square(std), np.square([0.01000083, 0.95990247, 0.9999798]), rtol=1e-6, atol=6e-8)


def test_the_smld_chain_equals_that_of_the_papers_code():
    sde = VE()
    t = np.float32([0, 1, 499, 998, 999]) / 999
    sigma = jax.jit(sde.chain_marginal)(t)[1]
    np.testing.assert_allclose(sigma, [0.01, 0.01008562, 0.70409888, 49.575523, 50.000004], rtol=1e-6)
    np.testing.assert_allclose(jax.jit(sde.chain)(t)[1][0], 0.01, rtol=1e-6)  # from sigma_{-1} = 0


@pytest.mark.parametrize("sde", [VP(), VE()])
def test_the_chain_composes_to_its_marginal(sde):
    """Running x <- (1 + f) x + G z step by step gives the mean scale and variance of chain_marginal."""
    t = np.arange(sde.num_scales, dtype=np.float32) / (sde.num_scales - 1)
    f, g = (np.asarray(a, np.float64) for a in jax.jit(sde.chain)(t))
    mean, variance = 1.0, 0.0
    for k in range(sde.num_scales):
        mean, variance = (1 + f[k]) * mean, (1 + f[k]) ** 2 * variance + g[k] ** 2
    np.testing.assert_allclose(jax.jit(sde.chain_marginal)(t[-1:]), [[mean], [np.sqrt(variance)]], rtol=1e-3)


@pytest.mark.parametrize("n", [10, 100, 232, 500, 1000, 1086, 2000])
def test_chain_index_counts_down_along_the_samplers_grid(n):
    index = jax.jit(VE(num_scales=n).chain_index)
    np.testing.assert_array_equal(index(jnp.linspace(1.0, 1e-5, n)), np.arange(n)[::-1])
    np.testing.assert_array_equal(index(np.arange(n, dtype=np.float32) / (n - 1)), np.arange(n))


def test_chain_index_at_the_vp_samplers_eps():
    np.testing.assert_array_equal(VP().chain_index(jnp.linspace(1.0, 1e-3, 1000)), np.arange(1000)[::-1])


def test_prior_logp_equals_that_of_the_papers_code():
    zeros, ones = jnp.zeros((1, 32, 32, 3)), jnp.ones((1, 32, 32, 3))
    np.testing.assert_allclose(VP().prior_logp(zeros), [-2822.979], rtol=1e-6)
    np.testing.assert_allclose(SubVP().prior_logp(ones), [-4358.979], rtol=1e-6)
    np.testing.assert_allclose(VE().prior_logp(zeros), [-14840.715], rtol=1e-6)
    np.testing.assert_allclose(VE().prior_logp(ones), [-14841.329], rtol=1e-6)


def test_sub_vp_has_no_discrete_chain():
    for undefined in (SubVP().ancestral, SubVP().chain_marginal):
        with pytest.raises(UsageError, match=r"[Ss]ub-VP"):
            undefined(jnp.ones(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: VP(beta_min=20.0, beta_max=0.1), "beta_min"),
        (lambda: VE(sigma_min=0.0), "sigma_min"),
        (lambda: SubVP(num_scales=1), "num_scales"),
        (lambda: VP(sampling_eps=1.5), "sampling_eps"),
        (lambda: VP(num_scales=10).chain(jnp.ones(1)), "raise num_scales above 20"),
    ],
)
def test_impossible_parameters_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        arguments()
