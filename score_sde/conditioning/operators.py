r"""Operators A of linear observations y = A x_0 + n of images, on which samples are conditioned.

The operators here have the inverse (A A^T + v I)^{-1} in closed form; `Linear` makes an operator of any linear
function. Their functions raise `UsageError` for images and observations that do not fit, such as pixels 0..255.
"""

import functools
from collections.abc import Callable
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Array, FeatureMaps, Float, PerSample, Shaped, UnitImages
from score_sde.conditioning.observations import AnyImages, Observed, Operator, Variances, operator_class
from score_sde.config.arguments import check_arguments
from score_sde.config.kinds import is_abstract
from score_sde.errors import UsageError, moved_names
from score_sde.randomness import expand

LOST = 1e-3  # smaller factors of a blur are set to 0, because float32 cannot undo them


@operator_class("mask")
class Inpaint(Operator):
    """Inpainting: the pixels where `mask` is true are known (paper, appendix I.2).

    mask: booleans, or numbers 0 and 1: (h, w) or (h, w, 1) for all images, (b, h, w), (b, h, w, 1) or (b, h, w, c) for
    each. It is stored with all four axes. Raises `UsageError` for other masks.

        import jax.numpy as jnp
        from score_sde.conditioning import Inpaint

        left = Inpaint(jnp.arange(8) < jnp.full((8, 1), 4))  # (h, w)
        y = left.forward(jnp.ones((2, 8, 8, 3)))  # 0 on the right
    """

    of_pixels: ClassVar[bool] = True
    mask: Shaped[Array, "..."]

    def __post_init__(self):
        object.__setattr__(self, "mask", _mask(self.mask))

    def forward(self, x: AnyImages) -> Observed:
        return jnp.where(self._measured_of(x), x, 0.0)

    def adjoint(self, y: AnyImages) -> AnyImages:
        return jnp.where(self._measured_of(y), y, 0.0)

    def solve(self, y: AnyImages, variance: Variances) -> Observed:
        return y / expand(1 + variance, y)

    def function(self, f: Callable[[Array], Array], y: AnyImages) -> Observed:
        return f(jnp.ones_like(y)) * y

    def impose(self, x: AnyImages, y: AnyImages) -> AnyImages:
        """The image x with the pixels of y; exact to the last bit, unlike adding a difference."""
        return jnp.where(self._measured_of(x), y, x)

    def measured(self, y: AnyImages) -> Observed:
        return self.adjoint(y)

    def picture(self, y: AnyImages) -> UnitImages:
        """A picture of y that is grey where nothing is known."""
        return jnp.clip(jnp.where(self._measured_of(y), y, 0.5), 0, 1)

    def _measured_of(self, x: Array) -> Array:
        """The mask. Raises `UsageError` if it is for images of another shape."""
        (rows, *sizes), (n, *shape) = self.mask.shape, x.shape
        if (rows != n and 1 not in (rows, n)) or any(a not in (1, b) for a, b in zip(sizes, shape, strict=True)):
            raise UsageError(
                f"Inpaint's mask is for images of {tuple(sizes[:2])} pixels, of shape {self.mask.shape}, and the "
                f"images are {x.shape}."
            )
        return self.mask


def _mask(mask: Array) -> Array:
    """The mask as booleans with four axes. Raises `UsageError` for other numbers than 0 and 1."""
    if mask.dtype != bool:
        if not is_abstract(mask) and not np.isin(numbers := np.asarray(mask, np.float64), (0, 1)).all():
            raise UsageError(
                f"Inpaint: mask must be True or 1 where a pixel is known, and False or 0 elsewhere; its numbers are "
                f"from {numbers.min():g} to {numbers.max():g}, so compare them, as mask > {numbers.max() / 2:g}."
            )
        mask = mask != 0
    if mask.ndim == 2 or (mask.ndim == 3 and mask.shape[2] == 1):
        return mask.reshape(1, *mask.shape[:2], 1)
    if mask.ndim not in (3, 4):
        raise UsageError(
            f"Inpaint: mask must be of shape (h, w), (b, h, w), (b, h, w, 1) or (b, h, w, c), and is {mask.shape}."
        )
    return mask[..., None] if mask.ndim == 3 else mask


@operator_class()
class Average(Operator):
    """Means over blocks of `factor` x `factor` pixels, and over all three channels if `grey`.

    Colouring starts from a grey image (paper, appendix I.3), super-resolution from a smaller one:
    `Average(grey=True)`, `Average(4)`.
    """

    of_pixels: ClassVar[bool] = True
    factor: Annotated[int, "[1, inf)"] = 1
    grey: bool = False

    def forward(self, x: AnyImages) -> FeatureMaps:
        return self._reduced(jnp.mean, x)

    def adjoint(self, y: FeatureMaps) -> AnyImages:
        return self._spread(y) / self._block(y)

    def solve(self, y: FeatureMaps, variance: Variances) -> FeatureMaps:
        return y / expand(1 / self._block(y) + variance, y)

    def function(self, f: Callable[[Array], Array], y: FeatureMaps) -> FeatureMaps:
        return f(jnp.full_like(y, 1 / self._block(y))) * y

    def limit(self, x: UnitImages, y: FeatureMaps) -> UnitImages:
        """Images moved towards the mean of each block, which stays the same, until every number is in [0, 1]."""
        mean = jnp.clip(self._spread(y), 0, 1)
        if mean.shape != x.shape:
            raise UsageError(f"Observations of shape {y.shape} are not of images of shape {x.shape} by {self}.")
        difference = x - mean
        room = jnp.where(difference > 0, 1 - mean, mean)
        fits = room / jnp.maximum(jnp.abs(difference), 1e-12)
        fits = self._spread(self._reduced(jnp.min, fits))
        return jnp.clip(mean + jnp.minimum(fits, 1.0) * difference, 0, 1)

    def _reduced(self, reduce: Callable, x: AnyImages) -> FeatureMaps:
        """The reduction of each block to one number."""
        b, h, w, c = x.shape
        if h % self.factor or w % self.factor:
            raise UsageError(f"Average: factor {self.factor} must divide the size of the images, {h}x{w} pixels.")
        if self.grey and c != 3:
            raise UsageError(f"Average(grey=True) is for images in colour; these have {c} channel(s).")
        blocks = x.reshape(b, h // self.factor, self.factor, w // self.factor, self.factor, c)
        return reduce(blocks, (2, 4, 5), keepdims=True)[:, :, 0, :, 0] if self.grey else reduce(blocks, (2, 4))

    def _spread(self, y: FeatureMaps) -> AnyImages:
        """An image in which each number fills its block."""
        if self.grey and y.shape[3] != 1:
            raise UsageError(f"Observations of shape {y.shape}: Average(grey=True) makes images of one channel.")
        y = jnp.repeat(jnp.repeat(y, self.factor, axis=1), self.factor, axis=2)
        return jnp.repeat(y, 3, axis=3) if self.grey else y

    def _block(self, y: FeatureMaps) -> int:
        return self.factor**2 * (3 if self.grey else 1)


@operator_class()
class Blur(Operator):
    """Gaussian blur: standard deviation `sigma` pixels, wrapping around the edges, so diagonal in Fourier space."""

    of_pixels: ClassVar[bool] = True
    sigma: Annotated[float, "(0, inf)"]

    def forward(self, x: AnyImages) -> Observed:
        return self._filter(x, self._factors(x))

    def adjoint(self, y: AnyImages) -> AnyImages:
        return self._filter(y, self._factors(y))

    def solve(self, y: AnyImages, variance: Variances) -> Observed:
        squares = jnp.square(self._factors(y))[None, :, :, None]
        power = squares + expand(variance, y)
        return self._filter(y, jnp.where(squares > 0, 1 / jnp.where(squares > 0, power, 1.0), 0.0))

    def function(self, f: Callable[[Array], Array], y: AnyImages) -> Observed:
        squares = jnp.tile(jnp.square(self._factors(y))[None, :, :, None], (len(y), 1, 1, 1))
        return self._filter(y, jnp.where(squares > 0, f(jnp.where(squares > 0, squares, 1.0)), 0.0))

    def picture(self, y: AnyImages) -> UnitImages:
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


@operator_class()
class Sense(Operator):
    """Compressed sensing: a fraction of the cosine coefficients of the image with signs flipped at random.

    `seed` fixes the choice of coefficients and signs. The rows of A are orthonormal; y is 0 where nothing is measured.
    """

    fraction: Annotated[float, "(0, 1]"]
    seed: Annotated[int, "[0, inf)"] = 0

    def forward(self, x: AnyImages) -> Observed:
        measured, signs = self._choice(x)
        return measured * jax.scipy.fft.dctn(signs * x, axes=(1, 2), norm="ortho")

    def adjoint(self, y: AnyImages) -> AnyImages:
        measured, signs = self._choice(y)
        return signs * jax.scipy.fft.idctn(measured * y, axes=(1, 2), norm="ortho")

    def solve(self, y: AnyImages, variance: Variances) -> Observed:
        return y / expand(1 + variance, y)

    def function(self, f: Callable[[Array], Array], y: AnyImages) -> Observed:
        return f(jnp.ones_like(y)) * y

    def measured(self, y: AnyImages) -> Observed:
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


@operator_class()
class Linear(Operator):
    """Any linear function of images (b, h, w, c), written in JAX; it must act on each image separately.

    shape: (h, w, c). The transpose is JAX's; the inverse takes `iterations` steps of conjugate gradients. Raises
    `UsageError` for a function that does not take such images, or is not linear.

        import jax.numpy as jnp
        from score_sde.conditioning import Blur, Inpaint, Linear, Sense

        rows = Linear(lambda x: x[:, ::2], (8, 8, 3))  # every second row
        for operator in (rows, Blur(1.0), Sense(0.3), Inpaint(jnp.ones((1, 8, 8, 1)))):
            y = operator.forward(jnp.ones((1, 8, 8, 3)))
            x = operator.adjoint(y)  # (1, 8, 8, 3)
    """

    fn: Callable[[AnyImages], Observed]
    shape: tuple[int, int, int]
    iterations: Annotated[int, "[1, inf)"] = 100

    def __post_init__(self):
        x = jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        try:
            y = jax.eval_shape(self.fn, x)
            jax.eval_shape(lambda y: jax.linear_transpose(self.fn, x)(y), y)
            rows = y.shape[0]
        except Exception as error:  # whatever the function raises
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UsageError(f"Linear: fn must be linear and take images of shape {x.shape}; {reason}.") from error
        if rows != 1:
            raise UsageError(f"Linear: fn must return a row for each image, and returns {y.shape} of one image.")

    def forward(self, x: AnyImages) -> Observed:
        if x.shape[1:] != self.shape:
            raise UsageError(f"Linear does not take images of shape {x.shape[1:]}: its function is of {self.shape}.")
        return self.fn(x)

    def adjoint(self, y: Observed) -> AnyImages:
        like_x = jax.ShapeDtypeStruct((len(y), *self.shape), y.dtype)
        if y.shape != (shape := jax.eval_shape(self.fn, like_x).shape):
            raise UsageError(f"Observations of shape {y.shape}: Linear makes {shape} of {len(y)} images.")
        (x,) = jax.linear_transpose(self.fn, like_x)(y)
        return x

    def solve(self, y: Observed, variance: Variances) -> Observed:
        return conjugate_gradients(
            lambda u: self.forward(self.adjoint(u)) + expand(variance, u) * u, y, iterations=self.iterations
        )


@check_arguments
def conjugate_gradients(
    matrix: Callable[[Observed], Observed], b: Observed, *, iterations: Annotated[int, "[1, inf)"]
) -> Observed:
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


__getattr__ = moved_names(
    __name__,
    {
        name: f"score_sde.conditioning.observations.{name.replace('_operator', 'operator_class')}"
        for name in ("Observation", "_operator", "check_observed")
    },
)
