"""Names of classes in a config's condition: numbers in their place for programs, and names again for the reader."""

from pathlib import Path

from score_sde.conditioning import grammar
from score_sde.conditioning.grammar import ALL, chosen_class, parts
from score_sde.config import Config
from score_sde.io import workdir
from score_sde.runtime.backend import expanded


def class_names(config: Config, directory: Path | None) -> tuple[str, ...]:
    """Names of the classes that samples can be asked for: of guidance.classifier's run, or of the run in `directory`.

    () where these are not kept.
    """
    place = config.guidance.classifier or directory
    return workdir.class_names(expanded(place)) if place else ()


def with_numbers(config: Config, directory: Path | None) -> Config:
    """The config, in which sampling.condition names a class by its number alone.

    directory: of the run. Raises `UsageError` for a name that is not among the run's.
    """
    names = class_names(config, directory) if "class" in parts(config.sampling.condition) else ()
    return _changed(config, grammar.numbered(config.sampling.condition, names))


def with_any_name(config: Config, directory: Path | None) -> Config:
    """`with_numbers`, but where no names are kept any name stands for class 0, so that the config can be described."""
    name = parts(config.sampling.condition).get("class", "")
    if name in ("", ALL) or name.removeprefix("#").isdecimal() or class_names(config, directory):
        return with_numbers(config, directory)
    return _changed(config, grammar.numbered(config.sampling.condition, (name,)))


def worded(config: Config, directory: Path | None) -> str:
    """The condition of a config from `with_numbers`, with the name of the class in place of its number."""
    return grammar.worded(config.sampling.condition, class_names(config, directory))


def names_in_turn(config: Config, directory: Path | None) -> tuple[str, ...]:
    """Names of the classes that the samples are of in turn; () if they are of one class, or of none."""
    return class_names(config, directory) if chosen_class(config.sampling.condition) == ALL else ()


def _changed(config: Config, condition: str) -> Config:
    if condition == config.sampling.condition:
        return config
    config = Config(config).copy_and_resolve_references()
    config.sampling.condition = condition
    return config.lock()
