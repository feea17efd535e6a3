r"""Linear observations y = A x_0 + n of images, n ~ N(0, noise^2 I): what is known of a sample beforehand.

An operator is A, its transpose, and (A A^T + v I)^{-1}, of which every method of `score_sde.controllable.posterior` is
made. All act on each image of a batch by itself; those here have the last in closed form, and `Linear` makes one of any
linear function. Operators are pytrees: their arrays, like those of a batch, have one row for each image.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, Images, PerSample
from score_sde.errors import UsageError
from score_sde.randomness import expand

Observed = Float[Array, "b ..."]
LOST = 1e-3  # factors of a blur below this are taken to be 0: what float32 could not bring back


class Operator(abc.ABC):
    """A linear map A of images (b, h, w, c) to observations (b, ...)."""

    @abc.abstractmethod
    def forward(self, x: Images) -> Observed:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: Observed) -> Images:
        """A^T y."""

    @abc.abstractmethod
    def solve(self, y: Observed, variance: PerSample) -> Observed:
        """(A A^T + variance I)^{-1} y for y in the range of A; at variance 0 the pseudo-inverse."""

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed | None:
        """f(A A^T) y, with f of its eigenvalues, in an array that broadcasts with y or its transform. None: unknown."""
        return None

    def least_squares(self, y: Observed) -> Images:
        """The smallest x that observes y, A^T (A A^T)^{-1} y."""
        return self.adjoint(self.solve(y, jnp.zeros(len(y), y.dtype)))

    def impose(self, x: Images, y: Observed) -> Images:
        """The image nearest to x that observes y."""
        return x + self.least_squares(y - self.forward(x))

    def limit(self, x: Images, y: Observed) -> Images:
        """Images that observe y, moved into [0, 1]."""
        return jnp.clip(x, 0, 1)

    def measured(self, y: Observed) -> Observed:
        """y, with 0 where it holds no measurement."""
        return y

    def picture(self, y: Observed) -> Images:
        """What one sees of y, in [0, 1]."""
        return jnp.clip(self.least_squares(y), 0, 1)


class Observation(NamedTuple):
    """y = A x_0 + n. noise: standard deviation of n, 0 or more, in the range that x_0 is in."""

    operator: Operator
    y: Observed
    noise: PerSample

    def repeated(self, n: int) -> "Observation":
        """Each row n times in a row."""
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), self)


def _operator(*arrays: str) -> Callable[[type], type]:
    """A frozen dataclass and pytree with these fields as its leaves."""

    def decorate(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        constants = [name for name in names if name not in arrays]
        return jax.tree_util.register_dataclass(cls, data_fields=list(arrays), meta_fields=constants)

    return decorate


@_operator("mask")
class Inpaint(Operator):
    """Pixels where `mask`, booleans (b, h, w, 1) or (b, h, w, c), is true (paper, appendix I.2)."""

    mask: Any

    def forward(self, x: Images) -> Observed:
        return jnp.where(self.mask, x, 0.0)

    def adjoint(self, y: Observed) -> Images:
        return jnp.where(self.mask, y, 0.0)

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return y / expand(1 + variance, y)

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        return f(jnp.ones_like(y)) * y

    def impose(self, x: Images, y: Observed) -> Images:
        """To the last bit, which adding a difference would not be."""
        return jnp.where(self.mask, y, x)

    def measured(self, y: Observed) -> Observed:
        return self.adjoint(y)

    def picture(self, y: Observed) -> Images:
        """Grey where nothing is known."""
        return jnp.clip(jnp.where(self.mask, y, 0.5), 0, 1)


@_operator()
class Average(Operator):
    """Means over blocks of `factor` x `factor` pixels, and over all channels if `grey`.

    A grey image is what colouring begins with (paper, appendix I.3), a smaller one what super-resolution does.
    """

    factor: int = 1
    grey: bool = False

    def forward(self, x: Images) -> Observed:
        return self._reduced(jnp.mean, x)

    def adjoint(self, y: Observed) -> Images:
        return self._spread(y) / self._block(y)

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return y / expand(1 / self._block(y) + variance, y)

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        return f(jnp.full_like(y, 1 / self._block(y))) * y

    def limit(self, x: Images, y: Observed) -> Images:
        """Towards the mean of its block, which stays what it is, until every number is in [0, 1]."""
        mean = jnp.clip(self._spread(y), 0, 1)
        difference = x - mean
        room = jnp.where(difference > 0, 1 - mean, mean)
        fits = room / jnp.maximum(jnp.abs(difference), 1e-12)
        fits = self._spread(self._reduced(jnp.min, fits))
        return jnp.clip(mean + jnp.minimum(fits, 1.0) * difference, 0, 1)

    def _reduced(self, reduce: Callable, x: Images) -> Observed:
        """Over each block."""
        b, h, w, c = x.shape
        blocks = x.reshape(b, h // self.factor, self.factor, w // self.factor, self.factor, c)
        return reduce(blocks, (2, 4, 5), keepdims=True)[:, :, 0, :, 0] if self.grey else reduce(blocks, (2, 4))

    def _spread(self, y: Observed) -> Images:
        """Each number over its block."""
        y = jnp.repeat(jnp.repeat(y, self.factor, axis=1), self.factor, axis=2)
        return jnp.repeat(y, 3, axis=3) if self.grey else y

    def _block(self, y: Observed) -> int:
        return self.factor**2 * (3 if self.grey else 1)


@_operator()
class Blur(Operator):
    """Convolution with a Gaussian of standard deviation `sigma` pixels, around the edges: diagonal in Fourier space."""

    sigma: float

    def forward(self, x: Images) -> Observed:
        return self._filter(x, self._factors(x))

    def adjoint(self, y: Observed) -> Images:
        return self._filter(y, self._factors(y))

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        squares = jnp.square(self._factors(y))[None, :, :, None]
        power = squares + expand(variance, y)
        return self._filter(y, jnp.where(squares > 0, 1 / jnp.where(squares > 0, power, 1.0), 0.0))

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        squares = jnp.tile(jnp.square(self._factors(y))[None, :, :, None], (len(y), 1, 1, 1))
        return self._filter(y, jnp.where(squares > 0, f(jnp.where(squares > 0, squares, 1.0)), 0.0))

    def picture(self, y: Observed) -> Images:
        return jnp.clip(y, 0, 1)

    def _factors(self, x: Array) -> Float[Array, "h w2"]:
        h, w = (_gaussian_spectrum(size, self.sigma) for size in x.shape[1:3])
        factors = np.outer(h, w[: x.shape[2] // 2 + 1])
        return jnp.asarray(np.where(factors < LOST, 0.0, factors), x.dtype)

    def _filter(self, x: Array, factors: Array) -> Array:
        factors = factors if factors.ndim == 4 else factors[None, :, :, None]
        return jnp.fft.irfft2(factors * jnp.fft.rfft2(x, axes=(1, 2)), s=x.shape[1:3], axes=(1, 2)).astype(x.dtype)


@functools.lru_cache
def _gaussian_spectrum(size: int, sigma: float) -> np.ndarray:
    distance = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.exp(-0.5 * np.square(distance / sigma))
    return np.fft.fft(kernel / kernel.sum()).real


@_operator()
class Sense(Operator):
    """Compressed sensing: a fraction of the cosine coefficients of the image with signs flipped at random.

    Which and how is fixed by `seed`. The rows of A are orthonormal; what is not measured stands as 0 in y.
    """

    fraction: float
    seed: int = 0

    def forward(self, x: Images) -> Observed:
        measured, signs = self._choice(x)
        return measured * jax.scipy.fft.dctn(signs * x, axes=(1, 2), norm="ortho")

    def adjoint(self, y: Observed) -> Images:
        measured, signs = self._choice(y)
        return signs * jax.scipy.fft.idctn(measured * y, axes=(1, 2), norm="ortho")

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return y / expand(1 + variance, y)

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        return f(jnp.ones_like(y)) * y

    def measured(self, y: Observed) -> Observed:
        return self._choice(y)[0] * y

    def _choice(self, x: Array) -> tuple[Array, Array]:
        measured, signs = _random_measurement(x.shape[1:], self.fraction, self.seed)
        return jnp.asarray(measured, x.dtype), jnp.asarray(signs, x.dtype)


@functools.lru_cache
def _random_measurement(shape: tuple[int, ...], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, *shape])
    size = int(np.prod(shape))
    measured = np.zeros(size)
    measured[generator.permutation(size)[: max(1, round(fraction * size))]] = 1
    return measured.reshape(shape), generator.choice([-1.0, 1.0], shape)


@_operator()
class Linear(Operator):
    """Any linear function of images (b, h, w, c), written in JAX; acts on each image by itself.

    shape: (h, w, c). Its transpose is JAX's, its inverse by `iterations` steps of conjugate gradients.
    """

    fn: Callable[[Images], Observed]
    shape: tuple[int, int, int]
    iterations: int = 100

    def forward(self, x: Images) -> Observed:
        return self.fn(x)

    def adjoint(self, y: Observed) -> Images:
        (x,) = jax.linear_transpose(self.fn, jax.ShapeDtypeStruct((len(y), *self.shape), y.dtype))(y)
        return x

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return conjugate_gradients(
            lambda u: self.forward(self.adjoint(u)) + expand(variance, u) * u, y, iterations=self.iterations
        )


def conjugate_gradients(matrix: Callable[[Observed], Observed], b: Observed, *, iterations: int) -> Observed:
    """x with `matrix` x = b, for a symmetric positive definite matrix of each row's own.

    A row ends where the matrix curves down along its direction, which one of a network's may, or when it is solved to
    1e-6.
    """

    def dot(u: Observed, v: Observed) -> PerSample:
        return jnp.sum(u * v, axis=tuple(range(1, u.ndim)))

    enough = 1e-12 * dot(b, b)

    def step(_, carry: tuple) -> tuple:
        x, r, p, rr = carry
        ap = matrix(p)
        curvature = dot(p, ap)
        active = (rr > enough) & (curvature > 0)
        alpha = expand(jnp.where(active, rr / jnp.where(active, curvature, 1.0), 0.0), x)
        x, r_new = x + alpha * p, r - alpha * ap
        rr_new = jnp.where(active, dot(r_new, r_new), 0.0)
        beta = expand(jnp.where(active, rr_new / jnp.where(active, rr, 1.0), 0.0), x)
        return x, r_new, r_new + beta * p, rr_new

    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, b, dot(b, b)))[0]


def check_observed(operator: Operator, y: Observed, image_shape: tuple[int, int, int]) -> None:
    """Raises `UsageError` unless y, or its shape, is what the operator makes of images of this shape."""
    x = jax.ShapeDtypeStruct((len(y), *image_shape), jnp.float32)
    try:
        shape = jax.eval_shape(type(operator).forward, operator, x).shape
    except (TypeError, ValueError) as error:
        raise UsageError(f"{type(operator).__name__} does not take images of shape {image_shape}: {error}.") from error
    if shape != y.shape:
        raise UsageError(
            f"Observations of shape {y.shape}: {type(operator).__name__} makes {shape} of {len(y)} images."
        )
