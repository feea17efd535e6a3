"""Conjugate gradients solve each row of a batch by itself."""

import jax.numpy as jnp
import numpy as np

from score_sde.controllable.operators import conjugate_gradients

RNG = np.random.default_rng(0)


def test_as_many_steps_as_dimensions_solve_a_batch_of_systems():
    roots = RNG.normal(size=(3, 4, 4))
    matrices = roots @ roots.transpose(0, 2, 1) + np.eye(4)
    b = RNG.normal(size=(3, 4))
    x = conjugate_gradients(
        lambda u: jnp.einsum("bij,bj->bi", jnp.asarray(matrices, jnp.float32), u), jnp.asarray(b), iterations=6
    )
    np.testing.assert_allclose(x, np.linalg.solve(matrices, b[..., None])[..., 0], rtol=2e-4, atol=1e-5)


def test_a_row_stops_where_its_matrix_curves_down_and_others_go_on():
    scale = jnp.array([[2.0], [-1.0]])
    x = conjugate_gradients(lambda u: scale * u, jnp.ones((2, 3)), iterations=4)
    np.testing.assert_allclose(x, [[0.5] * 3, [0.0] * 3])
