"""Docstrings of the package as Markdown for the site.

A docstring is plain text with a few habits, and each becomes what it looks like:

| in a docstring                                 | on a page                                  |
|------------------------------------------------|--------------------------------------------|
| `name`                                         | code, and a link where the name is public  |
| x_t, a * b, |z|, [0, 1]                        | the same characters                        |
| a block indented by four spaces                | code: Python where it parses, else as it is |
| lines aligned in columns by two or more spaces | the same lines, in one width               |
| lines between bars, or after "- "              | a table, a list                            |
| "name: " of an argument, where a sentence starts | the name in bold                           |
| "Args:", "Returns:", "Raises:"                 | a list                                     |
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Collection

CODE = re.compile(r"(`[^`]+`)")
MARKUP = re.compile(r"([\\*_<>\[\]{}$#|~])")
COLUMNS = re.compile(r"\S {2,}\S")
SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")
ITEM = re.compile(r"- ")
IMPORT = re.compile(r"import \w|from \S+ import ")


def markdown(text: str, arguments: Collection[str] = (), link: Callable[[str], str | None] = lambda name: None) -> str:
    """The docstring as Markdown.

    arguments: names that are bold before a colon. link: a name in backticks to Markdown that links it, or None.
    """
    lines, blocks = inspect.cleandoc(text).splitlines(), []
    while lines:
        if not lines[0].strip():
            lines.pop(0)
        elif SECTION.match(lines[0]):
            title, inside = lines.pop(0), _taken(lines, lambda line: line.startswith("    "))
            blocks += [f"**{title[:-1]}**", _items(textwrap.dedent("\n".join(inside)), arguments, link)]
        elif IMPORT.match(lines[0]):  # an example that is all of a docstring's body has lost its indentation
            blocks.append(code_block("\n".join(_taken(lines, lambda line: True)).strip()))
        elif lines[0].startswith("    "):
            inside = _taken(lines, lambda line: not line.strip() or line.startswith("    "))
            blocks.append(code_block(textwrap.dedent("\n".join(inside)).strip("\n")))
        else:
            paragraph = _taken(lines, lambda line: line.strip() and not line.startswith("    "))
            blocks.append(_paragraph(paragraph, arguments, link))
    return "\n\n".join(blocks)


def code_block(code: str) -> str:
    """A fenced block, of Python where the code parses."""
    return f"```{'python' if is_python(code) else 'text'}\n{code}\n```"


def is_python(code: str) -> bool:
    """Whether the text is a Python program rather than a formula."""
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def prose(text: str, arguments: Collection[str] = (), link: Callable[[str], str | None] = lambda name: None) -> str:
    """A sentence or more with its markup escaped, and the names in backticks linked."""
    if arguments:
        names = "|".join(map(re.escape, sorted(arguments, key=len, reverse=True)))
        argument = rf"(?:^|(?<=[.;)`] )|(?<=\n))(?:{names})(?:, (?:{names}))*: "
        text = re.sub(argument, lambda match: re.sub(r"\w+", r"`**\g<0>`", match[0]), text)
    parts = CODE.split(text)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = MARKUP.sub(r"\\\1", part)
        elif part.startswith("`**"):
            parts[place] = f"**`{part[3:]}**"
        else:
            name = " ".join(part[1:-1].split())
            parts[place] = link(name) or f"`{name}`"
    return "".join(parts)


def _paragraph(lines: list[str], arguments: Collection[str], link: Callable[[str], str | None]) -> str:
    if all(line.startswith("|") for line in lines):
        rows = [[prose(cell.strip(), (), link) for cell in line.strip().strip("|").split("|")] for line in lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if len(lines) > 1 and all(COLUMNS.search(line) for line in lines):
        return code_block("\n".join(lines))
    if ITEM.match(lines[0]):
        return _items("\n".join(lines), arguments, link)
    starts = [place for place, line in enumerate(lines) if ITEM.match(line)]
    if starts and lines[starts[0] - 1].endswith(":"):
        head, items = "\n".join(lines[: starts[0]]), "\n".join(lines[starts[0] :])
        return f"{prose(head, arguments, link)}\n\n{_items(items, arguments, link)}"
    text = prose("\n".join(lines), arguments, link)
    return re.sub(r"^(?=[-+] )|(?<=^\d)(?=[.)] )", r"\\", text, flags=re.M)  # no list, though a line begins like one


def _items(text: str, arguments: Collection[str], link: Callable[[str], str | None]) -> str:
    """A list: each item begins at the margin, its other lines are indented."""
    items = re.split(r"\n(?=\S)", text)
    return "\n".join("- " + prose(" ".join(re.sub(r"^- ", "", item).split()), arguments, link) for item in items)


def _taken(lines: list[str], condition: Callable[[str], object]) -> list[str]:
    """The first lines that satisfy the condition, which are removed."""
    number = next((place for place, line in enumerate(lines) if not condition(line)), len(lines))
    taken, lines[:] = lines[:number], lines[number:]
    return taken
