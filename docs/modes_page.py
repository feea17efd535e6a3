"""Writer of the page of modes, to standard output: `python docs/modes_page.py > docs/reference/modes.md`."""

from collections.abc import Iterable

from score_sde.cli.modes import CONFIG, FLAGS, MODES, PROCESSES, flags_of

PAGE = """\
# Modes

Each mode of the command `score_sde` does one thing. With `--help` a mode prints its part of this page. From a clone,
`python -m score_sde` is the same command. `python docs/modes_page.py` writes this page.

| mode | what it does |
|---|---|
{overview}

## Flags that several modes take

Every mode that works with a config takes the first two. The last three start one run as several processes; they are for
{processes}.

{shared}
"""

MODE = """
## `{name}`

{text}

{flags}

<!-- needs: a data set, or a run of a day -->
```sh
{examples}
```
"""


def page() -> str:
    """The text of docs/reference/modes.md."""
    text = PAGE.format(
        overview="\n".join(f"| [`{name}`](#{name}) | {mode.text} |" for name, mode in MODES.items()),
        processes=listed(name for name, mode in MODES.items() if mode.processes),
        shared=table(CONFIG | {f"--{each}={FLAGS[each].value}": FLAGS[each].text for each in PROCESSES}),
    )
    for name, mode in MODES.items():
        examples = "\n".join(f"score_sde {example}" for example in mode.examples)
        text += MODE.format(name=name, text=mode.text, flags=table(own_flags(name)), examples=examples)
    return text


def own_flags(name: str) -> dict[str, str]:
    """The flags of a mode besides those of many, as help writes them, with their sentences."""
    mode, texts = MODES[name], {}
    for each in flags_of(name):
        if each not in PROCESSES:
            text = mode.out if each == "out" and mode.out else FLAGS[each].text
            texts[f"--{each}={FLAGS[each].value}"] = text + " Required." * (each in mode.needs)
    return texts


def table(texts: dict[str, str]) -> str:
    """A table of flags; bars in them are escaped."""
    rows = [f"| `{flag}` | {text} |" for flag, text in texts.items()]
    return "\n".join(["| flag | meaning |", "|---|---|", *(row.replace("NAME|FILE", r"NAME\|FILE") for row in rows)])


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    *first, last = [f"`{name}`" for name in names]
    return f"{', '.join(first)} and {last}"


if __name__ == "__main__":
    print(page(), end="")
