"""Checks of whole configs: each value by its row, then combinations of values."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from score_sde.config.keys import checked
from score_sde.config.table import KEYS
from score_sde.errors import UsageError


class Rule(NamedTuple):
    """Options that make no sense together.

    broken: whether a config has them. sentence: the message, with values in braces.
    """

    broken: Callable[[Any], bool]
    sentence: str


RULES = (
    Rule(
        lambda config: config.metrics.nf % 4 != 0,
        "metrics.nf={config.metrics.nf} must be a multiple of 4, for groups of 8 channels.",
    ),
    Rule(
        lambda config: config.eval.precision == "bfloat16",
        "Likelihoods need more than the three digits of bfloat16; set eval.precision to tf32 or float32.",
    ),
    Rule(
        lambda config: not config.training.continuous and config.model.get("embedding_type") == "fourier",
        "A Fourier embedding takes the logarithm of sigma, and training.continuous=False gives the network integer "
        "steps of the chain; set model.embedding_type=positional.",
    ),
    Rule(
        lambda config: config.training.continuous and config.model.name == "ncsn",
        "NCSN has an embedding for each noise level; set training.continuous=False.",
    ),
    Rule(
        lambda config: config.training.likelihood_weighting and not config.training.continuous,
        "training.likelihood_weighting=True is defined for continuous times; set training.continuous=True.",
    ),
    Rule(
        lambda config: config.guidance.classifier and config.guidance.weak,
        "guidance.classifier and guidance.weak are two ways of guidance; set one of them.",
    ),
)

# Functions that own a check, each called with the values of these keys.
OWNERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("score_sde.data:dataset", ("data.dataset", "data.data_dir")),
    ("score_sde.data.arrays:check_range", ("data.array_range",)),
    ("score_sde.ema:check", ("ema.profiles", "optim.ema_rate", "optim.ema_schedule", "sampling.ema")),
    ("score_sde.likelihood:check_divergence", ("eval.hutchinson_type", "eval.num_probes")),
    ("score_sde.conditioning.grammar:check", ("sampling.condition",)),
    ("score_sde.conditioning:check_guidance", ("guidance.scale", "guidance.interval")),
)


def check(config: ConfigDict) -> None:
    """Raises `UsageError` for a value of another kind or out of range, and for values that make no sense together."""
    values = {name: config[name] for name in KEYS if name.rpartition(".")[2] in _section(config, name)}
    checked(KEYS, values)
    for owner, names in OWNERS:
        module, _, function = owner.partition(":")
        getattr(importlib.import_module(module), function)(*(values[name] for name in names))
    for rule in RULES:
        if rule.broken(config):
            raise UsageError(rule.sentence.format(config=config))


def check_section(section: str, values: Mapping[str, Any]) -> None:
    """Raises `UsageError` for a value of a section that is of another kind or out of range."""
    checked(KEYS, {f"{section}.{name}": value for name, value in values.items()})


def _section(config: ConfigDict, name: str) -> Any:
    """The section that holds a key."""
    section = name.rpartition(".")[0]
    return config[section] if section else config
