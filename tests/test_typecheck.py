"""Annotations of the package are checked, those of closures too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typecheck import checked

from score_sde import array_types
from score_sde.array_types import Float, ModelImages, PerSample, Pixels, Times
from score_sde.config.keys import Key
from score_sde.sampling.adaptive import _error

X, T = jnp.zeros((2, 4, 4, 1)), jnp.ones(2)


def test_functions_of_the_package_refuse_other_shapes_traced_or_not():
    with pytest.raises(TypeError, match=r"_error: euler is float32\[2\]"):
        _error(T, X, X, rtol=0.1, atol=0.1)
    with pytest.raises(TypeError, match=r"heun is float32\[1, 4, 4, 1\]"):  # one b
        jax.eval_shape(lambda x: _error(x, x[:1], x, rtol=0.1, atol=0.1), X)


def test_an_argument_is_refused_by_its_position_or_its_name_and_so_is_a_result():
    @checked
    def halved(x: ModelImages, times: Times | None = None, *more: Times, scale: float = 1.0) -> PerSample:
        return x[:, 0, 0, 0] if scale == 1 else x

    assert halved(X, T, T, scale=1).shape == (2,)
    for arguments, options, words in (
        ((X[0],), {}, "halved: x is"),
        ((X, T[:1]), {}, "times is"),
        ((X, T, T[:1]), {}, r"\* is"),
        ((X,), dict(times=T[:1]), "times is"),
        ((X,), dict(scale="1"), "scale is '1'"),
        ((X,), dict(scale=2), "returns is"),
    ):
        with pytest.raises(TypeError, match=words):
            halved(*arguments, **options)


def test_each_call_has_its_own_sizes():
    @checked
    def outer(x: ModelImages):
        return inner(x[:1])

    @checked
    def inner(x: Float[jax.Array, "b h w c"]) -> Pixels:
        return np.zeros(x.shape, np.uint8)

    assert outer(X).shape == (1, 4, 4, 1)


def test_dataclasses_are_checked_as_they_are_made():
    with pytest.raises(TypeError, match="others is 'many'"):
        Key(0.1, "Rate", others="many")
    with pytest.raises(TypeError, match="others is 'many'"):
        dataclasses.replace(Key(0.1, "Rate"), others="many")


def test_the_old_name_of_images_is_answered_with_the_two_types():
    with pytest.raises(ImportError, match=r"UnitImages, in .* and ModelImages, in model range"):
        from score_sde.array_types import Images  # noqa: F401
    with pytest.raises(AttributeError, match="no attribute 'Pictures'"):
        array_types.Pictures  # noqa: B018
