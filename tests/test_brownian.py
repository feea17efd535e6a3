import functools

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.randomness import sample_keys
from score_sde.sampling.brownian import brownian

N = 20_000
KEYS = sample_keys(jax.random.key(0), jnp.arange(N))
TIMES = [0.0, 1e-4, 0.25, 0.2500001, 0.3, 0.75, 1.0]
walk = jax.jit(brownian, static_argnums=1)


@functools.cache
def path(s):
    return np.asarray(walk(KEYS, (1,), np.full(N, s, np.float32)), np.float64)[:, 0]


def test_a_path_has_the_covariance_of_brownian_motion():
    w = np.array([path(s) for s in TIMES])
    expected = np.minimum.outer(TIMES, TIMES)
    error = np.sqrt((expected**2 + np.outer(TIMES, TIMES)) / N)  # of a product of Gaussians' mean
    assert np.all(np.abs(w @ w.T / N - expected) <= 4 * error)


def test_increments_are_independent_and_have_the_length_of_their_step_as_variance():
    w = [path(s) for s in TIMES]
    steps = np.diff(w, axis=0)
    correlations = np.corrcoef(steps)
    assert np.abs(correlations - np.eye(len(steps))).max() < 4.5 / np.sqrt(N)
    np.testing.assert_allclose(steps.var(axis=1) / np.diff(np.float32(TIMES)), 1, atol=4.5 * np.sqrt(2 / N))


def test_a_path_depends_on_its_key_only():
    s = np.linspace(0, 1, 8, dtype=np.float32)
    whole = np.asarray(walk(KEYS[:8], (3,), s))
    np.testing.assert_array_equal(whole[5:], walk(KEYS[5:8], (3,), s[5:]))
    assert np.all(whole[0] == 0)
