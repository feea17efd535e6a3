"""The config of a published checkpoint: made from what the file says, or one of the package's whose network fits."""

import json
from typing import Any

from score_sde.cli.command_line import config_names, name_or_set, names_first, read_config, value_of
from score_sde.config import OF_ONE_CLASS, Config, base
from score_sde.errors import UsageError
from score_sde.inference.checkpoint_formats import Published
from score_sde.inference.published_tensors import Shapes, leaf_shapes
from score_sde.inference.reference_checkpoints import torch_names, torch_shape
from score_sde.models import CLASSIFIERS
from score_sde.training.build import Experiment
from score_sde.training.pieces import arguments_of

# What a file need not say: the objective of the paper's VP networks, and an average for a training that goes on.
DEFAULTS = {
    "sde.name": "vpsde",
    "model.scale_by_sigma": False,
    "data.centered": True,
    "training.reduce_mean": True,
    "optim.ema_rate": 0.9999,
    "metrics.features": "trained",
}
SAID = ("model", "process", "sde", "parameterization", "data")  # sections in which a file and a config must agree
FREE = ("model.dropout", "data.dataset", "model.augment_dim")


def built(published: Published) -> Config:
    """The config with what a file says, and defaults for the rest. Raises `UsageError` for values without sense."""
    config, values = base(), DEFAULTS | dict(published.assumed) | (published.values or {})
    for section in OF_ONE_CLASS:
        own = {key.removeprefix(f"{section}."): values[key] for key in values if key.startswith(f"{section}.")}
        config[section] = arguments_of(f"{section}.name", own["name"]) | own
    for key, value in names_first(values):
        if key.split(".")[0] not in OF_ONE_CLASS:
            name_or_set(config, key, value)
    return config.lock()


def compare(config: Config, published: Published) -> None:
    """Raises `UsageError` if a config has another network or objective than the file says."""
    if published.networks and config.model.name not in published.networks:
        raise UsageError(
            f"The file's network is model.name={' or '.join(published.networks)}, and the config's "
            f"{config.model.name}; choose another --config, or leave it out."
        )
    if published.values is None:
        return
    expected = built(published)
    for key in published.values:
        if key.split(".")[0] not in SAID or key in FREE:
            continue
        said, own = value_of(expected, key), _value(config, key)
        if said != own:
            raise UsageError(f"The file says {key}={said}, and the config {own}; leave --config out, or set it so.")


def _value(config: Config, key: str) -> Any:
    """A value of a config; None where its section has no such key."""
    section, _, last = key.partition(".")
    return config[section].get(last) if section in config else None


def fitting(published: Published) -> Config:
    """The one config of the package whose network has the names and shapes in a file of the paper's code.

    Raises `UsageError` if there is none or several, as with networks that two SDEs share.
    """
    names = published.names
    if not names:
        raise UsageError(
            f"The file ({published.kind}) does not say its network and objective; say them by --config=NAME."
        )
    fits, traced = [], {}
    first = next((shape for shape in names.values() if len(shape) == 4), None)
    for name in config_names():
        config = read_config(name)
        if config.model.name in CLASSIFIERS or not _may_fit(config, first, published.is_flax):
            continue
        network = json.dumps([config.model.to_dict(), config.data.image_size, config.data.num_channels], sort_keys=True)
        if network not in traced:
            traced[network] = _expected(config, published.is_flax) == names
        if traced[network]:
            fits.append(name)
    if not fits:
        raise UsageError("No config of the package has the file's network; say it by --config, with its widths.")
    if len(fits) > 1:
        raise UsageError(
            f"The file does not say its SDE and images, and its network is that of {', '.join(fits)}; choose one by "
            "--config=NAME."
        )
    return read_config(fits[0])


def _may_fit(config: Config, first: tuple[int, ...] | None, is_flax: bool) -> bool:
    """Whether the first convolution has the config's width and channels, which takes no tracing."""
    if first is None or "nf" not in config.model:
        return False
    outputs, inputs = (first[3], first[2]) if is_flax else first[:2]
    return (config.model.nf, config.data.num_channels) == (outputs, inputs)


def _expected(config: Config, is_flax: bool) -> Shapes:
    """Shapes by the names of the paper's code for the network of a config."""
    shapes = leaf_shapes(Experiment(config).init_params)
    if is_flax:
        return shapes
    return {name: torch_shape(path, shapes[path]) for path, name in torch_names(shapes).items()}
