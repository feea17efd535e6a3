r"""The problems: data with known posteriors, and one observation y = A x_0 + n of each.

Matrices A are written out here in NumPy, one row for each number that is measured, and know nothing of the operators
that samplers take; both are of the same numbers, as `matrix_of` shows.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from score_sde.conditioning import Average, Blur, Inpaint, Linear, Observation, Operator, Sense
from score_sde.oracles import Gaussian, Mixture, Oracle
from score_sde.process import Process
from score_sde.sde import VE, VP, SubVP

SHAPE = (2, 2, 1)
COLOUR = (1, 1, 3)
STEPS = 200  # N of the predictor, unless said otherwise


def sdes(num_scales: int = STEPS) -> dict[str, Process]:
    """SDEs at the library's defaults but for the number of steps."""
    return {"VP": VP(num_scales=num_scales), "sub-VP": SubVP(num_scales=num_scales), "VE": VE(num_scales=num_scales)}


def _rotated(variances: tuple[float, ...], seed: int) -> np.ndarray:
    """A full covariance matrix with these eigenvalues."""
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(variances),) * 2))[0]
    return (axes * np.array(variances)) @ axes.T


GAUSSIAN = Gaussian(np.reshape([0.4, -0.3, 0.1, 0.6], SHAPE), _rotated((1.2, 0.5, 0.2, 0.08), 1))
COLOURED = Gaussian(np.reshape([0.3, 0.1, -0.4], COLOUR), _rotated((0.9, 0.3, 0.1), 2))
MIXTURE = Mixture(
    [0.4, 0.35, 0.25],
    [
        Gaussian(np.reshape([0.3, 0.9, 0.2, 0.7], SHAPE), _rotated((0.3, 0.12, 0.06, 0.04), 3)),
        Gaussian(np.reshape([0.1, -0.8, -0.1, 0.5], SHAPE), _rotated((0.2, 0.15, 0.08, 0.04), 4)),
        Gaussian(np.reshape([-0.3, 0.2, 0.4, -0.9], SHAPE), _rotated((0.25, 0.1, 0.08, 0.05), 5)),
    ],
)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One observation. matrix (m, D) and y (m,) are its numbers in float64; `operator` is A for a batch of n rows."""

    name: str
    data: Gaussian | Mixture
    operator: Callable[[int], Operator]
    matrix: np.ndarray
    y: np.ndarray
    noise: float
    observed_shape: tuple[int, ...]  # of what the operator makes of one image
    kept: np.ndarray  # which of its numbers are measurements: the others are 0

    def posterior(self) -> Oracle:
        return self.data.posterior(self.matrix, self.y, self.noise)

    def observation(self, n: int) -> Observation:
        """The same y n times."""
        y = np.zeros(int(np.prod(self.observed_shape)))
        y[self.kept] = self.y
        rows = jnp.tile(jnp.asarray(y, float).reshape(1, *self.observed_shape), (n, *[1] * len(self.observed_shape)))
        return Observation(self.operator(n), rows, jnp.full(n, self.noise))


def matrix_of(problem: Problem) -> np.ndarray:
    """(m, D) that the operator multiplies by, from what it makes of unit vectors."""
    d = problem.data.components[0].mean.size if isinstance(problem.data, Mixture) else problem.data.mean.size
    units = np.eye(d).reshape(d, *problem.data.shape)
    return np.asarray(jax.jit(problem.operator(d).forward)(units), np.float64).reshape(d, -1).T[problem.kept]


def _problem(name, data, operator, matrix, noise, observed_shape=None, kept=None, x0=None) -> Problem:
    """Observed is x0, or a fixed draw from the standard normal, in the data's mean and covariance."""
    generator = np.random.default_rng(sum(map(ord, name)))
    x0 = data.mean.ravel() + np.linalg.cholesky(data.covariance) @ generator.standard_normal(data.mean.size)
    y = matrix @ x0 + noise * generator.standard_normal(len(matrix))
    return _observed(name, data, operator, matrix, y, noise, observed_shape, kept)


def _observed(name, data, operator, matrix, y, noise, observed_shape=None, kept=None) -> Problem:
    kept = np.arange(len(y)) if kept is None else kept
    return Problem(name, data, operator, matrix, np.asarray(y, float), noise, observed_shape or (len(y),), kept)


LEFT = np.array([0, 2])  # of the four pixels, row by row; hidden are 1 and 3
DENSE = np.random.default_rng(7).standard_normal((2, 4)) / 2


def _left(n: int) -> Operator:
    return Inpaint(jnp.tile(jnp.array([[True, False], [True, False]])[None, :, :, None], (n, 1, 1, 1)))


def _dense(x):
    return jnp.dot(x.reshape(len(x), -1), jnp.asarray(DENSE.T, x.dtype), precision="highest")


def _blur(sigma: float) -> np.ndarray:
    """Each axis of two pixels: the kernel (1, exp(-1 / 2 sigma^2)), normalised, around the edges."""
    kernel = np.array([1.0, np.exp(-0.5 / sigma**2)])
    one = np.array([kernel, kernel[::-1]]) / kernel.sum()
    return np.kron(one, one)


def _sense(fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosine coefficients of images with signs flipped, and which of them are measured."""
    generator = np.random.default_rng([seed, *SHAPE])
    kept = np.sort(generator.permutation(4)[: round(4 * fraction)])
    signs = generator.choice([-1.0, 1.0], SHAPE).ravel()
    images = (np.eye(4) * signs).reshape(4, 2, 2)
    return scipy.fft.dctn(images, axes=(1, 2), norm="ortho").reshape(4, 4).T[kept], kept


INPAINT = dict(operator=_left, matrix=np.eye(4)[LEFT], observed_shape=SHAPE, kept=LEFT)
AVERAGE = dict(operator=lambda n: Average(2), matrix=np.full((1, 4), 0.25), observed_shape=(1, 1, 1))
SENSED, SENSED_KEPT = _sense(0.5)

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        _problem("inpaint", GAUSSIAN, noise=0.3, **INPAINT),
        _problem("inpaint, no noise", GAUSSIAN, noise=0.0, **INPAINT),
        _problem("dense", GAUSSIAN, lambda n: Linear(_dense, SHAPE), DENSE, 0.3),
        _problem("average", GAUSSIAN, noise=0.2, **AVERAGE),
        _problem("blur", GAUSSIAN, lambda n: Blur(0.7), _blur(0.7), 0.3, SHAPE),
        _problem("sense", GAUSSIAN, lambda n: Sense(0.5), SENSED, 0.3, SHAPE, SENSED_KEPT),
        _problem("grey", COLOURED, lambda n: Average(grey=True), np.full((1, 3), 1 / 3), 0.2, (1, 1, 1)),
        _observed("mixture, inpaint", MIXTURE, y=(-0.4, 0.5), noise=0.3, **INPAINT),
        _observed("mixture, average", MIXTURE, y=(0.15,), noise=0.2, **AVERAGE),
    )
}
