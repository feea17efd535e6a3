"""The table of all keys, in the order of the docs, and what follows from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from score_sde.config.argument_keys import ENCODER, MODEL, PARAMETERIZATION, PROCESS, SDE, TIMES, WEIGHT
from score_sde.config.keys import SAME, Differs, Key
from score_sde.config.sampling_keys import DEQUANTIZER, EVAL, GUIDANCE, METRICS, SAMPLING, WANDB
from score_sde.config.training_keys import DATA, EMA, OPTIM, PRIVACY, RUN, TEXT, TRAINING
from score_sde.errors import UsageError

SECTIONS: dict[str, tuple[Differs, dict[str, Key]]] = {
    "": (Differs.NEVER, RUN),
    "training": (Differs.NEVER, TRAINING),
    "privacy": (Differs.ALLOWED, PRIVACY),
    "sampling": (Differs.LATER, SAMPLING),
    "guidance": (Differs.LATER, GUIDANCE),
    "eval": (Differs.LATER, EVAL),
    "metrics": (Differs.LATER, METRICS),
    "data": (Differs.NEVER, DATA),
    "text": (Differs.NEVER, TEXT),
    "optim": (Differs.NEVER, OPTIM),
    "ema": (Differs.NEVER, EMA),
    "dequantizer": (Differs.LATER, DEQUANTIZER),
    "wandb": (Differs.LATER, WANDB),
    "process": (Differs.NEVER, PROCESS),
    "parameterization": (Differs.NEVER, PARAMETERIZATION),
    "times": (Differs.NEVER, TIMES),
    "weight": (Differs.NEVER, WEIGHT),
    "encoder": (Differs.NEVER, ENCODER),
    "sde": (Differs.NEVER, SDE),
    "model": (Differs.NEVER, MODEL),
}
# Sections of a piece's arguments: some hold those of the chosen class alone, the others those of all classes, or None.
ARGUMENTS = ("process", "parameterization", "times", "weight", "encoder", "sde", "model")
OF_ONE_CLASS = ("sde", "model")
# The keys that name a piece, a row of a dictionary or an import path, whose arguments join its section.
PIECES = (*(f"{section}.name" for section in ARGUMENTS), "sampling.method", "data.dataset", "metrics.features")


def _named() -> dict[str, Key]:
    named = {}
    for section, (differs, keys) in SECTIONS.items():
        for name, key in keys.items():
            full = f"{section}.{name}" if section else name
            named[full] = dataclasses.replace(key, name=full, differs=key.differs or differs)
    return named


KEYS: dict[str, Key] = _named()


def _where(*differs: Differs) -> tuple[str, ...]:
    return tuple(name for name, key in KEYS.items() if key.differs in differs)


# Sections and keys that may differ between launches of one run.
FREE_SECTIONS = tuple(section for section, (differs, _) in SECTIONS.items() if differs is Differs.LATER)
FREE_KEYS = _where(Differs.LAUNCH, Differs.MACHINE)
ALLOWED = _where(Differs.ALLOWED)  # keys that --allow_change may change during a training
OF_MACHINE = _where(Differs.MACHINE)  # keys that eval and sample may change besides the free sections
PLACES = tuple(name for name, key in KEYS.items() if not key.moves_numbers)  # no number depends on these
INHERITED = tuple(name for name, key in KEYS.items() if key.inherited)
# Values without effect, which are in no identity; as JSON has them.
NEWER = {
    name: list(key.default) if key.python_type is tuple else key.default for name, key in KEYS.items() if key.newer
}
REPLACED = {name: key.replaces for name, key in KEYS.items() if key.replaces}
MOVED = {old: name for name, key in KEYS.items() for old in key.formerly}
REMOVED = {
    "training.n_jitted_steps": "every step is one program that does not wait for the host",
    "data.category": "it is part of data.dataset, as in lsun/bedroom",
    "model.num_classes": "NCSN's num_levels are sde.num_scales; NCSN++ and DDPM++ alone have classes",
    "model.sigma_begin": "the paper's code never read it",
    "model.normalization": "each network has its own",
    "model.conv_size": "the paper's code never read it",
    "model.attention_type": "the paper's code never read it",
    "optim.amsgrad": "the paper's code never read it",
    "data.tfrecords_path": "ffhq_* and celebahq_* are prepared from TFRecord files in the folder config.data.archives",
    "device": "JAX takes the accelerators it finds; the environment's JAX_PLATFORMS chooses",
}


def check_name(name: str) -> None:
    """Raises `UsageError`, with the answer, for a key of the paper's code that has moved or is gone."""
    if name in MOVED:
        raise UsageError(f"config.{name} is now config.{MOVED[name]}.")
    if name in REMOVED:
        raise UsageError(f"config.{name} is gone: {REMOVED[name]}.")


def is_nullable(name: str) -> bool:
    """Whether a key, "sampling.eps", may be None."""
    return name in KEYS and KEYS[name].nullable


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a workdir, completed with keys added since, at the values that they imply there."""
    whole = {name: dict(value) if isinstance(value, Mapping) else value for name, value in stored.items()}
    for key in KEYS.values():
        section, _, name = key.name.rpartition(".")
        values = whole.get(section, {}) if section else whole
        if section in OF_ONE_CLASS and key.older is SAME:
            continue
        if name in values or (key.older_of and values.get("name") not in key.older_of):
            continue
        older = key.default if key.older is SAME else key.older
        (whole.setdefault(section, {}) if section else whole)[name] = older
    return whole
