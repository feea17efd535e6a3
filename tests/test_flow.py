"""Paths with alpha(1) = 0, with the exact predictions of a Gaussian with full covariance and of a mixture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.experiments.truth_table.paths import STARTS, expected, from_faint, from_one, run
from score_sde.experiments.truth_table.problems import DATA
from score_sde.experiments.truth_table.rows import ORDERS

from score_sde.errors import UsageError
from score_sde.likelihood import ode as likelihood
from score_sde.likelihood.bound import likelihood_bound
from score_sde.oracles import Gaussian, Mixture
from score_sde.paths import PROCESSES, Cosine, Linear, Trigonometric
from score_sde.process import Prediction, Process, from_score, in_float64
from score_sde.randomness import sample_keys
from score_sde.sampling import FAST_SOLVERS, SAMPLERS, fast_solver, predictor_corrector, solve
from score_sde.sampling.fast import Options
from score_sde.sampling.grids import FAINT, time_grid
from score_sde.sampling.predictors import PREDICTORS
from score_sde.sampling.probability_flow import drift
from score_sde.sampling.rows import Grid, first_step
from score_sde.sampling.runge_kutta import runge_kutta
from score_sde.sampling.solver import advance
from score_sde.sde import VE, VP, SubVP

SHAPE = (1, 2, 1)
GAUSSIAN = Gaussian(np.reshape([0.7, 0.2], SHAPE), np.array([[0.2, 0.1], [0.1, 0.3]]))
MIXTURE = Mixture([0.6, 0.4], [GAUSSIAN, Gaussian(np.reshape([-0.8, 0.4], SHAPE), 0.15)])
PATHS = [Linear(), Cosine(), Trigonometric()]
KEYS = sample_keys(jax.random.key(0), jnp.arange(8))
every_path = pytest.mark.parametrize("process", PATHS, ids=lambda process: type(process).__name__.lower())
APPLY = sorted(set(SAMPLERS) - {"adaptive"})


def sampler(name, process, data, **options):
    if name == "pc":
        return predictor_corrector(process, data.model(process), predictor="exponential", **options)
    return SAMPLERS[name](process, data.model(process), **options)


@every_path
def test_predictions_are_finite_on_the_whole_path_and_make_up_x(process):
    t, x = jnp.array([1e-5, 0.3, 0.9, 1.0]), jax.random.normal(jax.random.key(1), (4, *SHAPE))
    for data in (GAUSSIAN, MIXTURE):
        x0, eps = jax.jit(data.model(process))(x, t)
        alpha, sigma = process.alpha(t)[:, None, None, None], process.sigma(t)[:, None, None, None]
        np.testing.assert_allclose(alpha * x0 + sigma * eps, x, atol=1e-5)
    np.testing.assert_allclose(x0[-1].ravel(), 0.6 * np.array([0.7, 0.2]) + 0.4 * np.array([-0.8, 0.4]), rtol=1e-6)


@pytest.mark.parametrize(
    ("process", "name"),
    [(Linear(), name) for name in APPLY] + [(path, name) for path in PATHS[1:] for name in ("pc", "ode", "unipc_2")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__.lower(),
)
def test_every_sampler_runs_from_time_one(process, name):
    x = solve(sampler(name, process, MIXTURE), KEYS, process.prior_sample(KEYS, SHAPE))[0]
    assert np.all(np.isfinite(x)) and np.all(np.abs(np.asarray(x)) < 4)


DETERMINISTIC = sorted(set(FAST_SOLVERS) - {"dpmpp_2m_sde"})


@pytest.mark.parametrize(
    ("name", "grid"), [*((name, "uniform") for name in DETERMINISTIC), ("dpmpp_2m", "log_snr"), ("edm", "karras")]
)
def test_the_first_step_is_a_mean_of_what_is_predicted(name, grid):
    process = Linear()
    solver = fast_solver(process, MIXTURE.model(process), name=name, num_steps=6, grid=grid)
    x = process.prior_sample(KEYS, SHAPE)
    state = jax.jit(functools.partial(advance, solver))(solver.init(KEYS, x), 1)
    t = time_grid(process, grid, 6, eps=process.sampling_eps)[1]
    x0, eps = MIXTURE.model(process)(x, jnp.ones(8))
    np.testing.assert_allclose(state.trial, (1 - t) * x0 + t * eps, rtol=1e-5, atol=1e-6)
    assert 1 - t == pytest.approx(1 / 6, rel=1e-2) if grid == "uniform" else t / (1 - t) == pytest.approx(FAINT)


# Orders, in NumPy and float64: a table is the solver (experiments/truth_table/paths.py, which
# measures all of them; here the kinds of solvers on the two other paths).

KINDS = ("ddim", "heun", "dpmpp_2m", "deis_2", "unipc_3")
each = pytest.mark.parametrize(
    ("process", "name"),
    [(Linear(), name) for name in ORDERS] + [(path, name) for path in PATHS[1:] for name in KINDS],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__.lower(),
)


@each
def test_orders_are_nominal_from_where_the_data_are_faint(process, name):
    for data in DATA.values():
        assert from_faint(process, data, name) == pytest.approx(expected(name)[0], abs=0.25)


@each
def test_orders_from_time_one_are_two_at_most(process, name):
    """At least: some errors of the first steps, at which the noise level is infinite, are small."""
    for data in DATA.values():
        assert from_one(process, data, name) > expected(name)[1] - 0.25


def test_the_tables_in_numpy_are_the_solvers():
    process, mixture = Linear(), DATA["mixture"]
    x, _ = solve(
        fast_solver(process, mixture.model(process), name="unipc_3", num_steps=12, grid="uniform", noise_removal=False),
        KEYS[:6],
        jnp.asarray(STARTS.reshape(6, 1, 1, 2), jnp.float32),
    )
    t = time_grid(process, "uniform", 12, eps=process.sampling_eps)
    table = first_step(process, t, FAST_SOLVERS["unipc_3"](Grid(process, t[1:]), Options()), 1.0)
    np.testing.assert_allclose(np.asarray(x).reshape(6, 2), run(process, mixture, table, STARTS), atol=2e-5)


# Laws of stochastic samplers on N(0, V), for which every step multiplies x and adds noise.

V = 0.3


def kept(process, t, of_x, of_x0, of_eps):
    m, s = process.alpha(t), process.sigma(t)
    return of_x + (of_x0 * m * V + of_eps * s) / (m**2 * V + s**2)


def variance_by(predictor, process, w, n, last=0.1):
    t = np.linspace(1.0, last, n + 1)
    with jax.enable_x64(True):
        step = PREDICTORS[predictor](process, jnp.asarray(t[:-1]), jnp.asarray(t[1:]), w)
        of_x, of_x0, of_eps, z = (0.0 if part is None else np.asarray(part) for part in step)
    variance = process.prior_std**2
    for factor, noise in zip(kept(process, t[:-1], of_x, of_x0, of_eps), np.broadcast_to(z, n), strict=True):
        variance = factor**2 * variance + noise**2
    return variance / (process.alpha(t[-1]) ** 2 * V + process.sigma(t[-1]) ** 2) - 1


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, lambda t: 2 * t])
@pytest.mark.parametrize("predictor", ["exponential", "euler_maruyama"])
def test_the_law_under_any_diffusion_converges_to_that_of_the_process(predictor, w):
    paths = PATHS if predictor == "exponential" else []
    for process in [*paths, VP(), SubVP(), VE(sigma_max=5.0)]:
        coarse, fine = (abs(variance_by(predictor, process, w, n)) for n in (400, 1600))
        start = abs(
            process.prior_std**2 / (process.alpha(np.float64(1)) ** 2 * V + process.sigma(np.float64(1)) ** 2) - 1
        )  # prior's own
        assert fine < 0.02 + start
        if start < 1e-9:
            assert np.log(coarse / fine) / np.log(4) > 0.75


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0])
@every_path
def test_the_fast_sde_solver_has_weak_order_two_under_any_diffusion(process, w):
    """Between noise levels of 148 and 0.05: of x at the start, and of each step's noise, by unit impulses."""

    def error(n):
        t = process.time(np.geomspace(FAINT, 0.05, n + 1))
        table = FAST_SOLVERS["dpmpp_2m_sde"](Grid(process, t), Options(diffusion=w))
        start, end = process.alpha(t[[0, -1]]) ** 2 * V + process.sigma(t[[0, -1]]) ** 2
        x, history = np.append(np.sqrt(start), np.zeros(n)), []
        for i, (at, weights, noise) in enumerate(zip(table.t, table.base, table.noise, strict=True)):
            history = [kept(process, at, 0.0, 1.0, 0.0) * x, *history]
            x = sum(weight * f for weight, f in zip(weights, [x, *history], strict=False))
            x[1 + i] += noise
        return np.sum(x**2) / end - 1

    errors = np.abs([error(n) for n in (100, 400)])
    assert errors[1] < 1e-3 and np.log(errors[0] / errors[1]) / np.log(4) > 1.75


def test_without_diffusion_the_fast_sde_solver_is_the_ode_solver():
    grid = Grid(Linear(), time_grid(Linear(), "log_snr", 9, eps=1e-3)[1:])
    for ode, sde in zip(
        FAST_SOLVERS["dpmpp_2m"](grid, Options()),
        FAST_SOLVERS["dpmpp_2m_sde"](grid, Options(diffusion=0.0)),
        strict=True,
    ):
        np.testing.assert_allclose(ode, sde, rtol=1e-12, atol=1e-15)


def test_a_stochastic_solver_draws_all_of_its_first_steps_noise():
    """Where nothing is known of x_0 at t = 1, x_1 is forgotten."""
    process, x = Linear(), 100 * Linear().prior_sample(KEYS, SHAPE)
    for name, options in (("dpmpp_2m_sde", {}), ("ddim", dict(eta=1.0))):
        solver = fast_solver(process, lambda x, t: Prediction(0 * x, 0 * x), name=name, num_steps=5, **options)
        np.testing.assert_array_equal(*(solve(solver, KEYS, start)[0] for start in (x, 0 * x)))


# Between two noise levels all processes are one, but for the scale of x.

LEVELS = (0.05, 20.0)
ROUND = Mixture([0.6, 0.4], [Gaussian(np.reshape(mean, SHAPE), 0.15) for mean in ([0.7, 0.2], [-0.8, 0.4])])


def unused(*_):
    """In the place of a solver's functions that `advance` does not call."""


@pytest.fixture(scope="module")
def along_all():
    """process -> (y_1, bits/dim) of points y_0 = x / alpha, with the exact divergence and marginal, in float64."""
    y0 = np.random.default_rng(1).standard_normal((3, *SHAPE)) * 0.4

    def solved(process):
        t0, t1 = process.time(np.array(LEVELS))
        flow = drift(process, ROUND.model(process))

        def rhs(t, state, _):
            return likelihood.exact(functools.partial(flow, t), state[0], state[0][:, None])

        @jax.jit
        def run(x):
            ode = runge_kutta(rhs, t0, t1, rtol=1e-10, atol=1e-12)
            state = advance(
                likelihood.Solver(unused, ode.step, ode.fraction, unused, unused),
                ode.init((x, jnp.zeros(len(x)))),
                10**6,
            )
            x1, gained = state.y
            return x1, ROUND.log_density(process, x1, jnp.full(len(x), t1)) + gained

        m0, m1 = process.alpha(np.array([t0, t1]))
        x1, log_p = run(jnp.asarray(m0 * y0))
        return np.asarray(x1) / m1, -(np.asarray(log_p) / 2 + np.log(m0)) / np.log(2)

    with jax.enable_x64(True):
        return {name: solved(make()) for name, make in PROCESSES.items() if not make.learned}


@pytest.mark.parametrize("name", sorted(set(PROCESSES) - {"ve", "learned"}))
def test_all_processes_give_one_map_and_one_likelihood_between_two_noise_levels(along_all, name):
    (map_, bits), (expected, expected_bits) = along_all[name], along_all["ve"]
    np.testing.assert_allclose(map_, expected, rtol=1e-5)
    np.testing.assert_allclose(bits, expected_bits, atol=1e-4)


@every_path
def test_likelihoods_have_their_true_prior(process):
    """Bits/dim of the ODE are those of the data's density at eps; the bound, from the noisiest time, is an equality."""
    x = jnp.asarray(np.random.default_rng(2).normal(0.5, 0.4, (4, *SHAPE)), jnp.float32)
    solver = likelihood.bits_per_dim(process, GAUSSIAN.model(process), offset_bits=0, divergence="exact", eps=1e-3)
    exact = -GAUSSIAN.log_density(process, x, jnp.full(4, 1e-3)) / (2 * np.log(2))
    np.testing.assert_allclose(solve(solver, KEYS[:4], x)[0], exact, atol=2e-4)
    keys = sample_keys(jax.random.key(3), jnp.arange(4000))
    bound = jax.jit(likelihood_bound(process, GAUSSIAN.model(process), num_times=8, eps=1e-3))
    bits = np.asarray(bound(keys, jnp.tile(x[:1], (4000, 1, 1, 1))), np.float64)
    truth = float(-GAUSSIAN.log_density(VE(sigma_min=1e-4), x[:1], jnp.zeros(1))[0] / (2 * np.log(2)))
    assert abs(bits.mean() - truth) < 4 * bits.std() / np.sqrt(len(bits)) + 2e-3


# A process of one's own.


class Quadratic(Process):
    """Two functions of JAX are all there is of it."""

    def alpha(self, t):
        return 1 - jnp.square(t)

    def sigma(self, t):
        return jnp.asarray(t)


def test_a_process_of_ones_own_is_two_functions():
    process = Quadratic()
    k = np.array([0.01, 1.0, 30.0])
    t = in_float64(process.time, k)
    np.testing.assert_allclose(t / (1 - t**2), k, rtol=1e-9)
    np.testing.assert_allclose(process.f(jnp.array([0.5])), [-1 / 0.75], rtol=1e-6)
    for name in ("ode", "dpmpp_2m", "pc"):
        x = solve(sampler(name, process, GAUSSIAN), KEYS, process.prior_sample(KEYS, SHAPE))[0]
        assert np.all(np.isfinite(x))


class Pixels(Process):
    """Two pixels with schedules of their own."""

    scalar = False

    def alpha(self, t):
        return 1 - self.sigma(t)

    def sigma(self, t):
        return jnp.stack([t, t**2], axis=-1).reshape(*jnp.shape(t), *SHAPE)


def test_a_schedule_may_differ_from_pixel_to_pixel():
    """Independent pixels are each as under its own process; tables, which have one schedule, refuse."""
    process = Pixels()

    def model(x, t):
        m, s = process.alpha(t), process.sigma(t)
        pulled = (x - m * 0.3) / (m**2 * 0.25 + s**2)
        return Prediction(0.3 + m * 0.25 * pulled, s * pulled)

    x = process.prior_sample(KEYS, SHAPE)
    t = np.array([[process.sampling_eps], [process.sampling_eps**2]])  # each pixel's sigma
    exact = (1 - t) * 0.3 + np.sqrt((1 - t) ** 2 * 0.25 + t**2) * np.asarray(x)[:, 0]
    for solver in (
        SAMPLERS["ode"](process, model, rtol=1e-6, atol=1e-6, noise_removal=False),
        predictor_corrector(process, model, predictor="exponential", diffusion=0.0, noise_removal=False),
    ):
        np.testing.assert_allclose(np.asarray(solve(solver, KEYS, x)[0])[:, 0], exact, atol=5e-3)
    with pytest.raises(UsageError, match="one for each"):
        fast_solver(process, model)


def test_what_a_path_does_not_have_is_refused_by_name():
    model = MIXTURE.model(Linear())
    for options, words in (
        (dict(predictor="reverse_diffusion"), "Linear has none"),
        (dict(predictor="ancestral_sampling"), "Linear has none"),
        (dict(predictor="exponential", corrector="langevin"), "Linear has none"),
        (dict(predictor="euler_maruyama"), "infinite at t = 1 of Linear"),
        (dict(predictor="exponential", diffusion=-1.0), "diffusion must be .* and is -1"),
    ):
        with pytest.raises(UsageError, match=words):
            predictor_corrector(Linear(), model, **options)
    with pytest.raises(UsageError, match="infinite at t = 1 of Linear"):
        SAMPLERS["adaptive"](Linear(), model)
    with pytest.raises(UsageError, match="tells nothing about x0"):
        from_score(Linear(), lambda x, t: -x)
    with pytest.raises(UsageError, match="from_score"):
        solve(fast_solver(VP(), lambda x, t: -x), KEYS, VP().prior_sample(KEYS, SHAPE))


def test_old_names_are_answered_with_the_new_ones():
    for old, new in (("mean_scale", "alpha"), ("std", "sigma"), ("drift_rate", "f"), ("diffusion", "g")):
        with pytest.raises(AttributeError, match=f"VP.{new}"):
            getattr(VP(), old)
