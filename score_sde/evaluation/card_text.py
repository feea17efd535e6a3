"""A model card as Markdown, with the header of Hugging Face's hub, and as a page. Both say the same."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from score_sde.evaluation.author import ENTRIES, missing
from score_sde.evaluation.card import Card
from score_sde.evaluation.card_figures import Section
from score_sde.io import html_page

NOT_STATED = "not stated by the author"
FIRST = ("intended_use", "out_of_scope", "limits", "ethical_considerations")  # before the facts; the others follow
# Licences that the hub knows, as it writes them.
LICENCES = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "openrail", "creativeml-openrail-m")
LICENCES += ("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0")
SPECIAL = re.compile(r"([\\`*\[\]<>|])")


def markdown(card: Card, picture: str = "") -> str:
    """The card as Markdown. picture: the file of the sheet of samples, beside the card; "" without one."""
    blocks = [_header(card), f"# {_plain(card.name)}", f"{_first_sentence(card)}"]
    blocks += [block for name in FIRST for block in _author_block(card, name)]
    if picture:
        blocks.append(f"![{_plain(card.caption)}]({picture})")
    blocks.append(_plain(card.caption))
    blocks += [block for section in card.sections for block in _section_block(section)]
    blocks += [block for name in ENTRIES if name not in FIRST for block in _author_block(card, name)]
    return "\n\n".join(blocks) + "\n"


def write_page(card: Card, path: Path) -> None:
    """Writes the card as a page."""
    body: list[html_page.Element] = [html_page.note(_first_sentence(card))]
    if unstated := missing(card.author):
        body.append(html_page.warning(f"{NOT_STATED.capitalize()}: {_titles(unstated)}."))
    body += [element for name in FIRST for element in _author_elements(card, name)]
    if card.picture:
        body += [html_page.heading("Samples at a glance"), html_page.figure(card.caption, _shown(card.picture))]
    else:
        body.append(html_page.note(card.caption))
    for section in card.sections:
        body.append(html_page.heading(section.title))
        if section.rows:
            body.append(html_page.table(list(section.head), [list(row) for row in section.rows]))
        body += [html_page.note(note.replace("`", "")) for note in section.notes]
    body += [element for name in ENTRIES if name not in FIRST for element in _author_elements(card, name)]
    html_page.write(path, f"Model card of {card.name}", body, "--out")


def _first_sentence(card: Card) -> str:
    return (
        f"This card is of the checkpoint of update {card.step:,}. Each row names the file of the workdir that it was "
        "read from. The author's texts stand as they were written."
    )


def _titles(names: list[str]) -> str:
    return ", ".join(ENTRIES[name][0].lower() for name in names)


def _header(card: Card) -> str:
    """The header, in JSON's part of YAML; it has what is known and nothing else."""
    facts = _licence(card.author["licence"]) | card.header
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()), "---"]
    )


def _licence(text: str) -> dict[str, Any]:
    """The hub's entries of a licence: its own identifier, or "other" and the author's words."""
    if not text:
        return {}
    return {"license": text.lower()} if text.lower() in LICENCES else {"license": "other", "license_name": text}


def _author_block(card: Card, name: str) -> list[str]:
    text = card.author[name]
    if text and name == "citation":
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        text = f"{fence}\n{text}\n{fence}"
    return [f"## {ENTRIES[name][0]}", text or f"*{NOT_STATED}*"]


def _author_elements(card: Card, name: str) -> list[html_page.Element]:
    text = card.author[name]
    if text and name == "citation":
        shown = [html_page.verbatim(text.splitlines())]
    else:
        paragraphs = re.split(r"\n\s*\n", text) if text else [NOT_STATED]
        style = "" if text else ' class="note"'
        shown = [html_page.element(f"<p{style}>{{{{ text }}}}</p>", text=each) for each in paragraphs]
    return [html_page.heading(ENTRIES[name][0]), *shown]


def _section_block(section: Section) -> list[str]:
    blocks = [f"## {section.title}"]
    if section.rows:
        lines = [section.head, ("---",) * len(section.head)]
        lines += [tuple(map(_plain, row)) for row in section.rows]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return [*blocks, *(note if "`" in note else _plain(note) for note in section.notes)]


def _plain(text: str) -> str:
    """A text in one line in which Markdown sees nothing but text."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _shown(path: Path) -> html_page.Element:
    """The picture of a file as an element."""
    with Image.open(path) as stored:
        pixels = np.asarray(stored.convert("RGB"))
    return html_page.picture(pixels, "samples of the model, in rows", 1)
