"""Arguments of public functions, checked against their annotations and brought to the annotated types.

| annotation                               | takes                                                                     |
|------------------------------------------|---------------------------------------------------------------------------|
| `bool`, `int`, `float`, `str`            | also NumPy's and JAX's scalars, and an int for a float                    |
| `Annotated[float, "(0, 1]"]`, or of int  | numbers in the interval; NaN is in none                                   |
| `Float[Array, "b h w c"]`, `Int`, ...    | JAX arrays of this shape and type, NumPy arrays, lists, numbers           |
| `Annotated[Times, "(0, 1]"]`             | arrays whose numbers are all in the interval                              |
| `Key[Array, "..."]`                      | typed keys; a seed, and `jax.random.PRNGKey(seed)`, become such           |
| `np.ndarray`                             | arrays and lists                                                          |
| `tuple[float, ...]`, `Sequence[int]`     | tuples, lists and 1-d arrays                                              |
| `Callable[[A, B], C]`                    | functions that can be called with as many arguments                       |
| named tuples                             | tuples of this class, with each field as it is annotated                  |
| `Path`                                   | also a text, in which ~ is the home folder                                |
| `BinaryIO`                               | open files, and all that has `write` or `read`                            |
| other classes, `Mapping`                 | objects of this kind                                                      |
| `Any`, `PyTree`, protocols               | anything                                                                  |

A letter of a shape stands for the same size in all arguments. Arrays that are traced by `jit` or `grad` have types and
shapes but no numbers yet: their intervals are not checked.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from jaxtyping import jaxtyped

from score_sde.config.kinds import ANYTHING, fitted, kind_of
from score_sde.errors import UsageError, misnamed

Decorated = TypeVar("Decorated", bound=Callable)


def check_arguments(of: Decorated) -> Decorated:
    """Decorator of a function, method or dataclass: each argument is checked and converted as its annotation says.

    Raises `UsageError` for an argument that does not fit, is missing, or has an unknown name.

        from typing import Annotated

        from score_sde.config.arguments import check_arguments

        @check_arguments
        def halved(x: Annotated[float, "[0, inf)"]) -> float:
            return x / 2

        halved(3)  # 1.5; halved(-1) says that x must be at least 0
    """
    if inspect.isclass(of):
        of.__init__ = _checked(of.__init__, of.__name__)
        return of
    return _checked(of, of.__name__.lstrip("_"))


def check_methods(cls: type, interface: type) -> None:
    """Checks the arguments of a class's own methods, as the methods of the same names of `interface` are annotated.

    Called by `__init_subclass__` of the interface, so that it holds for classes of a user's own, too.
    """
    for name, method in list(vars(cls).items()):
        of = vars(interface).get(name)
        checked = getattr(method, "checks_arguments", False)
        if inspect.isfunction(method) and inspect.isfunction(of) and not name.startswith("_") and not checked:
            setattr(cls, name, _checked(method, f"{cls.__name__}.{name}", annotated=of))


def _checked(function: Callable, name: str, annotated: Callable | None = None) -> Callable:
    """The function with checks. annotated: the function whose annotations count, if it is another."""
    plan: list[Any] = []  # made at the first call, when all names in annotations are defined

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if not plan:
            plan.extend((inspect.signature(function), _kinds(annotated or function)))
        signature, kinds = plan
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError as error:
            raise UsageError(misnamed(name, signature, options, error)) from None
        with jaxtyped("context"):  # in which a letter has one size
            for parameter, value in bound.arguments.items():
                if parameter in kinds and value is not signature.parameters[parameter].default:
                    bound.arguments[parameter] = kinds[parameter](f"{name}: {parameter}", value)
        named = {option: bound.arguments.get(option, value) for option, value in options.items()}
        return function(
            *bound.args[: len(arguments)], **named
        )  # as they came: flax's signatures have keywords in front

    call.checks_arguments = True
    return call


def _kinds(function: Callable) -> dict[str, Callable[[str, Any], Any]]:
    """A function (name, value) -> value for each parameter with an annotation that says something."""
    hints = typing.get_type_hints(function, include_extras=True)
    result = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = kind_of(hints[name]) if name in hints else ANYTHING
        if kind is ANYTHING:
            continue
        check = functools.partial(fitted, kind)
        if parameter.kind is parameter.VAR_POSITIONAL:
            result[name] = functools.partial(_each, check)
        elif parameter.kind is not parameter.VAR_KEYWORD:
            result[name] = check
    return result


def _each(check: Callable[[str, Any], Any], name: str, values: tuple) -> tuple:
    return tuple(check(name, value) for value in values)
