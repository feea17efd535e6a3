"""The author's part of a model card: a small TOML file of texts, which nothing but a person can write."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from score_sde.errors import UsageError, nearest, shown
from score_sde.io import atomic_files

NAME = "author.toml"
# Entries of the file: their title in the card, and the question that they answer.
ENTRIES = {
    "intended_use": ("Intended use", "Who may use the model, for what?"),
    "out_of_scope": ("Out of scope", "For what should nobody use it?"),
    "limits": ("Limits", "Where does it fail, and what was not tested?"),
    "ethical_considerations": ("Ethical considerations", "Whom do the images show, and who could be harmed?"),
    "licence": ("Licence of the model", "The terms of the weights, best as an SPDX identifier, such as Apache-2.0."),
    "contact": ("Contact", "Where do questions and complaints go?"),
    "citation": ("Citation", "How should a paper cite the model? BibTeX or a sentence."),
}


def read(path: Path) -> dict[str, str]:
    """The texts of an author's file by the names of `ENTRIES`, "" for those that it does not state.

    Raises `UsageError` for a file that cannot be read, and for an entry that a card does not have or that is no text.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"There is no file {shown(path)}; without --author the command writes one to fill in."
        ) from None
    except OSError as error:
        raise UsageError(f"Cannot read {shown(path)} ({error.strerror}); choose another --author.") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(f'{shown(path)} is not valid TOML ({error}); write each entry as name = "text".') from error
    for name, text in content.items():
        if name not in ENTRIES:
            hint = nearest(name, ENTRIES)
            raise UsageError(f"{shown(path)} has an unknown entry '{name}'{hint}; a card has {', '.join(ENTRIES)}.")
        if not isinstance(text, str):
            raise UsageError(f'{shown(path)}: {name} must be a text; write {name} = "...".')
    return {name: content.get(name, "").strip() for name in ENTRIES}


def missing(texts: Mapping[str, str]) -> list[str]:
    """Names of the entries that the author does not state."""
    return [name for name in ENTRIES if not texts[name]]


def write_template(path: Path) -> None:
    """Writes a file with every entry empty, each beneath the question that it answers."""
    entries = [f'# {title}: {question}\n{name} = ""\n' for name, (title, question) in ENTRIES.items()]
    text = 'Texts of the model card. Several lines stand between """ and """. Leave "" what you cannot state.'
    atomic_files.replace(path, lambda file: file.write("\n".join([f"# {text}\n", *entries]).encode()), "--out")
