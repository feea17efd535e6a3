"""The config: a tree of values, locked, in which each key has the type of its default."""

from ml_collections import ConfigDict as Config
from ml_collections import FrozenConfigDict as FrozenConfig
from ml_collections.config_dict import placeholder

__all__ = ["Config", "FrozenConfig", "placeholder"]
