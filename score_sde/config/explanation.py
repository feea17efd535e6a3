"""Explanations of keys: on a terminal for a config, and as the page configs/KEYS.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from score_sde.config.keys import ABSENT, Differs, Key
from score_sde.config.table import ARGUMENTS, FREE_SECTIONS, KEYS, MOVED, PIECES, REMOVED
from score_sde.errors import UsageError, nearest

HEAD = """\
# Keys of a config

Written by `python -m score_sde.config`; `python -m score_sde --config=FILE --mode=describe --explain=SECTION` explains
a config's own values. The last column says when a key may differ from its value at the start of a run:

| letter | may differ |
|---|---|
"""
LETTERS = {"NEVER": "-", "ALLOWED": "a", "LAUNCH": "l", "MACHINE": "m", "LATER": "e"}


def explained(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines of `key = value`, each followed by a line on its meaning, its values, and when it may differ.

    Args:
        values: A flattened config: {"optim.lr": 2e-4, ...}.
        prefix: A section or a key; "" for all.

    Raises:
        UsageError: No key begins with the prefix.

        print("\\n".join(explained({"optim.lr": 2e-4}, "optim")))
    """
    chosen = [name for name in values if not prefix or name == prefix or name.startswith(prefix.rstrip(".") + ".")]
    if not chosen:
        sections = dict.fromkeys(name.partition(".")[0] for name in values)
        raise UsageError(
            f"--explain={prefix} is neither a section nor a key{nearest(prefix, [*values, *sections])}; the sections "
            f"are: {', '.join(section for section in sections if section not in values)}."
        )
    for name in chosen:
        yield f"{name} = {values[name]}"
        yield f"    {_line(KEYS[name], values[name]) if name in KEYS else _unknown(name, values)}"


def page() -> str:
    """The text of configs/KEYS.md."""
    lines = [HEAD + "\n".join(f"| {LETTERS[each.name]} | {each.value} |" for each in Differs)]
    section = None
    for key in KEYS.values():
        if (own := key.name.rpartition(".")[0]) != section:
            section = own
            note = ": arguments of the class that `name` chooses" if section in ARGUMENTS else ""
            lines += ["", f"## {f'`{section}`{note}' if section else 'The run'}", ""]
            lines += ["| key | default | what it is | values | |", "|---|---|---|---|---|"]
        default = "" if key.default is ABSENT else f"`{key.default!r}`"
        cells = (f"`{key.name}`", default, key.sentence, key.range, LETTERS[key.differs.name])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Keys of the paper's code that moved, or are gone", "", "| key | here |", "|---|---|"]
    lines += [f"| `{old}` | `{new}` |" for old, new in MOVED.items()]
    lines += [f"| `{old}` | gone: {why} |" for old, why in REMOVED.items()]
    return "\n".join(lines) + "\n"


def _line(key: Key, value: Any) -> str:
    parts = [key.sentence, key.range and f"Values: {key.range}"]
    if key.default is not ABSENT and value != (list(key.default) if isinstance(key.default, tuple) else key.default):
        parts.append(f"Default: {key.default!r}")
    return ". ".join([*filter(None, parts), f"May differ {key.differs.value}."])


def _unknown(name: str, values: Mapping[str, Any]) -> str:
    section = name.partition(".")[0]
    piece = next((key for key in PIECES if key.startswith(f"{section}.")), section)
    differs = (Differs.LATER if section in FREE_SECTIONS else Differs.NEVER).value
    return f"Argument of {piece}={values.get(piece)}. May differ {differs}."
