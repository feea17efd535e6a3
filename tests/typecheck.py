"""Checks annotations of the functions and dataclasses of a package when they are called.

What jaxtyping's import hook and beartype's decorator do, which generate code for each function at each of its
definitions. Here an annotation's check is made once, however many functions, and closures of these, have it. By the
hook, test_flow, test_fast, test_oracles and test_likelihood together take 83 to 87 s of a CPU, not 49 s; test_build,
test_sampling and test_step 68 s, not 61 s.
"""

import ast
import dataclasses
import functools
import inspect
import sys
import types
import typing
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader

from beartype import BeartypeConf
from beartype.door import is_bearable
from jaxtyping import AbstractArray, jaxtyped

CONF = BeartypeConf(is_pep484_tower=True)  # an int is accepted for a float
PLANS = {}  # (module, name, line) of a function -> what `plan` makes of it


def install(package: str) -> None:
    """From now on, modules of `package` are checked, but for its configs, experiments and own check of arguments."""
    sys.meta_path.insert(0, _Finder(package))


class _Finder(MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(self, fullname, path=None, target=None):
        package, _, rest = fullname.partition(".")
        if package != self.package or rest.startswith(("configs", "experiments", "config.arguments", "config.kinds")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname):
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                node.decorator_list.insert(0, _decorator(node))  # on what `dataclass` makes
            elif isinstance(node, ast.FunctionDef):
                node.decorator_list.append(_decorator(node))  # on the function itself
        return compile(tree, self.path, "exec", dont_inherit=True)


def _decorator(node) -> ast.expr:
    return ast.copy_location(ast.parse("__import__('typecheck').checked", mode="eval").body, node)


def checked(function):
    """The function, or the class with its initialiser, checked."""
    if inspect.isclass(function):
        if getattr(vars(function).get("__init__"), "checks_arguments", False):  # they are converted there
            return function
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = checked(function.__init__)
        return function
    if not getattr(function, "__annotations__", None):
        return function

    where = function.__module__, function.__qualname__, inspect.unwrap(function).__code__.co_firstlineno

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        if where not in PLANS:
            PLANS[where] = plan(function)
        positional, rest, named, others, result = PLANS[where]
        with jaxtyped("context"):  # in which a letter has one size
            for (name, check), value in zip(positional, args, strict=False):
                if check is not None:
                    check(function, name, value)
            if rest is not None:
                for value in args[len(positional) :]:
                    rest(function, "*", value)
            for name, value in kwargs.items():
                check = named.get(name, others)
                if check is not None:
                    check(function, name, value)
            found = function(*args, **kwargs)
            if result is not None:
                result(function, "what it returns", found)
            return found

    return wrapper


def plan(function) -> tuple:
    """Checks of (arguments by position, further ones, arguments by name, further ones, the result)."""
    checks = {name: check_of(annotation, function) for name, annotation in function.__annotations__.items()}
    positional, rest, named, others = [], None, {}, None
    for name, parameter in inspect.signature(function).parameters.items():
        check = checks.get(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = check
        elif parameter.kind is parameter.VAR_KEYWORD:
            others = check
        else:
            named[name] = check
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append((name, check))
    return positional, rest, named, others, checks.get("return")


def check_of(annotation, function):
    written = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        annotation = typing.get_type_hints(written, function.__globals__)["it"]  # with names in strings looked up
    except NameError:  # of where it is written
        return None
    try:
        return _check_of(annotation)
    except TypeError:  # not hashable
        return _check_of.__wrapped__(annotation)


@functools.cache
def _check_of(annotation):
    unchecked = getattr(annotation, "_is_protocol", False) and not getattr(annotation, "_is_runtime_protocol", False)
    if annotation is typing.Any or unchecked:  # a protocol that no object is an instance of while Python runs
        return None
    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    if plain and (issubclass(annotation, AbstractArray) or annotation.__module__.split(".")[0] == "score_sde"):

        def fits(value) -> bool:
            return isinstance(value, annotation)
    else:

        def fits(value) -> bool:
            return is_bearable(value, annotation, conf=CONF)

    def check(function, name, value):
        if not fits(value):
            __tracebackhide__ = True
            shown = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else repr(value)[:200]
            raise TypeError(f"{function.__module__}.{function.__qualname__}: {name} is {shown}, not {annotation}")

    return check
