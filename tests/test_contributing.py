"""CONTRIBUTING and the pages on adding things: what they name exists, and their examples add what they say."""

import ast
import functools
import importlib
import re
import sys
from pathlib import Path

import pytest

from score_sde.config import KEYS
from score_sde.training.pieces import KINDS

ROOT = Path(__file__).parent.parent
INDEX = ROOT / "docs" / "adding" / "README.md"
PAGES = sorted(path for path in INDEX.parent.glob("*.md") if path != INDEX)
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCUMENTS = [CONTRIBUTING, ROOT / "docs" / "architecture.md", INDEX, *PAGES]
ONE_SCREEN, ONE_EXAMPLE = 55, 20  # lines

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
DOTTED = re.compile(r"(?<![\w./=-])[A-Za-z_]+(?:/[A-Za-z_]+)*(?:\.[A-Za-z_]\w*)+(?![\w/])")
each = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)


def blocks(path: Path, language: str) -> list[str]:
    return [code for found, code in FENCED.findall(path.read_text()) if found == language]


def named(text: str) -> set[str]:
    """Paths, tests, modules and what is in them, that a document names: in backticks, or in a drawing."""
    drawings = "".join(code for language, code in FENCED.findall(text) if language in ("", "text"))
    words = re.findall(r"`([^`\s]+)`", FENCED.sub("", text))
    return set(DOTTED.findall(drawings)) | {word for word in words if re.fullmatch(r"[\w/]+[./][\w./]*(::\w+)?", word)}


@functools.cache
def exists(name: str) -> bool:
    """Whether a name is a path, a test, a key of the config, or something in the package."""
    path, _, test = name.partition("::")
    if test:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        return test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    places = (ROOT, ROOT / "score_sde", ROOT / "tests", INDEX.parent)
    return name in KEYS or any((place / path).exists() for place in places) or found(name) is not None


def found(name: str):
    """The object of a dotted name, `room/module.Class.member`, with or without `score_sde.` before it."""
    parts = name.removeprefix("score_sde.").replace("/", ".").split(".")
    for n in range(len(parts), -1, -1):
        try:
            value = importlib.import_module(".".join(["score_sde", *parts[:n]]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            value = getattr(value, part, None)
        return value
    return None


def rows() -> list[list[str]]:
    """The cells of the index."""
    lines = [line for line in INDEX.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def dictionaries(page: Path) -> list[dict]:
    """The dictionaries to which the example of a page adds a row."""
    cells = [(file.strip("`"), names) for link, file, names, _ in rows() if f"({page.name})" in link]
    modules = [(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."), names) for file, names in cells]
    return [
        getattr(importlib.import_module(module), name)
        for module, names in modules
        for name in re.findall(r"`(\w+)`", names)
    ]


@each
def test_what_a_document_names_exists(path):
    assert {name for name in named(path.read_text()) if not exists(name)} == set()


def test_a_name_that_is_gone_is_found():
    text = "See `process.Gone`, `sampling/solver.Solver.step`, `test_sde.py::test_no`, `a/b.md` and `model.name`."
    text += "\n```\ntraining/loop.fit -> training/loop.unfit, x in (0.5, 1]\n```\n"
    gone = {"process.Gone", "test_sde.py::test_no", "a/b.md", "training/loop.unfit"}
    assert {name for name in named(text) if not exists(name)} == gone


@each
def test_the_links_of_a_document_resolve(path):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCED.sub("", path.read_text()))
    assert [target for target in targets if "//" not in target and not (path.parent / target).exists()] == []


def test_the_index_names_every_page_and_every_dictionary_of_pieces():
    assert {name for link, *_ in rows() for name in re.findall(r"\((\w+\.md)\)", link)} == {p.name for p in PAGES}
    listed = [table for page in PAGES for table in dictionaries(page)]
    for key, kind in KINDS.items():
        first = getattr(kind.choices, "maps", [kind.choices])[0]
        assert any(first is table for table in listed) or not first or key == "sde.name", key


def test_contributing_is_one_screen():
    assert len(CONTRIBUTING.read_text().splitlines()) <= ONE_SCREEN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_its_examples_add_a_row_and_prove_it(page, tmp_path, monkeypatch):
    assert len(page.read_text().splitlines()) <= ONE_SCREEN
    codes, tables = blocks(page, "python"), dictionaries(page)
    assert codes and max(len(code.splitlines()) for code in codes) <= ONE_EXAMPLE
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds this folder
    changed = [*tables, KEYS]  # every key by its whole name, which the page on keys brings up to date
    before = [dict(table) for table in changed]
    try:
        example = {"__name__": "example"}
        for code in codes:
            exec(code, example)
        assert all(set(table) > set(old) for table, old in zip(tables, before, strict=False))
    finally:
        for table, old in zip(changed, before, strict=True):
            table.clear()
            table.update(old)
