r"""Linear observations y = A x_0 + n of images, n ~ N(0, noise^2 I), on which samples are conditioned.

An operator is A, its transpose, and (A A^T + v I)^{-1}, the three functions that the methods of
`score_sde.conditioning.posterior` need. All act on each image of a batch separately. The operators here have the
inverse in closed form; `Linear` makes an operator of any linear function. Operators are pytrees: their arrays, like
those of a batch, have one row for each image.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, Float, ModelImages, PerSample, UnitImages
from score_sde.errors import UsageError
from score_sde.randomness import expand

AnyImages = UnitImages | ModelImages  # A is linear in both; `Observation` is in model range
Observed = Float[Array, "b ..."]
LOST = 1e-3  # smaller factors of a blur are set to 0, because float32 cannot undo them


class Operator(abc.ABC):
    """Base class: a linear map A of images (b, h, w, c) to observations (b, ...).

    `solve` and the functions that use it give the observed part of an image:

        import jax.numpy as jnp
        from score_sde.conditioning import Average

        half = Average(2)
        y = half.forward(jnp.ones((1, 8, 8, 3)))  # (1, 4, 4, 3)
        x = half.impose(jnp.zeros((1, 8, 8, 3)), y)  # the image nearest to 0 whose means are y
    """

    @abc.abstractmethod
    def forward(self, x: AnyImages) -> Observed:
        """The observation A x."""

    @abc.abstractmethod
    def adjoint(self, y: Observed) -> AnyImages:
        """The adjoint A^T y."""

    @abc.abstractmethod
    def solve(self, y: Observed, variance: PerSample) -> Observed:
        """The solution (A A^T + variance I)^{-1} y for y in the range of A; at variance 0 the pseudo-inverse."""

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed | None:
        """The product f(A A^T) y; None where the eigenvalues of A A^T are not known.

        f: takes the eigenvalues in an array that broadcasts with y, or with a transform of y.
        """
        return None

    def least_squares(self, y: Observed) -> AnyImages:
        """The smallest x with A x = y: A^T (A A^T)^{-1} y."""
        return self.adjoint(self.solve(y, jnp.zeros(len(y), y.dtype)))

    def impose(self, x: AnyImages, y: Observed) -> AnyImages:
        """The image nearest to x with A x = y."""
        return x + self.least_squares(y - self.forward(x))

    def limit(self, x: UnitImages, y: Observed) -> UnitImages:
        """Images with A x = y, moved into [0, 1]."""
        return jnp.clip(x, 0, 1)

    def measured(self, y: Observed) -> Observed:
        """The observation y, with 0 where nothing was measured."""
        return y

    def picture(self, y: Observed) -> UnitImages:
        """A picture of y in [0, 1], of the images' shape."""
        return jnp.clip(self.least_squares(y), 0, 1)


class Observation(NamedTuple):
    """An observation y = A x_0 + n.

    noise: standard deviation of n, 0 or more, in the range of x_0, (b,).
    """

    operator: Operator
    y: Observed
    noise: PerSample

    def repeated(self, n: int) -> "Observation":
        """A copy in which each row stands n times in succession."""
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), self)


def _operator(*arrays: str) -> Callable[[type], type]:
    """Class decorator: a frozen dataclass and pytree with these fields as its leaves."""

    def decorate(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        constants = [name for name in names if name not in arrays]
        return jax.tree_util.register_dataclass(cls, data_fields=list(arrays), meta_fields=constants)

    return decorate


@_operator("mask")
class Inpaint(Operator):
    """Inpainting: the pixels where `mask`, booleans (b, h, w, 1) or (b, h, w, c), is true (paper, appendix I.2)."""

    mask: Any

    def forward(self, x: AnyImages) -> Observed:
        return jnp.where(self.mask, x, 0.0)

    def adjoint(self, y: Observed) -> AnyImages:
        return jnp.where(self.mask, y, 0.0)

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return y / expand(1 + variance, y)

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        return f(jnp.ones_like(y)) * y

    def impose(self, x: AnyImages, y: Observed) -> AnyImages:
        """The image x with the pixels of y; exact to the last bit, unlike adding a difference."""
        return jnp.where(self.mask, y, x)

    def measured(self, y: Observed) -> Observed:
        return self.adjoint(y)

    def picture(self, y: Observed) -> UnitImages:
        """A picture of y that is grey where nothing is known."""
        return jnp.clip(jnp.where(self.mask, y, 0.5), 0, 1)


@_operator()
class Average(Operator):
    """Means over blocks of `factor` x `factor` pixels, and over all channels if `grey`.

    Colouring starts from a grey image (paper, appendix I.3), super-resolution from a smaller one:
    `Average(grey=True)`, `Average(4)`.
    """

    factor: int = 1
    grey: bool = False

    def forward(self, x: AnyImages) -> Observed:
        return self._reduced(jnp.mean, x)

    def adjoint(self, y: Observed) -> AnyImages:
        return self._spread(y) / self._block(y)

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return y / expand(1 / self._block(y) + variance, y)

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        return f(jnp.full_like(y, 1 / self._block(y))) * y

    def limit(self, x: UnitImages, y: Observed) -> UnitImages:
        """Images moved towards the mean of each block, which stays the same, until every number is in [0, 1]."""
        mean = jnp.clip(self._spread(y), 0, 1)
        difference = x - mean
        room = jnp.where(difference > 0, 1 - mean, mean)
        fits = room / jnp.maximum(jnp.abs(difference), 1e-12)
        fits = self._spread(self._reduced(jnp.min, fits))
        return jnp.clip(mean + jnp.minimum(fits, 1.0) * difference, 0, 1)

    def _reduced(self, reduce: Callable, x: AnyImages) -> Observed:
        """The reduction of each block to one number."""
        b, h, w, c = x.shape
        blocks = x.reshape(b, h // self.factor, self.factor, w // self.factor, self.factor, c)
        return reduce(blocks, (2, 4, 5), keepdims=True)[:, :, 0, :, 0] if self.grey else reduce(blocks, (2, 4))

    def _spread(self, y: Observed) -> AnyImages:
        """An image in which each number fills its block."""
        y = jnp.repeat(jnp.repeat(y, self.factor, axis=1), self.factor, axis=2)
        return jnp.repeat(y, 3, axis=3) if self.grey else y

    def _block(self, y: Observed) -> int:
        return self.factor**2 * (3 if self.grey else 1)


@_operator()
class Blur(Operator):
    """Gaussian blur: standard deviation `sigma` pixels, wrapping around the edges, so diagonal in Fourier space."""

    sigma: float

    def forward(self, x: AnyImages) -> Observed:
        return self._filter(x, self._factors(x))

    def adjoint(self, y: Observed) -> AnyImages:
        return self._filter(y, self._factors(y))

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        squares = jnp.square(self._factors(y))[None, :, :, None]
        power = squares + expand(variance, y)
        return self._filter(y, jnp.where(squares > 0, 1 / jnp.where(squares > 0, power, 1.0), 0.0))

    def function(self, f: Callable[[Array], Array], y: Observed) -> Observed:
        squares = jnp.tile(jnp.square(self._factors(y))[None, :, :, None], (len(y), 1, 1, 1))
        return self._filter(y, jnp.where(squares > 0, f(jnp.where(squares > 0, squares, 1.0)), 0.0))

    def picture(self, y: Observed) -> UnitImages:
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

    `seed` fixes the choice of coefficients and signs. The rows of A are orthonormal; y is 0 where nothing is measured.
    """

    fraction: float
    seed: int = 0

    def forward(self, x: AnyImages) -> Observed:
        measured, signs = self._choice(x)
        return measured * jax.scipy.fft.dctn(signs * x, axes=(1, 2), norm="ortho")

    def adjoint(self, y: Observed) -> AnyImages:
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
    """Any linear function of images (b, h, w, c), written in JAX; it must act on each image separately.

    shape: (h, w, c). The transpose is JAX's; the inverse takes `iterations` steps of conjugate gradients.

        import jax.numpy as jnp
        from score_sde.conditioning import Blur, Inpaint, Linear, Sense

        rows = Linear(lambda x: x[:, ::2], (8, 8, 3))  # every second row
        for operator in (rows, Blur(1.0), Sense(0.3), Inpaint(jnp.ones((1, 8, 8, 1)))):
            y = operator.forward(jnp.ones((1, 8, 8, 3)))
            x = operator.adjoint(y)  # (1, 8, 8, 3)
    """

    fn: Callable[[AnyImages], Observed]
    shape: tuple[int, int, int]
    iterations: int = 100

    def forward(self, x: AnyImages) -> Observed:
        return self.fn(x)

    def adjoint(self, y: Observed) -> AnyImages:
        (x,) = jax.linear_transpose(self.fn, jax.ShapeDtypeStruct((len(y), *self.shape), y.dtype))(y)
        return x

    def solve(self, y: Observed, variance: PerSample) -> Observed:
        return conjugate_gradients(
            lambda u: self.forward(self.adjoint(u)) + expand(variance, u) * u, y, iterations=self.iterations
        )


def conjugate_gradients(matrix: Callable[[Observed], Observed], b: Observed, *, iterations: int) -> Observed:
    """The solution x of `matrix` x = b by conjugate gradients, for a symmetric positive definite matrix of each row.

    A row stops when it is solved to 1e-6, or when the matrix has negative curvature along its direction, as matrices
    from a network can.
    """

    # Not lineax.CG or jax.scipy.sparse.linalg.cg: each solves one system, where these are as many as rows, and their
    # products come from one derivative of the network on the batch; and neither stops at negative curvature.
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
    """Raises `UsageError` unless the operator maps images of this shape to observations of y's shape."""
    x = jax.ShapeDtypeStruct((len(y), *image_shape), jnp.float32)
    try:
        shape = jax.eval_shape(type(operator).forward, operator, x).shape
    except (TypeError, ValueError) as error:
        raise UsageError(f"{type(operator).__name__} does not take images of shape {image_shape}: {error}.") from error
    if shape != y.shape:
        raise UsageError(
            f"Observations of shape {y.shape}: {type(operator).__name__} makes {shape} of {len(y)} images."
        )
