"""The config: each key stands once, in a table, from which all else follows.

keys                                          a key: default, sentence, values, when it may differ
training_keys, sampling_keys, argument_keys   the table
table                                         all of it: older workdirs, moved keys, what may differ
tree                                          `Config`, a tree of values that takes what the table says
rules                                         whole configs: options that make no sense together
explanation                                   keys explained, on a terminal and in configs/KEYS.md

A new key is one row.
"""

from score_sde.config.keys import Differs, Key
from score_sde.config.rules import check, check_section
from score_sde.config.table import (
    ALLOWED,
    ARGUMENTS,
    FREE_KEYS,
    FREE_SECTIONS,
    INHERITED,
    KEYS,
    MOVED,
    OF_MACHINE,
    OF_ONE_CLASS,
    PIECES,
    PLACES,
    REMOVED,
    REPLACED,
    completed,
    is_nullable,
)
from score_sde.config.tree import Config, FrozenConfig, base, placeholder

__all__ = [
    "ALLOWED",
    "ARGUMENTS",
    "FREE_KEYS",
    "FREE_SECTIONS",
    "INHERITED",
    "KEYS",
    "MOVED",
    "OF_MACHINE",
    "OF_ONE_CLASS",
    "PIECES",
    "PLACES",
    "REMOVED",
    "REPLACED",
    "Config",
    "Differs",
    "FrozenConfig",
    "Key",
    "base",
    "check",
    "check_section",
    "completed",
    "is_nullable",
    "placeholder",
]
