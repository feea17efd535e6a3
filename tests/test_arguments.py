"""Arguments of public functions are checked and converted as their annotations say."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import score_sde
from score_sde.array_types import Array, Key, ModelImages, Times
from score_sde.config.arguments import check_arguments, check_methods
from score_sde.errors import UsageError

X, T = np.zeros((2, 8, 8, 1), np.float32), [0.5, 1]


@check_arguments
def everything(
    x: ModelImages,
    t: Annotated[Times, "(0, 1]"],
    scale: Annotated[float, "[0, inf)"] = 1.0,
    *,
    labels: Sequence[int] | Array | np.ndarray | None = None,
    n: Annotated[int, "[1, inf)"] = 3,
    kind: Literal["a", "b"] = "a",
    each: Callable | None = None,
    sizes: tuple[int, ...] = (1,),
    pair: tuple[float, str] = (1.0, ""),
    flag: bool = False,
):
    return dict(x=x, t=t, scale=scale, labels=labels, n=n, sizes=sizes, pair=pair, flag=flag)


@check_arguments
def keyed(key: Key[Array, "..."]):
    return key


@check_arguments
@dataclasses.dataclass(frozen=True)
class Piece:
    width: Annotated[float, "(0, inf)"] = 1.0
    name: str = ""


def test_numpys_and_jaxs_numbers_and_lists_become_the_annotated_types():
    result = everything(
        X, T, np.float32(2), labels=[1, 2], n=np.int64(4), sizes=jnp.array([1, 2]), pair=[1, "a"], flag=np.True_
    )
    assert isinstance(result["x"], jax.Array)
    assert result["t"].dtype == jnp.float32 and result["t"].tolist() == T
    assert (type(result["scale"]), type(result["n"]), type(result["flag"])) == (float, int, bool)
    assert (result["labels"], result["sizes"], result["pair"]) == ([1, 2], (1, 2), (1.0, "a"))
    assert Piece(jnp.float32(3)) == Piece(3) == Piece(3.0)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((X.astype(np.uint8), T), {}, "x must be a float array of shape .* is uint8 .*to_unit brings pixels"),
        ((X[0], T), {}, r"x must be .*\(b, h, w, c\), and is float32 of shape \(8, 8, 1\)"),
        ((X, [0.5]), {}, "t must be .*a letter is of one size in all arguments"),
        ((X, [0.0, 1.0]), {}, r"t must be .*in \(0, 1\], .*its numbers are from 0 to 1"),
        ((X, [0.5, float("nan")]), {}, r"t must be .*in \(0, 1\]"),
        ((X, [[0.5], [1.0, 2.0]]), {}, "t must be"),
        ((X, T, -1), {}, "scale must be a number of 0 or more, and is -1"),
        ((X, T, float("nan")), {}, "NaN is no number"),
        ((X, T, True), {}, "scale must be"),
        ((X, T, 1 + 2j), {}, "scale must be"),
        ((X, T, 10**400), {}, "too large"),
        ((X, T), {"n": 3.5}, "n must be an integer"),
        ((X, T), {"n": 0}, "n must be an integer at least 1"),
        ((X, T), {"kind": "c"}, "kind must be 'a' or 'b', and is 'c'"),
        ((X, T), {"each": 3}, "each must be a function or None"),
        ((X, T), {"sizes": 3}, "sizes must be a tuple of integers"),
        ((X, T), {"sizes": (1, 2.5)}, "sizes must be"),
        ((X, T), {"pair": (1.0,)}, "pair must be a tuple of 2 .*it has 1 items"),
        ((X, T), {"labels": "abc"}, "labels must be"),
        ((X, T), {"lables": [1]}, r"there is no 'lables' \(did you mean 'labels'\?\)"),
        ((X,), {}, "missing a required argument: 't'"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(arguments, options, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        everything(*arguments, **options)
    assert str(error.value).startswith("everything: ") and str(error.value).endswith(".")


def test_a_function_is_called_with_as_many_arguments_as_its_annotation_has():
    @check_arguments
    def of_two(function: Callable[[int, int], int]):
        return function

    for fits in (lambda a, b: 0, lambda *a: 0, functools.partial(lambda a, b, c: 0, 1), int, max):
        assert of_two(fits) is fits
    for wrong in (lambda a: 0, lambda a, b, c: 0, len, 3):
        with pytest.raises(UsageError, match="function must be a function"):
            of_two(wrong)


def test_fields_of_a_named_tuple_are_checked_where_it_is_taken():
    class Pair(NamedTuple):
        x: ModelImages
        rate: Annotated[float, "[0, 1]"]

    @check_arguments
    def taken(pair: Pair, t: Times):
        return pair

    pair = taken(Pair(X, np.float32(0.5)), T)
    assert isinstance(pair.x, jax.Array) and type(pair.rate) is float
    assert taken(pair, T) is pair
    for wrong, words in (
        (Pair(X, 2), r"its rate must be a number in \[0, 1\], and is 2"),
        (Pair(X[:1], 1), "a letter"),
    ):
        with pytest.raises(UsageError, match=words):
            taken(wrong, T)


def test_an_interface_checks_the_methods_of_those_who_implement_it():
    class Law:
        def __init_subclass__(cls):
            check_methods(cls, Law)

        def at(self, t: Annotated[Times, "(0, 1]"]) -> Times: ...

    class Own(Law):
        def at(self, t):
            return 2 * t

    assert Own().at([0.5]).tolist() == [1.0]
    with pytest.raises(UsageError, match=r"Own\.at: t must be .* in \(0, 1\]"):
        Own().at([0.0])


def test_a_path_may_be_a_text_that_begins_at_home(monkeypatch):
    @check_arguments
    def opened(path: Path):
        return path

    monkeypatch.setenv("HOME", "/of/a/user")
    assert opened("~/run") == Path("/of/a/user/run") and opened(Path("run")) == Path("run")
    for wrong in (3, "a\0b", b"run", "~nobody-of-this-name/run"):
        with pytest.raises(UsageError, match="path must be a path"):
            opened(wrong)


def test_rounding_at_an_end_of_an_interval_is_no_mistake():
    everything(X, np.float32([0.5, 1 + 1e-7]))
    for outside in (1 + 1e-4, -1e-9, 0.0):
        with pytest.raises(UsageError, match="t must be"):
            everything(X, [0.5, outside])
    with pytest.raises(UsageError, match="n must be"):
        everything(X, T, n=0)


class Marked(str):
    """A text of a class of its own."""


def test_a_text_of_a_class_of_its_own_stays_one():
    @check_arguments
    def same(text: str):
        return text

    assert type(same(Marked("a"))) is Marked


def test_a_seed_and_an_untyped_key_are_keys():
    for key in (3, np.int64(3), jnp.int32(3), jax.random.PRNGKey(3), jax.random.key(3)):
        assert (jax.random.key_data(keyed(key)) == jax.random.key_data(jax.random.key(3))).all()
    for wrong in (-1, 2**32, 0.5, "3", None, np.zeros(2)):
        with pytest.raises(UsageError, match=r"give jax\.random\.key|a seed is in"):
            keyed(wrong)


def test_traced_arguments_pass_with_their_types_and_derivatives():
    def doubled(scale, t):
        return everything(X, t, scale)["scale"] * 2

    assert jax.grad(doubled)(3.0, jnp.array(T)) == 2
    assert jax.jit(doubled)(3.0, jnp.array([0.0, 5.0])) == 6  # no numbers yet, so that no interval holds them
    with pytest.raises(UsageError, match="t must be"):
        jax.jit(doubled)(3.0, jnp.zeros(3))


def test_a_dataclass_is_checked_where_it_is_made():
    for wrong in (dict(width=-1), dict(width="1"), dict(name=1), dict(nmae="")):
        with pytest.raises(UsageError, match="Piece: "):
            Piece(**wrong)
    with pytest.raises(UsageError, match="width"):
        dataclasses.replace(Piece(), width=0)


def test_the_packages_three_calls_name_an_argument_that_they_do_not_take():
    for call in (score_sde.load, score_sde.load_classifier, score_sde.train):
        with pytest.raises(UsageError, match=r"there is no 'stepp'.*it takes .*workdir"):
            call("runs", stepp=3)
        with pytest.raises(UsageError, match="missing a required argument"):
            call()
