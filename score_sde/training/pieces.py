"""Pieces that a config names: the choices for each name, and the arguments that come into its section with it.

A piece is a row of one of the package's dictionaries, or an import path (`score_sde.config.import_paths`). Its
arguments are values in the same section as its name.
"""

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, NamedTuple

from score_sde.config import ARGUMENTS, KEYS, OF_ONE_CLASS, REPLACED, Config, placeholder, protocols
from score_sde.config.import_paths import REQUIRED, arguments, choose, is_import_path, source_digest
from score_sde.data import DATASETS
from score_sde.errors import UsageError, moved_names
from score_sde.models import CLASSIFIERS, ENCODERS, MODELS
from score_sde.parameterization import PARAMETERIZATIONS
from score_sde.paths import PROCESSES
from score_sde.sampling import SAMPLERS
from score_sde.sde import SDES
from score_sde.times import TIMES
from score_sde.weights import WEIGHTS

MODULE = ("name", "parent", "compute", "encoder")  # fields of a flax module that the package sets
SWITCHES = {"training.continuous", "training.likelihood_weighting"}  # they say, of a section that is empty, which row
KEPT = {"model": ("scale_by_sigma",)}  # keys of a section that are not arguments


class Kind(NamedTuple):
    """A kind of piece. passed: arguments that come from the package and not from a config."""

    choices: Mapping[str, Any]
    protocol: type
    passed: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "sde.name": Kind(SDES, protocols.Process, ("params", "sampling_eps")),
    "process.name": Kind(PROCESSES, protocols.Process, ("params", "sampling_eps")),
    "parameterization.name": Kind(PARAMETERIZATIONS, protocols.Parameterization),
    "times.name": Kind(TIMES, protocols.TimeLaw),
    "weight.name": Kind(WEIGHTS, protocols.Weight, ("params",)),
    "model.name": Kind(ChainMap(MODELS, CLASSIFIERS), protocols.Network, MODULE),
    "encoder.name": Kind(ENCODERS, protocols.Encoder, MODULE),
    "sampling.method": Kind(
        SAMPLERS, protocols.Sampler, ("process", "model", "eps", "start_time", "noise_removal", "project")
    ),
    "data.dataset": Kind(DATASETS, protocols.DataSet, ("train", "image_size", "image_width", "num_channels")),
    "metrics.features": Kind({}, protocols.FeatureNetwork),
}


def arguments_of(key: str, name: str) -> dict[str, Any]:
    """Arguments of the piece with this name in a config, with their defaults."""
    kind = KINDS[key]
    return arguments(choose(key, name, kind.choices, kind.protocol), kind.passed)


def construct(section: str, values: Mapping[str, Any], choices: Mapping[str, Any] | None = None, **passed: Any) -> Any:
    """The piece named by values["name"], with the other values as its arguments.

    choices: default all rows of the kind. passed: arguments that the package passes. Raises `UsageError` for unknown
    names and arguments, and for arguments without a value.
    """
    key = f"{section}.name"
    kind = KINDS[key]
    cls = choose(key, values["name"], kind.choices if choices is None else choices, kind.protocol)
    defaults = arguments(cls, kind.passed)
    chosen = {name: value for name, value in values.items() if name not in ("name", *KEPT.get(section, ()))}
    for name in chosen:
        if name not in defaults:
            raise UsageError(
                f"{section}.{name} is not an argument of {cls.__name__}, which takes {', '.join(defaults) or 'none'}; "
                f"start from a config of that {section}."
            )
    for name, default in defaults.items():
        if default is REQUIRED and name not in chosen:
            raise UsageError(f"{cls.__name__} needs {section}.{name}, which has no default; set it.")
    for name in passed:
        if name not in arguments(cls):
            raise UsageError(f"{cls.__name__} takes no {name}; give it a field `{name}`, or leave {name}.name empty.")
    return cls(**chosen, **passed)


def named(config: Config, section: str, **others: Any) -> Any:
    """The piece that a section names; None if it names nothing. Arguments that are None have the piece's defaults.

    others: further arguments. Raises `UsageError` as `construct` does, and for arguments without a name.
    """
    values = {name: value for name, value in dict(config[section]).items() if value is not None} | others
    if values["name"]:
        return construct(section, values)
    if of_nothing := values.keys() - {"name"} - others.keys():
        raise UsageError(f"{section}.{min(of_nothing)} needs a {section}.name that takes it; set that too.")
    return None


def rename(config: Config, key: str, name: str) -> None:
    """Puts another piece's name into its section, with the arguments of that piece at their defaults.

    In a section of arguments only, they replace the previous ones; in `sde` and `model` the values of arguments that
    both rows have stay. `SWITCHES` that the section replaces go back to their defaults. Raises `UsageError` for an
    unknown name.
    """
    section, _, last = key.partition(".")
    own, before = is_import_path(name), config[section]
    if not (own or section in ARGUMENTS):  # the section always has all keys
        before[last] = name
        return
    if own or section in OF_ONE_CLASS:
        values = {argument: _value(default) for argument, default in arguments_of(key, name).items()}
    else:
        values = {row.rpartition(".")[2]: None for row in KEYS if row.startswith(f"{section}.")}
    if section in ARGUMENTS:
        kept = KEPT.get(section, ()) if own else (*KEPT.get(section, ()), *values)
        values |= {argument: before[argument] for argument in kept if argument in before}
    else:
        values |= dict(before)
    with config.unlocked():
        config[section] = values | {last: name}
        for switch in SWITCHES.intersection(REPLACED.get(key, ())):
            config.update_from_flattened_dict({switch: KEYS[switch].default})


def complete(config: Config) -> None:
    """Adds to each section the arguments of an import path that it lacks, with their defaults.

    They are stored with the run, which a later change of a default in the module therefore does not affect.
    """
    for key in KINDS:
        section, _, last = key.partition(".")
        if section in config and is_import_path(config[section].get(last)):
            with config.unlocked():
                for argument, default in arguments_of(key, config[section][last]).items():
                    if argument not in config[section] and default is not REQUIRED:
                        config[section][argument] = default


def code_of(config: Config) -> dict[str, dict[str, str]]:
    """Import paths of a config by key, each with the file that defines it and the file's digest."""
    code = {}
    for key in KINDS:
        section, _, last = key.partition(".")
        name = config[section].get(last) if section in config else None
        if is_import_path(name):
            file, digest = source_digest(key, name)
            code[key] = {"path": name, "file": file, "digest": digest}
    return code


def _value(default: Any) -> Any:
    """A default as a config has it; one that is None, or required, can be of any type."""
    return placeholder(object) if default is REQUIRED or default is None else default


def piece_arguments(key: str, name: str, values: Any) -> dict[str, Any]:
    """The values of a section that the piece at an import path takes as arguments."""
    return {argument: values[argument] for argument in arguments_of(key, name) if argument in values}


__getattr__ = moved_names(__name__, {"sampler_named": "score_sde.training.sampler_options.sampler_named"})
