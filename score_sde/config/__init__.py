"""The config: one table in which each key stands once, and everything that follows from it.

keys                                          one key: default, sentence, values, when it may differ
training_keys, sampling_keys, argument_keys   the table
table                                         all of it: older workdirs, moved keys, what may differ
tree                                          `Config`, a tree of values that the table allows
rules                                         checks of whole configs: options that make no sense together
explanation                                   keys explained, on a terminal and in configs/KEYS.md

A new key is one row.
"""

from score_sde.config.rules import check, check_section
from score_sde.config.table import (
    ALLOWED,
    ARGUMENTS,
    FREE_KEYS,
    FREE_SECTIONS,
    INHERITED,
    KEYS,
    NEWER,
    OF_MACHINE,
    OF_ONE_CLASS,
    PIECES,
    PLACES,
    REPLACED,
    SECTIONS,
    check_name,
    completed,
    is_nullable,
)
from score_sde.config.tree import AnyConfig, Config, FrozenConfig, base, placeholder

__all__ = [
    "ALLOWED",
    "ARGUMENTS",
    "FREE_KEYS",
    "FREE_SECTIONS",
    "INHERITED",
    "KEYS",
    "NEWER",
    "OF_MACHINE",
    "OF_ONE_CLASS",
    "PIECES",
    "PLACES",
    "REPLACED",
    "SECTIONS",
    "AnyConfig",
    "Config",
    "FrozenConfig",
    "base",
    "check",
    "check_name",
    "check_section",
    "completed",
    "is_nullable",
    "placeholder",
]
