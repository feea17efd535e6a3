"""Explanations of keys: on a terminal for a config, and as the page configs/KEYS.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from score_sde.config.import_paths import is_import_path
from score_sde.config.keys import ABSENT, Differs, Key
from score_sde.config.table import ARGUMENTS, FREE_SECTIONS, KEYS, MOVED, PIECES, REMOVED
from score_sde.errors import UsageError, nearest

HEAD = """\
# Keys of a config

A config is a tree of these keys. Set one on the command line with `--config.KEY=VALUE`, or in a config file with
`config.KEY = VALUE`. To see the values of your own config with their meaning, run
`python -m score_sde --mode=describe --config=FILE --explain=SECTION`. `python -m score_sde.config` writes this page.

The last column says when a key may have another value than at the start of a run:

| word | the key may differ |
|---|---|
"""
WORDS = {"NEVER": "never", "ALLOWED": "allowed", "LAUNCH": "launch", "MACHINE": "machine", "LATER": "later"}
SECTIONS = {
    "": "Keys without a section are about the run as a whole.",
    "training": "The training loop: batches, checkpoints, logs, and the precision of the computation.",
    "privacy": "The budget and the mechanism of a differentially private training, with `training.privacy=True`.",
    "sampling": "Samplers and their options, for snapshots, `--mode=sample` and `--mode=eval`.",
    "guidance": "Guidance towards a class, and methods for observations.",
    "eval": "Snapshots to evaluate, and the figures to compute of each: loss, bits/dim, samples.",
    "metrics": "Features and statistics by which samples are compared with data.",
    "data": "The data set, its place, and the treatment of its images.",
    "text": "Captions as entries of the condition, for an encoder of text.",
    "optim": "The optimizer, its learning rate, and the average of the parameters.",
    "ema": "Several averages of the parameters, in the place of one.",
    "dequantizer": "The network of the variational dequantization, which `--mode=train_dequantizer` trains.",
    "wandb": "Metrics at Weights & Biases, besides those in the workdir.",
    "process": "The process from data to noise.",
    "parameterization": "The quantity that the network learns, and the noise condition that it gets.",
    "times": "The law of the times that are trained on.",
    "weight": "The weight of the squared error at each time.",
    "encoder": "The encoder of conditions besides classes.",
    "sde": "The SDE by the paper's names; `process` has all processes.",
    "model": "The network.",
}
ARGUMENT = " The other keys are arguments of the class that `{}.name` chooses; `None` or no default is the class's own."


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
        has_row = name in KEYS and not _is_of_own_class(name, values)
        yield f"    {_line(KEYS[name], values[name]) if has_row else _unknown(name, values)}"


def page() -> str:
    """The text of configs/KEYS.md."""
    lines = [HEAD + "\n".join(f"| {WORDS[each.name]} | {each.value} |" for each in Differs)]
    section = None
    for key in KEYS.values():
        if (own := key.name.rpartition(".")[0]) != section:
            section = own
            note = ARGUMENT.format(section) if section in ARGUMENTS else ""
            lines += ["", f"## {f'`{section}`' if section else 'The run'}", "", SECTIONS[section] + note, ""]
            lines += ["| key | default | meaning | values | may differ |", "|---|---|---|---|---|"]
        default = "" if key.default is ABSENT else f"`{key.default!r}`"
        cells = (f"`{key.name}`", default, key.sentence, key.range, WORDS[key.differs.name])
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


def _is_of_own_class(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a key is an argument of a class at an import path, which may mean something else by its name."""
    section, _, last = name.rpartition(".")
    return section in ARGUMENTS and last != "name" and is_import_path(values.get(f"{section}.name"))


def _unknown(name: str, values: Mapping[str, Any]) -> str:
    section = name.partition(".")[0]
    piece = next((key for key in PIECES if key.startswith(f"{section}.")), section)
    differs = (Differs.LATER if section in FREE_SECTIONS else Differs.NEVER).value
    return f"Argument of {piece}={values.get(piece)}. May differ {differs}."
