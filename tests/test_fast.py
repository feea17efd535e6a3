"""Fast solvers: what they share with each other, their grids, and their refusals. Their orders: test_truth_table.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.oracles import Gaussian, Mixture
from score_sde.process import Prediction
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.sampling import FAST_SOLVERS, SAMPLERS, advance, fast_solver, predictor_corrector, solve
from score_sde.sampling.fast import Options, _orders
from score_sde.sampling.grids import GRIDS, time_grid
from score_sde.sampling.rows import Grid
from score_sde.sde import EDM, VE, VP, SubVP

SHAPE = (1, 2, 1)
DATA = Mixture(
    [0.6, 0.4],
    [
        Gaussian(np.reshape([0.7, 0.2], SHAPE), np.array([[0.2, 0.1], [0.1, 0.3]])),
        Gaussian(np.reshape([-0.8, 0.4], SHAPE), 0.15),
    ],
)
SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM()}
KEYS = sample_keys(jax.random.key(0), jnp.arange(8))
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def start(sde, keys=KEYS):
    return sde.prior_sample(stream(keys, Stream.PRIOR), SHAPE)


def samples(sde, keys=KEYS, **options):
    return np.asarray(solve(fast_solver(sde, DATA.model(sde), **options), keys, start(sde, keys))[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_reports_the_evaluations_that_the_score_counts(name):
    sde, calls = VP(num_scales=25), []
    exact = DATA.model(sde)

    def counted(x, t):
        jax.debug.callback(lambda t: calls.append(t), t[0])
        return exact(x, t)

    options = dict(rtol=1e-2, atol=1e-2) if name in ("ode", "adaptive") else {}
    _, nfe = solve(SAMPLERS[name](sde, counted, **options), KEYS[:1], start(sde, KEYS[:1]))
    jax.effects_barrier()
    assert nfe.tolist() == [len(calls)]


@pytest.mark.parametrize("steps", [41, 47, 97])  # float32(n) * float32(1 / n) is less than 1, and XLA divides so
def test_a_solver_that_is_advanced_takes_as_many_steps_as_it_plans(steps):
    def model(x, t):
        return Prediction(x, x)

    for solver in (
        fast_solver(VP(), model, num_steps=steps - 1, grid="uniform"),
        predictor_corrector(VP(num_scales=steps), model),
    ):
        state = solver.init(KEYS[:1], jnp.zeros((1, 1, 1, 1)))
        state = jax.jit(functools.partial(advance, solver, max_steps=200))(state)
        assert solver.result(state)[1].tolist() == [solver.steps] == [steps]
        assert float(solver.fraction(state)) == 1


def test_denoising_costs_one_evaluation():
    numbers = [fast_solver(VP(), DATA.model(VP()), num_steps=9, noise_removal=last).nfe for last in (False, True)]
    assert numbers == [9, 10]


def test_ddim_without_noise_is_the_first_order_dpm_solver():
    np.testing.assert_array_equal(samples(VP(), name="ddim", eta=0.0), samples(VP(), name="dpm_solver_1"))


def test_edm_without_churn_is_its_deterministic_sampler():
    np.testing.assert_array_equal(samples(EDM(), name="edm_stochastic", s_churn=0.0), samples(EDM(), name="edm"))


@pytest.mark.parametrize("grid", ["karras", "uniform"])
def test_under_edms_own_sde_heuns_method_is_edms(grid):
    """Where std is time, slopes in t are slopes in the noise level; both sum the same terms in another order."""
    heun, edm = (samples(EDM(sigma_max=5.0), name=name, grid=grid, num_steps=12) for name in ("heun", "edm"))
    np.testing.assert_allclose(heun, edm, rtol=1e-4, atol=1e-5)


def test_under_another_sde_heuns_method_is_not_edms():
    heun, edm = (samples(VE(), name=name, grid="karras", num_steps=12) for name in ("heun", "edm"))
    assert np.abs(heun - edm).max() > 1e-3


def test_noise_of_ddim_changes_samples_and_their_spread_stays():
    keys = sample_keys(jax.random.key(1), jnp.arange(2048))
    still, noisy = (samples(VP(), keys, name="ddim", eta=eta, num_steps=50) for eta in (0.0, 1.0))
    assert np.abs(still - noisy).max() > 0.5
    np.testing.assert_allclose(still.std(0), noisy.std(0), rtol=0.1)


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "edm_stochastic", "unipc_3"])
def test_a_sample_does_not_depend_on_its_batch(name):
    np.testing.assert_allclose(samples(VP(), name=name)[4:6], samples(VP(), KEYS[4:6], name=name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpm_solver_3"])
def test_advancing_in_parts_changes_nothing(name):
    sde = VP()
    solver = fast_solver(sde, DATA.model(sde), name=name, num_steps=7)
    go_on = jax.jit(functools.partial(advance, solver))
    state = jax.jit(solver.init)(KEYS, start(sde))
    for steps in (2, 3, 100):
        state = go_on(state, steps)
    assert float(jax.jit(solver.fraction)(state)) == 1
    x, _ = jax.jit(solver.result)(state)
    np.testing.assert_allclose(x, samples(sde, name=name, num_steps=7), rtol=1e-5, atol=1e-6)


def errors_by_steps(sde, name, grid, most):
    """Root mean square distance from the exact flow of two Gaussians, for 1 to `most` steps, in NumPy."""
    mean, variance = np.array([0.5, -0.3]), np.array([0.6, 0.05])
    m1, s1, eps = sde.alpha(np.float64(1)), sde.sigma(np.float64(1)), sde.sampling_eps
    m0, s0 = sde.alpha(np.float64(eps)), sde.sigma(np.float64(eps))
    x = m1 * mean + sde.prior_std * np.array([[-1.5, -0.6, 0.4, 1.3]]).T
    ratio = np.sqrt((m0**2 * variance + s0**2) / (m1**2 * variance + s1**2))
    exact = m0 * mean + ratio * (x - m1 * mean)
    found = []
    for n in range(1, most + 1):
        table = FAST_SOLVERS[name](Grid(sde, time_grid(sde, grid, n, eps=eps)), Options())
        base = trial = x
        history = []
        for m, s, *weights in zip(sde.alpha(table.t), sde.sigma(table.t), table.base, table.trial, strict=True):
            noise = s * (trial - m * mean) / (m**2 * variance + s**2)
            history = [(trial - s * noise) / m if table.predicts_data else noise, *history]
            base, trial = (sum(w * f for w, f in zip(row, [base, *history], strict=False)) for row in weights)
        found.append(np.sqrt(np.mean(np.square(base - exact))))
    return np.array(found)


@pytest.mark.parametrize("grid", ["log_snr", "uniform"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m", "unipc_2", "unipc_3"])
def test_more_steps_make_no_worse_samples(name, grid):
    """No number of steps has 1.1 times the largest error of the five before: single ones are small by chance."""
    for sde in (VP(), SubVP(), VE()):
        error = errors_by_steps(sde, name, grid, 20)
        for n in range(5, len(error)):
            assert error[n] < 1.1 * error[n - 5 : n].max(), (sde, n + 1)


def test_orders_are_lowered_at_both_ends_and_where_steps_are_long():
    assert _orders(np.full(1, 0.1), 3) == [1]
    assert _orders(np.full(5, 0.1), 3) == [1, 2, 3, 2, 1]
    assert _orders(np.full(5, 1.9), 3) == [1, 2, 2, 2, 1]
    assert _orders(np.array([0.1, 0.1, 0.1, 1.0, 0.1, 0.1, 0.1]), 3) == [1, 2, 3, 2, 3, 2, 1]
    assert _orders(np.full(12, 1.0), 2) == [1, *[2] * 10, 1]


@pytest.mark.parametrize(("noise_removal", "steps"), [(True, 21), (False, 20)])
def test_churn_is_shared_among_all_steps(noise_removal, steps):
    """Karras et al., algorithm 2: gamma = S_churn / N, where the N-th step is that to level 0."""
    grid = Grid(EDM(), time_grid(EDM(), "karras", 20, eps=EDM().sampling_eps), noise_removal)
    table = FAST_SOLVERS["edm_stochastic"](grid, Options(s_churn=4.0, s_min=0.0, s_max=60.0, s_noise=1.0))
    raised, level = table.t[2::2] * 80.0, grid.k[1:-1]
    np.testing.assert_allclose(raised[level < 60] / level[level < 60], 1 + 4.0 / steps, rtol=1e-12)
    np.testing.assert_allclose(np.square(table.noise[1:-1:2]), np.square(raised) - np.square(level), rtol=1e-9)


@every_sde
@pytest.mark.parametrize("name", GRIDS)
def test_grids_go_from_one_down_to_eps(sde, name):
    t = time_grid(sde, name, 17, eps=1e-3)
    assert (len(t), t[0], t[-1]) == (18, 1.0, 1e-3)
    assert np.all(np.diff(t) < 0)


@every_sde
@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("uniform", lambda sde, t: t),
        ("quadratic", lambda sde, t: np.sqrt(t)),
        ("log_snr", lambda sde, t: np.log(sde.sigma(t) / sde.alpha(t))),
        ("karras", lambda sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / 7)),
    ],
)
def test_grids_are_equidistant_in_what_they_say(sde, name, measure):
    """In float64; the noise level of sub-VP at eps is a difference that leaves 9 digits."""
    steps = np.diff(measure(sde, time_grid(sde, name, 10, eps=1e-3)))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)


@pytest.mark.parametrize("name", FAST_SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_few_steps_are_enough_to_run(name, num_steps):
    solver = fast_solver(VP(), DATA.model(VP()), name=name, num_steps=num_steps)
    shapes = jax.eval_shape(lambda: solver.result(solver.step(solver.init(KEYS, jnp.zeros((8, *SHAPE))))))
    assert shapes[0].shape == (8, *SHAPE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(name="dpmpp2m"), "did you mean 'dpmpp_2m'"),
        (dict(grid="logsnr"), "did you mean 'log_snr'"),
        (dict(name="ddim", eta=1.5), r"eta must be a number in \[0, 1\], and is 1.5"),
        (dict(name="ddim", eta=-0.1), "eta must be"),
        (dict(num_steps=0), "num_steps must be an integer in"),
        (dict(grid="karras", rho=0.0), r"rho must be a number in \[0.1, 100\], and is 0"),
        (dict(grid="karras", rho=-7.0), "rho"),
        (dict(eps=0.0), r"in \(0, 1\)"),
        (dict(eps=1.0), r"in \(0, 1\)"),
        (dict(name="edm_stochastic", s_churn=-1.0), "s_churn must be a number of 0 or more"),
        (dict(name="edm_stochastic", s_min=2.0, s_max=1.0), "s_min=2.0 must be at most sampling.s_max=1.0"),
        (dict(name="edm_stochastic", s_noise=0.0), "s_noise must be"),
    ],
)
def test_mistakes_are_refused_in_words_that_help(options, words):
    with pytest.raises(UsageError, match=words):
        fast_solver(VP(), DATA.model(VP()), **options)
