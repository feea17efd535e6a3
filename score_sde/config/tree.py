"""The config as a tree: locked, with values that the table allows."""

from typing import Any

from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import placeholder

from score_sde.config.import_paths import is_import_path
from score_sde.config.keys import ABSENT, plain
from score_sde.config.table import ARGUMENTS, KEYS, PIECES, check_name

__all__ = ["Config", "FrozenConfig", "base", "placeholder"]
NAMING = dict(key.split(".") for key in PIECES)  # the key of a section that names a piece


class Config(ConfigDict):
    """A `ConfigDict` that stores plain Python values of each key's kind, however they are set.

    A section knows its own name, so that `config.optim.lr = np.float32(1)` is checked as `optim.lr`. Raises
    `UsageError` for a value of another kind, and for a key that has moved or is gone.

        config = base()
        config.model.update(name="ncsnpp", ch_mult=[1, 2])
        config.sampling.eps = None
    """

    _section = ""

    def __setitem__(self, name: str, value: Any) -> None:
        key, field = self._key(name), self._fields.get(name)
        if isinstance(value, FieldReference):
            super().__setitem__(name, value)
        elif key is None and isinstance(value, dict | ConfigDict):
            self._set_section(name, value)
        else:
            value = plain(value) if key is None else key.plain(value)
            own = name not in self._fields and self._takes_any  # because a locked config takes no new key
            if own or (key is not None and name in self._fields and not isinstance(field, FieldReference)):
                self._fields[name] = value  # any type that the key takes, not only the last value's
                return
            if self.is_locked and name not in self._fields:
                check_name(f"{self._section}.{name}" if self._section else name)
            super().__setitem__(name, value)

    def get_type(self, name: str) -> type:
        """The type of a key's values, also of a nullable key."""
        key = self._key(name)
        return super().get_type(name) if key is None else key.python_type

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_section", state.get("_section", ""))
        super().__setstate__(state)

    def _set_section(self, name: str, values: Any) -> None:
        """Stores a section that knows its own name."""
        section = values if type(values) is Config and values._section in ("", name) else Config(values)
        if not self._section and section._section != name:
            object.__setattr__(section, "_section", name)
            for each, value in list(section.items()):
                if (key := section._key(each)) is not None:
                    section._fields[each] = key.plain(value)
        super().__setitem__(name, section)

    def _key(self, name: str) -> Any:
        """The row of a key in this section; None for a section, and for arguments of a user's own class."""
        if name != "name" and self._section in ARGUMENTS and self._takes_any:
            return None
        return KEYS.get(f"{self._section}.{name}" if self._section else name)

    @property
    def _takes_any(self) -> bool:
        """Whether the section holds arguments of a piece at an import path, which alone knows their names."""
        return is_import_path(self._fields.get(NAMING.get(self._section)))


class FrozenConfig(FrozenConfigDict, Config):
    """A config that can no longer be changed."""


AnyConfig = ConfigDict  # a `Config`, or a plain one with its sections and keys, which `check` compares


def base() -> Config:
    """A config with every key at its default.

    Sections `sde` and `model`, whose keys depend on the class, have only a name.
    """
    values: dict[str, Any] = {}
    for key in KEYS.values():
        section, _, name = key.name.rpartition(".")
        if key.default is not ABSENT:
            (values.setdefault(section, {}) if section else values)[name] = key.default
    return Config(values)
