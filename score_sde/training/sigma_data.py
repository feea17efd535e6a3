"""Measures sigma_data, the standard deviation of the data that EDM's parameterization and weight are made for."""

import math
from pathlib import Path

from score_sde import data, images
from score_sde.config import Config
from score_sde.errors import UsageError, warn
from score_sde.io import workdir
from score_sde.runtime import sharding
from score_sde.training.pieces import arguments_of

SECTIONS = ("parameterization", "weight")


def keys_of(config: Config) -> tuple[str, ...]:
    """The keys of a config that hold sigma_data of its objective: of both sections, of one, or of none."""
    return tuple(f"{section}.sigma_data" for section in SECTIONS if _value(config, section) is not None)


def measure(config: Config, source: data.Source) -> bool:
    """Sets sigma_data from the training images, if `data.sigma_images` asks for that and it is not set yet.

    Returns whether it did. A config that was recorded has the number, so that it is measured once.
    """
    if not config.data.sigma_images or not (missing := _missing(config)):
        return False
    scaling = images.CENTERED if config.data.centered else images.UNIT
    measured = scaling.scale * data.spread(source, config.data.sigma_images).std
    config.update_from_flattened_dict(dict.fromkeys(missing, measured))
    return True


def inherit(directory: Path, config: Config) -> None:
    """Copies the numbers that the workdir has recorded into a config that asks to measure them."""
    stored = workdir.flatten(workdir.read(directory, "config.json"))
    if config.data.sigma_images and workdir.saved_steps(directory):
        recorded = {key: stored[key] for key in _missing(config) if stored.get(key) is not None}
        config.update_from_flattened_dict(recorded)


def check(config: Config) -> None:
    """Warns where parameterization and weight are made for data of different standard deviations.

    Raises `UsageError` where sigma_data is to be measured, and nothing has it.
    """
    values = {f"{section}.sigma_data": _value(config, section) for section in SECTIONS}
    used = {key: value for key, value in values.items() if value is not None}
    if config.data.sigma_images and not used:
        raise UsageError(
            "data.sigma_images measures sigma_data, and neither this parameterization nor this weight has it; leave it "
            "out, or set parameterization.name=edm and weight.name=edm."
        )
    if len(used) == 2 and not math.isclose(*used.values(), rel_tol=1e-6) and sharding.is_first():
        both = " and ".join(f"{key}={value:g}" for key, value in used.items())
        warn(f"{both} differ, and are both the standard deviation of the data; set them to one number.")


def _missing(config: Config) -> list[str]:
    return [key for key in keys_of(config) if config[key.partition(".")[0]].sigma_data is None]


def _value(config: Config, section: str) -> float | None:
    """The sigma_data that a section's piece is made with; None if it has none."""
    options = config[section]
    if not options.name or (section == "weight" and options.name == "uncertainty" and (options.base or "edm") != "edm"):
        return None
    default = arguments_of(f"{section}.name", options.name).get("sigma_data")
    return default if options.get("sigma_data") is None else options.sigma_data
