"""Names of pieces in a config: a row of one of the package's dictionaries, or the import path of a user's own piece.

    --config.model.name=ncsnpp                      a row of score_sde.models.MODELS
    --config.model.name=my_package.mixer:Mixer      `Mixer` in the module `my_package.mixer`

A module is found as by Python's `import`: in the folder where the program was started, or in one of PYTHONPATH. Each
kind of piece has its protocol in `score_sde.config.protocols`.
"""

import dataclasses
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from score_sde.errors import UsageError, nearest, one_of

REQUIRED = dataclasses.MISSING  # stands for the default of an argument without one


def is_import_path(name: Any) -> bool:
    """Whether a name in a config is "module:attribute"."""
    return isinstance(name, str) and ":" in name


def lowered(name: str) -> str:
    """A name as the dictionaries have it, in lower case; an import path as it is."""
    return name if is_import_path(name) else name.lower()


def choose(key: str, name: str, choices: Mapping[str, Any], protocol: type | None = None) -> Any:
    """The row of `choices` with this name, or the object at an import path.

    key: of the config, for messages. protocol: in `score_sde.config.protocols`; an object at an import path follows it.
    Raises `UsageError` for an unknown name, a path at which nothing can be imported, and for missing members.

        cls = choose("process.name", "my_package.schedules:Cubic", PROCESSES, protocols.Process)
    """
    if not is_import_path(name):
        return choices[one_of(key, name, choices)]
    piece = load(key, name)
    if protocol is not None and (lacks := missing(piece, protocol)):
        raise UsageError(
            f"{key}={name} is no {protocol.__name__}: it lacks {', '.join(lacks)}; score_sde.config.protocols."
            f"{protocol.__name__} has an example."
        )
    return piece


def load(key: str, path: str) -> Any:
    """The object at an import path. Raises `UsageError` if it cannot be imported."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UsageError(f"{key}={path} is no import path, which looks like my_package.my_module:MyClass.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise UsageError(f"{key}={path}: importing {module_name} failed: {error}.") from error
        raise UsageError(
            f"{key}={path}: there is no module {error.name}; start Python in the folder that holds it, or put that "
            "folder on PYTHONPATH."
        ) from error
    except UsageError:
        raise
    except Exception as error:  # whatever the module does
        raise UsageError(f"{key}={path}: importing {module_name} failed: {type(error).__name__}: {error}.") from error
    value, where = module, getattr(module, "__file__", None) or module_name
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{key}={path}: {where} has no {attribute}{nearest(part, dir(value))}.")
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(f"{key}={path} is neither a class nor a function.")
    return value


def arguments(of: Callable, apart: Iterable[str] = ()) -> dict[str, Any]:
    """Arguments of a class or function by name, with their defaults, or `REQUIRED` without one.

    apart: arguments that the package passes, which are not in a config.
    """
    if dataclasses.is_dataclass(of):
        defaults = {field.name: _default(field) for field in dataclasses.fields(of) if field.init}
    else:
        parameters = inspect.signature(of).parameters.values()
        named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        defaults = {each.name: REQUIRED if each.default is each.empty else each.default for each in named}
    return {name: default for name, default in defaults.items() if name not in apart}


def source_digest(key: str, path: str) -> tuple[str, str]:
    """The file that defines the object at an import path, and 16 hexadecimal digits of the file's SHA-256.

    Raises `UsageError` for an object that is defined in no file.
    """
    piece = load(key, path)
    module = sys.modules.get(getattr(piece, "__module__", None) or "", None) or sys.modules[path.partition(":")[0]]
    if not getattr(module, "__file__", None) or not Path(module.__file__).is_file():
        name = path.partition(":")[2]
        raise UsageError(
            f"{key}={path} is defined in no file, but in a notebook or at a prompt, which no later program reads; "
            f"write it to a file my_pieces.py beside it, and name my_pieces:{name}."
        )
    file = Path(module.__file__).resolve()
    return str(file), hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def missing(piece: Any, protocol: type) -> list[str]:
    """Parts of a protocol that an object lacks: base class, members, and parameters that its methods do not take."""
    if protocol.is_function:
        return [f"the parameter {name}" for name in _lacking(piece, protocol.__call__)]
    if not isinstance(piece, type):
        return ["a class: it is a function"]
    if protocol.base and protocol.base not in [f"{base.__module__}.{base.__qualname__}" for base in piece.__mro__]:
        return [f"the base class {protocol.base}"]
    lacks = [f"a definition of {name}" for name in sorted(getattr(piece, "__abstractmethods__", ()))]
    annotated = {name for base in piece.__mro__ for name in getattr(base, "__annotations__", {})}
    for name, member in (dict.fromkeys(protocol.__annotations__) | vars(protocol)).items():
        if name in ("base", "is_function") or (name.startswith("_") and name != "__call__"):
            continue
        own = inspect.getattr_static(piece, name, None)
        if own is None and name in annotated:  # a field of a dataclass
            continue
        if own is None:
            lacks.append(f"a definition of {name}")
        elif inspect.isfunction(member) and inspect.isfunction(own):
            lacks += [f"the parameter {each} of {name}" for each in _lacking(own, member)]
    return list(dict.fromkeys(lacks))


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _lacking(function: Callable, member: Callable) -> list[str]:
    """Parameters of a protocol's member that a function does not take.

    Positional ones are counted, the others compared by name.
    """
    ours = [each for each in inspect.signature(member).parameters.values() if each.name != "self"]
    try:
        theirs = inspect.signature(function).parameters.values()
    except ValueError:  # of a class like int, and of some functions in C
        return [each.name for each in ours]
    own = [each for each in theirs if each.name != "self"]
    positional = [each for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD]
    room = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in own)
    any_number = any(each.kind is each.VAR_POSITIONAL for each in own)
    any_name = any(each.kind is each.VAR_KEYWORD for each in own)
    lacks = [] if any_number else [each.name for each in positional[room:]]
    names = {each.name for each in own}
    keywords = [each.name for each in ours if each.kind is each.KEYWORD_ONLY]
    return lacks + ([] if any_name else [name for name in keywords if name not in names])
