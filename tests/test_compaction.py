"""Steps of a part of a batch at a time: nobody's sample changes, and the batch pays for no waiting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.likelihood import bits_per_dim
from score_sde.oracles import Gaussian
from score_sde.process import Prediction
from score_sde.randomness import expand, sample_keys
from score_sde.sampling import adaptive, fast_solver, probability_flow
from score_sde.sampling.compaction import LEAST_ROWS, compacted, part_size
from score_sde.sampling.runner import Runner
from score_sde.sampling.solver import CountedModel, advance
from score_sde.sde import VP

PROCESS, ROWS, SHAPE = VP(), 33, (2, 2, 1)
DATA = Gaussian(np.full(SHAPE, 0.3), 0.25)
KEYS = sample_keys(jax.random.key(0), jnp.arange(ROWS))
SPREAD = jnp.geomspace(0.01, 30.0, ROWS)  # start images of different sizes want different numbers of steps
X = SPREAD[:, None, None, None] * jax.random.normal(jax.random.key(1), (ROWS, *SHAPE))


def model(scale, x, t):
    """The prediction for data of a standard deviation of each row's own, from the row's condition."""
    alpha, sigma = expand(PROCESS.alpha(t), x), expand(PROCESS.sigma(t), x)
    variance = jnp.square(alpha * expand(scale, x)) + jnp.square(sigma)
    return Prediction(alpha * jnp.square(expand(scale, x)) * x / variance, sigma * x / variance)


SOLVERS = {
    "adaptive": lambda scale: adaptive(PROCESS, functools.partial(model, scale), diffusion=0.0),
    "bits": lambda scale: bits_per_dim(
        PROCESS, functools.partial(model, scale), offset_bits=0, rtol=1e-3, atol=1e-3, eps=1e-3
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_each_row_takes_its_own_steps_with_its_own_condition(name):
    with jax.enable_x64(True):  # float32's rounding would grow with the choice of steps
        x, scale = jnp.asarray(X, jnp.float64), jnp.linspace(0.3, 1.2, ROWS)[::-1]

        @functools.partial(jax.jit, static_argnums=0)
        def end(compacts):
            solver = SOLVERS[name](scale)
            solver = compacted(solver, SOLVERS[name], (scale,)) if compacts else solver
            return solver.result(advance(solver, solver.init(KEYS, x), 10**6))

        in_parts, whole = end(True), end(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), in_parts[:-1], whole[:-1])
    np.testing.assert_array_equal(in_parts[-1], whole[-1])  # evaluations
    assert len(np.unique(whole[-1])) > 3


def test_the_noise_of_a_row_is_its_own():
    """A Brownian path is rough: rounding moves the steps, and with them the sample by as much as the tolerance."""
    runner = Runner(lambda _: adaptive(PROCESS, DATA.model(PROCESS)))
    x, few = runner(None, KEYS, X)[0], runner(None, KEYS[-8:], X[-8:])[0]
    assert jnp.abs(x[-8:] - few).max() < 0.1 < jnp.std(few)


def test_the_runner_pays_for_the_mean_row_and_counts_the_passes_of_parts_exactly():
    rows_passed = []

    def counted(x, t):
        jax.debug.callback(lambda t: rows_passed.append(len(t)), t)
        return DATA.model(PROCESS)(x, t)

    once = CountedModel(counted, lambda t: np.ones(len(t), np.int32))
    runner = Runner(lambda _: probability_flow(PROCESS, once, rtol=1e-3, atol=1e-3), batch_nfe=True)
    _, nfe, batch_nfe = runner(None, KEYS, X)
    jax.effects_barrier()
    assert ROWS in rows_passed and set(rows_passed) == {ROWS, part_size(ROWS)}
    np.testing.assert_allclose(batch_nfe, sum(rows_passed) / ROWS, rtol=1e-6)
    assert nfe.mean() <= batch_nfe[0] < 0.92 * nfe.max()


def test_rows_that_fail_end_and_the_others_do_not_notice():
    def fails(x, t):
        x0, eps = DATA.model(PROCESS)(x, t)
        return Prediction(jnp.where(x > 1e3, jnp.nan, x0), eps)

    runner = Runner(lambda _: probability_flow(PROCESS, fails, rtol=1e-3, atol=1e-3))
    good, _ = runner(None, KEYS, X)
    bad, _ = runner(None, KEYS, X.at[3].set(1e4))
    assert np.all(np.isnan(bad[3])) and np.all(np.isfinite(good))
    np.testing.assert_allclose(np.delete(bad, 3, 0), np.delete(good, 3, 0), rtol=1e-5, atol=1e-6)


def test_a_part_is_a_quarter_of_a_devices_rows_and_not_few(monkeypatch):
    assert [part_size(rows) for rows in (1, LEAST_ROWS, LEAST_ROWS + 1, 512)] == [1, LEAST_ROWS, LEAST_ROWS, 128]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [part_size(rows) for rows in (64, 512)] == [64, 128]


def test_samplers_of_a_fixed_number_of_steps_stay_whole():
    solver = fast_solver(PROCESS, DATA.model(PROCESS), num_steps=2)
    assert compacted(solver, lambda: solver, ()) is solver
