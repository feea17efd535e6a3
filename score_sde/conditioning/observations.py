r"""Linear observations y = A x_0 + n of images, n ~ N(0, noise^2 I).

An operator is A, its transpose, and (A A^T + v I)^{-1}, the three functions that the methods of
`score_sde.conditioning.posterior` need. All act on each image of a batch separately. Operators are pytrees: their
arrays, like those of a batch, have one row for each image, or one row for all of them.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.array_types import Array, Float, ModelImages, PerSample, UnitImages
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

AnyImages = UnitImages | ModelImages  # A is linear in both; `Observation` is in model range
Observed = Float[Array, "b ..."]
Variances = Annotated[PerSample, "[0, inf)"]


class Operator(abc.ABC):
    """Base class: a linear map A of images (b, h, w, c) to observations (b, ...).

    `solve` and the functions that use it give the observed part of an image:

        import jax.numpy as jnp
        from score_sde.conditioning import Average

        half = Average(2)
        y = half.forward(jnp.ones((1, 8, 8, 3)))  # (1, 4, 4, 3)
        x = half.impose(jnp.zeros((1, 8, 8, 3)), y)  # the image nearest to 0 whose means are y
    """

    of_pixels: ClassVar[bool] = False  # whether each number of A x is a mean of pixels, and so in their range

    @abc.abstractmethod
    def forward(self, x: AnyImages) -> Observed:
        """The observation A x."""

    @abc.abstractmethod
    def adjoint(self, y: Observed) -> AnyImages:
        """The adjoint A^T y."""

    @abc.abstractmethod
    def solve(self, y: Observed, variance: Variances) -> Observed:
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
        return x + self.least_squares(residual(self, y, x))

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
        operator = for_images(self.operator, len(self.y))
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, n, axis=0), self._replace(operator=operator))


@check_arguments
def checked_observation(operator: Operator, y: Observed, noise: Variances) -> Observation:
    """The observation of these parts. Raises `UsageError` for parts that are of no observation."""
    return Observation(operator, y, noise)


def residual(operator: Operator, y: Observed, x: AnyImages) -> Observed:
    """The difference y - A x. Raises `UsageError` for an observation of another shape, which would broadcast."""
    of_x = operator.forward(x)
    if of_x.shape[1:] != y.shape[1:]:
        raise UsageError(
            f"Observations of shape {y.shape}: {type(operator).__name__} makes {of_x.shape} of images {x.shape}."
        )
    return y - of_x


def for_images(operator: Operator, n: int) -> Operator:
    """The operator with a row for each of n images, where its arrays have one row for all."""
    return jax.tree.map(lambda rows: jnp.broadcast_to(rows, (n, *rows.shape[1:])) if len(rows) == 1 else rows, operator)


FUNCTIONS = ("forward", "adjoint", "solve", "function", "least_squares", "impose", "limit", "measured", "picture")


def operator_class(*arrays: str) -> Callable[[type], type]:
    """Class decorator: a frozen dataclass that checks its arguments, and a pytree with these fields as its leaves.

    JAX rebuilds operators around tracers and placeholders, which are not checked.
    """

    def decorate(cls: type) -> type:
        cls = check_arguments(dataclasses.dataclass(frozen=True)(cls))
        for name in FUNCTIONS:
            setattr(cls, name, check_arguments(getattr(cls, name)))
        constants = [field.name for field in dataclasses.fields(cls) if field.name not in arrays]

        def flatten(operator: Operator) -> tuple:
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(operator, name)) for name in arrays]
            return leaves, tuple(getattr(operator, name) for name in constants)

        def unflatten(values: tuple, leaves: tuple) -> Operator:
            operator = object.__new__(cls)
            for name, value in zip((*constants, *arrays), (*values, *leaves), strict=True):
                object.__setattr__(operator, name, value)
            return operator

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls

    return decorate


@check_arguments
def check_observed(operator: Operator, y: Observed, image_shape: tuple[int, int, int]) -> None:
    """Raises `UsageError` unless the operator maps images of this shape to observations of y's shape and range."""
    x = jax.ShapeDtypeStruct((len(y), *image_shape), jnp.float32)
    try:
        shape = jax.eval_shape(type(operator).forward, operator, x).shape
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{type(operator).__name__} does not take images of shape {image_shape}: {error}.") from error
    if shape != y.shape:
        raise UsageError(
            f"Observations of shape {y.shape}: {type(operator).__name__} makes {shape} of {len(y)} images."
        )
