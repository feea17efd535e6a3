"""Checks of whole configs: each value by its row, then combinations of values."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from score_sde.config.keys import checked
from score_sde.config.table import ARGUMENTS, KEYS, SECTIONS
from score_sde.errors import UsageError, one_of


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
        lambda config: config.model.name == "ncsn" and config.times.name not in ("", "chain"),
        "NCSN has an embedding for each noise level; set times.name=chain.",
    ),
    Rule(
        lambda config: config.training.continuous and config.model.name == "ncsn" and not config.times.name,
        "NCSN has an embedding for each noise level; set training.continuous=False.",
    ),
    Rule(
        lambda config: config.training.likelihood_weighting and not config.training.continuous,
        "training.likelihood_weighting=True is defined for continuous times; set training.continuous=True.",
    ),
    Rule(
        lambda config: config.training.batch_size % config.training.accumulate != 0,
        "training.batch_size={config.training.batch_size} must be a multiple of "
        "training.accumulate={config.training.accumulate}, the number of its parts.",
    ),
    Rule(
        lambda config: (
            config.training.coupling == "optimal" and config.training.batch_size % config.training.coupling_block != 0
        ),
        "training.batch_size={config.training.batch_size} must be a multiple of "
        "training.coupling_block={config.training.coupling_block}, the rows that are coupled with one another.",
    ),
    Rule(
        lambda config: config.training.coupling != "pairs" and config.training.pairs,
        "training.pairs has no effect with training.coupling={config.training.coupling}; set training.coupling=pairs.",
    ),
    Rule(
        lambda config: config.training.coupling == "pairs" and config.data.random_flip,
        "A mirrored image is no longer the one that the noise of its pair leads to; set data.random_flip=False.",
    ),
    Rule(
        lambda config: config.data.dataset.lower() in ("scenes", "openmoji") and config.data.random_flip,
        "A mirrored picture is no longer what its caption says; set data.random_flip=False.",
    ),
    Rule(
        lambda config: config.training.coupling != "independent" and config.data.augment_p > 0,
        "The network is told an augmentation, which training.coupling={config.training.coupling} would tie to the "
        "noise; set data.augment_p=0.",
    ),
    Rule(
        lambda config: config.training.coupling != "independent" and config.training.keep_best > 0,
        "The evaluation loss is one of independent noise, and tells nothing about which checkpoint of a training with "
        "training.coupling={config.training.coupling} is the best; set training.keep_best=0.",
    ),
    Rule(
        lambda config: config.training.privacy and config.training.coupling != "independent",
        "training.privacy=True needs gradients of single images, and training.coupling={config.training.coupling} ties "
        "them to other images; set training.coupling=independent.",
    ),
    Rule(
        lambda config: config.training.privacy and config.data.sigma_images,
        "data.sigma_images measures the training images without privacy; set parameterization.sigma_data and "
        "weight.sigma_data to numbers from elsewhere, and data.sigma_images=0.",
    ),
    Rule(
        lambda config: config.training.privacy and config.text.tokenizer == "words",
        "text.tokenizer=words learns words of the training captions without privacy; set text.tokenizer=bytes.",
    ),
    Rule(
        lambda config: config.training.privacy and config.training.fsdp > 1,
        "A private training has a copy of the parameters on each device; set training.fsdp=1.",
    ),
    Rule(
        lambda config: config.optim.grad_clip == 0,
        "optim.grad_clip=0 clips every gradient to 0, so that no parameter moves; set the norm to clip to, or a "
        "negative number for no clipping.",
    ),
    Rule(
        lambda config: (
            config.data.augment_p > 0 and config.data.random_flip and "xflip" in config.data.augment_transforms
        ),
        "data.random_flip=True shows mirrored images as data, and data.augment_p={config.data.augment_p} with a label "
        "that says so; set data.random_flip=False, as EDM does, or leave xflip out of data.augment_transforms.",
    ),
    Rule(
        lambda config: config.sampling.s_min > config.sampling.s_max,
        "sampling.s_min={config.sampling.s_min} is above sampling.s_max={config.sampling.s_max}; no churn is between.",
    ),
    Rule(
        lambda config: len(interval := config.guidance.interval) != 2 or interval[0] >= interval[1],
        "guidance.interval={config.guidance.interval} must be two times 0 <= low < high <= 1.",
    ),
    Rule(
        lambda config: (
            config.ema.snapshot_freq and not any(str(name).startswith("power:") for name in config.ema.profiles)
        ),
        "ema.snapshot_freq={config.ema.snapshot_freq} saves power averages, and ema.profiles={config.ema.profiles} has "
        "none; add power:0.05 and power:0.1, say.",
    ),
    Rule(
        lambda config: config.guidance.classifier and config.guidance.weak,
        "guidance.classifier and guidance.weak are two ways of guidance; set one of them.",
    ),
    Rule(
        lambda config: config.guidance.negative and (config.guidance.classifier or config.guidance.weak),
        "guidance.negative is for a network that is guided by itself, and guidance.classifier and guidance.weak name "
        "another; set one of them.",
    ),
    Rule(
        lambda config: config.guidance.negative and config.guidance.scale in (0, 1),
        "guidance.negative={config.guidance.negative} would change nothing, as guidance.scale="
        "{config.guidance.scale:g} does not guide; set guidance.scale=2, say, or leave guidance.negative out.",
    ),
)

# Functions that own a check, each called with the values of these keys.
OWNERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("score_sde.data:dataset", ("data.dataset", "data.data_dir")),
    ("score_sde.data.arrays:check_range", ("data.array_range",)),
    ("score_sde.data.scenes:pairs", ("data.scene_held_out",)),
    ("score_sde.ema:check", ("ema.profiles", "optim.ema_rate", "optim.ema_schedule", "sampling.ema")),
    ("score_sde.likelihood:check_divergence", ("eval.hutchinson_type", "eval.num_probes")),
    ("score_sde.conditioning.grammar:check", ("sampling.condition",)),
    ("score_sde.evaluation.exports:check_forms", ("sampling.save", "data.num_channels")),
)


def check(config: Any) -> None:
    """Raises `UsageError` for a value of another kind or out of range, and for values that make no sense together."""
    if not isinstance(config, ConfigDict):  # the decorator of other functions imports JAX, and the config must not
        raise UsageError(f"A config is a score_sde.config.Config, and this is a {type(config).__name__}.")
    if lacks := [section for section in SECTIONS if section and not isinstance(config.get(section), ConfigDict)]:
        raise UsageError(f"This config has no section {', '.join(lacks)}; begin with score_sde.config.base().")
    values = {name: config[name] for name in KEYS if name.rpartition(".")[2] in _section(config, name)}
    checked({name: key for name, key in KEYS.items() if not _is_of_own_class(config, name)}, values)
    for owner, names in OWNERS:
        module, _, function = owner.partition(":")
        getattr(importlib.import_module(module), function)(*(values[name] for name in names))
    for rule in RULES:
        if rule.broken(config):
            raise UsageError(rule.sentence.format(config=config))


def check_section(section: Any, values: Any) -> None:
    """Raises `UsageError` for a value of a section that is of another kind or out of range."""
    name = section if isinstance(section, str) else type(section).__name__
    one_of("section of the config", name, filter(None, SECTIONS))
    if not isinstance(values, Mapping | ConfigDict):
        raise UsageError(f"The values of config.{section} are a dictionary, and this is a {type(values).__name__}.")
    checked(KEYS, {f"{section}.{name}": value for name, value in values.items()})


def _is_of_own_class(config: ConfigDict, name: str) -> bool:
    """Whether a key is an argument of a class at an import path, which has ranges of its own."""
    section, _, last = name.rpartition(".")
    return section in ARGUMENTS and last != "name" and ":" in str(config[section].name)


def _section(config: ConfigDict, name: str) -> Any:
    """The section that holds a key."""
    section = name.rpartition(".")[0]
    return config[section] if section else config
