"""Command lines: a config from a file or a workdir, values that override it, and a program's own flags."""

import importlib.machinery
import importlib.util
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from score_sde.config import KEYS, OF_ONE_CLASS, PIECES, check_name, is_nullable
from score_sde.config.keys import plain
from score_sde.errors import UsageError, nearest
from score_sde.runtime import clone

TEXTS = [name for name, key in KEYS.items() if key.kind == tuple[str, ...]]  # keys whose values are several texts


def parse(
    argv: list[str],
    define: Callable[[flags.FlagValues], None] = lambda _: None,
    of_workdir: Callable[[Path], ConfigDict] | None = None,
    has_config: bool = True,
    of_flags: Callable[[dict[str, str | None]], ConfigDict] | None = None,
) -> flags.FlagValues:
    """Values of the flags of a command line: `config` and those of `define`. Raises `UsageError`.

    argv[0] is the program. define: defines flags besides the config's. of_workdir: reads the config of the run in
    --workdir, used where there is no --config. has_config: whether there is a config at all; without, it is empty.
    of_flags: makes the config of the other flags instead, where there is no --config.
    """
    written = list(arguments(argv))
    if not has_config and "config" in dict(written):
        raise UsageError(f"--mode={dict(written).get('mode')} takes no --config.")
    template = _template(dict(written), of_workdir, of_flags) if has_config else ConfigDict()
    for key, value in _overridden(written):
        _check_override(template, key, value)
    nones = [key for key, value in _overridden(written) if value and value.lower() == "none" and is_nullable(key)]
    argv = [argv[0], *_listed(argv)]
    rest = [argv[0], *without(argv, ["config", *(f"config.{key}" for key in nones)])]
    try:
        values = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", template, "", values, lock_config=True, sys_argv=rest)
        define(values)
        unexpected = values(rest)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{' '.join(str(error).split()).rstrip('.')} (--help shows the flags).") from error
    if unexpected:
        raise UsageError(f"Unexpected argument '{unexpected[0]}'; flags look like --name=value.")
    for key in nones:
        values.config.update_from_flattened_dict({key: None})
        overrides(values)[key] = None
    return values


def _template(
    written: dict[str, str | None], of_workdir: Callable[[Path], ConfigDict] | None, of_flags: Callable | None
) -> ConfigDict:
    """The config before overrides, with the arguments of the pieces that the overrides name."""
    path, workdir = written.get("config"), written.get("workdir")
    if path:
        template = read_config(path)
    elif of_flags:
        template = of_flags(written)
    elif of_workdir and workdir and Path(workdir, "config.json").exists():
        template = of_workdir(Path(workdir))
    else:
        lacking = ""
        if of_workdir and workdir:
            from score_sde.io.workdir import nearest_run, no_run

            if written.get("mode") != "train":
                raise UsageError(no_run(Path(workdir), "it has no config.json"))
            lacking = f", since {workdir} has no config.json{nearest_run(Path(workdir))}"
        raise UsageError(
            f"--config=NAME is missing{lacking}, for example --config=vp/cifar10_ddpmpp_continuous; --mode=describe "
            "alone lists all."
        )
    for key in PIECES:
        if name := written.get(f"config.{key}"):
            name_or_set(template, key, name)
    return template


def names_first(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values of keys that name pieces, whose arguments come with them, and then the others."""
    return sorted(values.items(), key=lambda item: item[0] not in PIECES)


def name_or_set(config: ConfigDict, key: str, value: Any) -> None:
    """Sets a value of a config; one that names another piece brings the piece's arguments into its section.

    Raises `UsageError` for a key that there is not, and for a value of another kind.
    """
    _check_override(config, key, None)
    value, (section, _, last) = plain(value), key.partition(".")
    if key in PIECES and value != config[section][last]:
        from score_sde.training.pieces import rename

        rename(config, key, value)
    else:
        config.update_from_flattened_dict({key: value})


def value_of(config: ConfigDict, key: str) -> Any:
    """The value of a key, "training.n_iters"."""
    return _section(config, key)[key.rpartition(".")[2]]


def config_names() -> list[str]:
    """The names of the package's configs, `vp/cifar10_ddpmpp_continuous`, ..."""
    folder = clone.folder("configs")
    files = (path.relative_to(folder) for path in folder.rglob("*.py") if path.name != "__init__.py")
    return sorted(file.with_suffix("").as_posix() for file in files if len(file.parts) > 1)


def read_config(path: str) -> ConfigDict:
    """The result of get_config() of a config, by its name or file. Raises `UsageError` if it cannot be had."""
    file, argument = _file_and_argument(path)
    if not file.is_file():
        raise UsageError(
            f"No config file {file}, and no config of this name{nearest(str(file), config_names())}; "
            "--mode=describe alone lists all."
        )
    try:
        loader = importlib.machinery.SourceFileLoader("config_file", str(file.absolute()))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(module)
        config = module.get_config(*argument)
    except Exception as error:  # whatever the file does
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise UsageError(f"Cannot read the config {path}: {type(error).__name__}: {reason[0]}") from error
    if not isinstance(config, ConfigDict):
        raise UsageError(f"get_config() of {path} returns no ConfigDict; see configs/presets.py.")
    return config


def _file_and_argument(path: str) -> tuple[Path, list[str]]:
    """A config file and the argument of its get_config, split after the longest part of the path that is a file."""
    parts = path.split(":")
    for n in range(len(parts), 0, -1):
        if file := _file(":".join(parts[:n])):
            return file, [":".join(parts[n:])] * (n < len(parts))
    return Path(parts[0]), parts[1:]


def _file(name: str) -> Path | None:
    """The file at a path, or the package's config of that name; None where there is neither."""
    files = (clone.located(name), *(clone.folder("configs") / f"{name}{end}" for end in (".py", "")))
    return next((file for file in files if file.is_file()), None)


def overrides(values: flags.FlagValues) -> dict:
    """The config values given on the command line, {"training.n_iters": 10, ...}."""
    return config_flags.get_override_values(values["config"])


def without(argv: list[str], names: list[str]) -> Iterator[str]:
    """The arguments after the program's name, without the flags of these names in either form."""
    alone = [f"{dashes}{name}" for name in names for dashes in ("-", "--")]
    for previous, argument in itertools.pairwise(argv):
        if argument.partition("=")[0] not in alone and previous not in alone:
            yield argument


def _listed(argv: list[str]) -> Iterator[str]:
    """The arguments after the program's name; several texts, as labels,tokens, become the tuple that Python writes.

    A comma before a number belongs to a text: half_life:977,0.05.
    """
    for previous, argument in itertools.pairwise(argv):
        flag, equals, value = argument.partition("=") if argument.startswith("-") else (previous, "", argument)
        if flag.lstrip("-").removeprefix("config.") in TEXTS and (equals or argument == value):
            inside = value.strip().removeprefix("(").removesuffix(")").removesuffix(",")
            texts = tuple(text.strip() for text in re.split(r",(?=\s*[A-Za-z])", inside))
            quoted = any(quote in value for quote in "'\"[")
            several = len(texts) > 1 or value.strip() != inside or re.search(r"\d,\d", inside)
            if not quoted and (several or not inside):
                argument = f"{flag}={texts if inside else ()}" if equals else str(texts if inside else ())
        yield argument


def _overridden(written: list[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    """(key, value) of every config value on the command line."""
    return ((name.removeprefix("config."), value) for name, value in written if name.startswith("config."))


def arguments(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of every flag, in either form: --name=value, --name value."""
    for argument, following in itertools.zip_longest(argv[1:], argv[2:]):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            yield name.removeprefix("no") if name.startswith("noconfig.") else name, value if equals else following


def _add_argument(config: ConfigDict, key: str) -> None:
    """Adds an argument of the network, or of the SDE, that a config leaves at its default."""
    section, _, last = key.partition(".")
    if key in KEYS and section in OF_ONE_CLASS and section in config and last not in config[section]:
        from score_sde.training.pieces import arguments_of

        defaults = arguments_of(f"{section}.name", config[section].name)
        if last in defaults:
            with config.unlocked():
                config[section][last] = defaults[last]


def _check_override(template: ConfigDict, key: str, value: str | None) -> None:
    _add_argument(template, key)
    keys = list(_leaves(template))
    if key not in keys:
        check_name(key)
        if any(leaf.startswith(key + ".") for leaf in keys):
            raise UsageError(f"config.{key} is a section; set one of its values, like --config.{key}.NAME=VALUE.")
        raise UsageError(f"Unknown config key '{key}'{nearest(key, keys)}; --mode=describe prints all of them.")
    kind = template.get_type(key) if "." not in key else _section(template, key).get_type(key.rsplit(".")[-1])
    is_none = value is not None and value.lower() == "none" and is_nullable(key)
    if kind in (int, float) and value is not None and not is_none:
        try:
            kind(value)
        except ValueError:
            raise UsageError(f"--config.{key}={value} is not {'an integer' if kind is int else 'a number'}.") from None


def _section(config: ConfigDict, key: str) -> ConfigDict:
    for name in key.split(".")[:-1]:
        config = config[name]
    return config


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key
