r"""Guidance on Gaussians has known laws, which the samplers' own steps must have: exactly, without random numbers.

Under VE, with u the variance of the noise, let the reference be N(0, V) (all data, or a negative prompt) and the class
N(0, v). The guided score s_ref + w (s_class - s_ref) is -a(u) x with

    a(u) = (1 - w) / (V + u) + w / (v + u),     and r(u) = (V + u) / (v + u).

The ODE, dx/du = a x / 2 downwards in u, multiplies the variance by exp(-\int a du). The SDE adds noise, dVar/du =
2 a Var - 1, so that with G = (V + u)^(2w-2) (v + u)^(-2w) = r^(2w-2) / (v + u)^2 the product G Var grows downwards by
\int G du. As dr/du = -(V - v) / (v + u)^2, this is a difference of r^(2w-1) / ((2w - 1) (V - v)). From infinity to 0

    ODE: V^(1-w) v^w      SDE: (V v - V^(2-2w) v^(2w)) / ((2w - 1) (V - v))      tilted density: 1 / (w/v + (1-w)/V),

for V = 2 and v = 1: 2^(1-w), (2 - 2^(2-2w)) / (2w - 1) and 2 / (w + 1). A negative prompt is a reference of its own, so
its law is the same with its V. With guidance between noise levels low and high alone, w is 1 elsewhere: the variance is
v + u above u = high^2, follows the equations above down to low^2, and then those of w = 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.experiments.truth_table.orders import law, quick_jit

from score_sde.conditioning import extrapolation
from score_sde.conditioning.guidance import ALWAYS
from score_sde.oracles import Gaussian
from score_sde.randomness import batch_keys
from score_sde.sampling import fast_solver, predictor_corrector, probability_flow, solve
from score_sde.sde import VE

SHAPE = (1, 1, 2)
V, v = np.array([2.0, 3.0]), 1.0  # V of all data, and of a negative prompt: a pixel each
LAST = 1e-6  # another time than the process's own, so that steps end at the nodes of the grid
SCALES = pytest.mark.parametrize("w", [1.0, 2.0, 3.0])
NODES = 0.4, 0.6  # of a grid: fractions of its steps between which guidance acts, from the noise on


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def odds(k):
    return (V + k**2) / (v + k**2) if np.isfinite(k) else np.ones(2)


def of_ode(w, low=0.0, high=np.inf):
    return v * (odds(low) / odds(high)) ** (1 - w)


def of_sde(w, low=0.0, high=np.inf):
    arrives = odds(high) ** (2 * w - 2) / (v + high**2)  # G Var at `high`
    grows = (odds(low) ** (2 * w - 1) - odds(high) ** (2 * w - 1)) / ((2 * w - 1) * (V - v))
    leaves = (arrives + grows) / odds(low) ** (2 * w - 2)  # Var / (v + u)^2 at `low`
    return v**2 * (leaves + 1 / v - 1 / (v + low**2))


def tilted(w):
    return 1 / (w / v + (1 - w) / V)


def levels(process):
    """Noise levels (low, high) at the nodes between which guidance acts, and the interval of times that says so."""
    high, low = (1 - node * (1 - LAST) for node in NODES)
    return process.sigma(np.array([low, high])), (low + 1e-5, high + 1e-5)  # a step is guided where it begins inside


def guided(process, w, interval=ALWAYS):
    of_class, reference = (Gaussian(np.zeros(SHAPE), np.full(SHAPE, each)).model(process) for each in (v, V))
    return extrapolation(of_class, reference, scale=w, interval=interval)


def variance(process, make):
    """The variance of a sampler's output: its steps are x' = a x + c z, and unit impulses give all a and c at once."""
    one, none = np.ones((1, *SHAPE)), np.zeros((1, *SHAPE))
    x, z = np.concatenate([one, none, none]), np.concatenate([none, one, none])
    solver = make(noise=lambda keys, shape: jnp.asarray(z))
    state = solver.init(batch_keys(jax.random.key(0), 3), jnp.asarray(x))
    after = quick_jit(jax.vmap(lambda i: solver.view(solver.step(state._replace(i=i)))))
    a, c, rest = np.moveaxis(np.asarray(after(jnp.arange(solver.steps, dtype=jnp.int32))).reshape(-1, 3, 2), 1, 0)
    assert np.all(rest == 0)
    result = np.full(2, process.prior_std**2)
    for each, noise in zip(a, c, strict=True):
        result = each**2 * result + noise**2
    return result


def of_chain(num_scales, w, predictor, interval=ALWAYS):
    process = VE(num_scales=num_scales)
    options = dict(predictor=predictor, eps=LAST, noise_removal=False)
    return variance(process, lambda **n: predictor_corrector(process, guided(process, w, interval), **options, **n))


def assert_limit(expected, of_steps):
    """Within 1 % at 1000 steps, and within 1e-3 extrapolated by a polynomial in 1 / N of degree 2."""
    at = [of_steps(n) for n in (1000, 2000, 4000)]
    np.testing.assert_allclose(at[0], expected, rtol=1e-2)
    np.testing.assert_allclose((at[0] - 6 * at[1] + 8 * at[2]) / 3, expected, rtol=1e-3)


@SCALES
@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion"])
def test_the_guided_sde_has_its_law(predictor, w):
    assert_limit(of_sde(w), lambda n: of_chain(n, w, predictor))


@SCALES
def test_the_guided_sde_has_its_law_in_an_interval_too(w):
    (low, high), interval = levels(VE())
    assert_limit(of_sde(w, low, high), lambda n: of_chain(n, w, "euler_maruyama", interval))


def ends(solver, process):
    """The variance of a deterministic sampler's output, which is linear in its start."""
    starts = jnp.stack([jnp.full(SHAPE, process.prior_std), jnp.zeros(SHAPE)])
    x, _ = solve(solver, jax.random.key(0), starts)
    assert np.all(np.asarray(x[1]) == 0)
    return np.asarray(x[0]).ravel() ** 2


ODES = {
    "ode": lambda process, model: probability_flow(process, model, noise_removal=False),
    "unipc_3": lambda process, model: fast_solver(process, model, name="unipc_3", num_steps=100, noise_removal=False),
    "heun": lambda process, model: fast_solver(process, model, name="heun", num_steps=1000, noise_removal=False),
}


@SCALES
@pytest.mark.parametrize("name", ODES)
def test_the_guided_ode_has_its_law(name, w):
    """From N(0, 500^2): the prior, as of N(0, 50^2), would be 1.2e-3 from the limit for V = 3 and w = 3."""
    process = VE(sigma_max=500.0)
    np.testing.assert_allclose(ends(ODES[name](process, guided(process, w)), process), of_ode(w), rtol=1e-3)


@SCALES
def test_the_guided_ode_has_its_law_in_an_interval_too(w):
    process = VE()
    (low, high), interval = levels(process)
    options = dict(name="dpm_solver_2", grid="uniform", num_steps=500, eps=LAST, noise_removal=False)
    solver = fast_solver(process, guided(process, w, interval), **options)
    np.testing.assert_allclose(ends(solver, process), of_ode(w, low, high), rtol=1e-3)


@pytest.mark.parametrize("w", [0.75, 2.0, 3.0])
def test_neither_law_is_that_of_the_tilted_density(w):
    np.testing.assert_allclose([of_ode(w)[0], of_sde(w)[0]], [2 ** (1 - w), (2 - 2 ** (2 - 2 * w)) / (2 * w - 1)])
    np.testing.assert_allclose(tilted(w)[0], 2 / (w + 1))
    laws = np.array([of_ode(w), of_sde(w), tilted(w)])
    assert np.all(np.abs(np.diff(np.log(laws), axis=0)) > 0.01)


def test_at_scale_one_the_laws_agree():
    np.testing.assert_allclose([of_ode(1), of_sde(1), tilted(1), of_sde(1, 0.3, 2.0)], v)


def test_impulses_of_single_steps_give_the_law_of_impulses_through_all_steps():
    process = VE(num_scales=30)

    def make(**noise):
        options = dict(predictor="euler_maruyama", eps=LAST, noise_removal=False)
        return predictor_corrector(process, guided(process, 2.0), **options, **noise)

    _, covariance = law(make).moments(np.zeros(2), process.prior_std**2 * np.eye(2))
    np.testing.assert_allclose(covariance, np.diag(variance(process, make)), rtol=1e-10)
