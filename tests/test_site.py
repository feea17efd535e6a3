"""The documentation site: every public name is in its reference, and it builds without a warning and loads nothing."""

import ast
import html.parser
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from urllib.parse import unquote, urlsplit

import modes_page
import plain_docstrings
import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference" / "api"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "score_sde").rglob("*.py"))
    if path.name != "__main__.py"
}
OF_SPHINX = {"search.html", "py-modindex.html", "_modules/index.html"}  # the first is reached by its field


# Docstrings, which are plain text, as Markdown.


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("Factor on x_0, a * b <= |z|.", r"Factor on x\_0, a \* b \<= \|z\|."),
        ("The `x_t` of eq. (1).", "The `x_t` of eq. (1)."),
        ("Text.\n\n    import jax\n\n    x = 1\n\nMore.", "Text.\n\n```python\nimport jax\n\nx = 1\n```\n\nMore."),
        ("Text,\n\n    x_t  =  alpha x_0     (1)\n\n.", "Text,\n\n```text\nx_t  =  alpha x_0     (1)\n```\n\n."),
        ("| a   | b  |\n|-----|----|\n| `c` | d_ |", "| a | b |\n| ----- | ---- |\n| `c` | d\\_ |"),
        ("keys      one key\ntable     all of it", "```text\nkeys      one key\ntable     all of it\n```"),
        ("- one\n  more\n- two", "- one more\n- two"),
        (
            "A.\n\nArgs:\n    x: One,\n        or two.\n    z: It.",
            "A.\n\n**Args**\n\n- **`x`**: One, or two.\n- **`z`**: It.",
        ),
        ("x, y: images. z: a time.\nw: no argument.", "**`x`**, **`y`**: images. **`z`**: a time.\nw: no argument."),
        ("One\n+ two", "One\n\\+ two"),
        ("Summary.\n\n    import jax\n    x = 1", "Summary.\n\n```python\nimport jax\nx = 1\n```"),
    ],
)
def test_a_docstring_becomes_markdown(text, markdown):
    assert plain_docstrings.markdown(text, {"x", "y", "z"}) == markdown


def test_a_name_in_backticks_is_linked_where_there_is_a_link():
    link = {"VP": "[VP](#vp)"}.get
    assert plain_docstrings.markdown("A `VP`, an `x`.", (), link) == "A [VP](#vp), an `x`."


# Every public name has its place, and a docstring.


def public(path: Path) -> dict[str, ast.stmt]:
    """The public names that a module defines, and their statements."""
    names = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name: node for name, node in names.items() if not name.startswith("_")}


def test_every_module_is_on_a_page_of_the_reference():
    named = re.findall(r"^```\{api\} (\S+)$", "".join(page.read_text() for page in PAGES.glob("*.md")), re.M)
    assert sorted(named) == sorted([*MODULES, "score_sde.configs.presets"])


def test_every_page_of_the_reference_is_in_its_index():
    index = (PAGES.parent / "index.md").read_text()
    assert re.findall(r"^api/(\w+)$", index, re.M) != [] and {page.stem for page in PAGES.glob("*.md")} == set(
        re.findall(r"^api/(\w+)$", index, re.M)
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_a_docstring_of_its_own(name):
    nodes = public(MODULES[name])
    written = [each for each, node in nodes.items() if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [each for each in written if not ast.get_docstring(nodes[each])] == []
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


def test_the_page_of_modes_is_what_the_table_says():
    text = (ROOT / "docs" / "reference" / "modes.md").read_text(encoding="utf-8")
    assert text == modes_page.page(), "python docs/modes_page.py > docs/reference/modes.md"


# The site as it is built.


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as by `make docs`, with warnings as errors."""
    if not importlib.util.find_spec("furo"):
        pytest.skip("the site needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    options = re.search(r"sphinx-build (.+?) -d", (ROOT / "Makefile").read_text())[1].split()
    command = [sys.executable, "-m", "sphinx", *options]
    variables = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command += ["-d", str(folder / "doctrees"), str(ROOT), str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder / "html"


class Page(html.parser.HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.loaded, self.links, self.ids = path, [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = {name: value or "" for name, value in attrs}
        self.ids |= {attrs[name] for name in ("id", "name") if name in attrs}
        self.loaded += [attrs[name] for name in ("src", "srcset", "data") if name in attrs and tag != "a"]
        if tag == "link" and attrs.get("rel") not in ("canonical", "next", "prev", "index", "search", "genindex"):
            self.loaded.append(attrs["href"])
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path.resolve(): Page(path) for path in site.rglob("*.html")}


def test_no_page_loads_anything_from_a_network(site, pages):
    remote = re.compile(r"^\s*(https?:)?//")
    assert len(pages) > 50
    assert {(page.path.name, url) for page in pages.values() for url in page.loaded if remote.match(url)} == set()
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^)]*", sheet.read_text()) == [], sheet


def test_every_page_is_reached_from_the_first_and_no_link_within_the_site_is_broken(site, pages):
    first = (site / "index.html").resolve()
    reached, queue = {first}, [first]
    while queue:
        page = pages[queue.pop()]
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (page.path.parent / unquote(url.path)).resolve() if url.path else page.path.resolve()
            assert target.exists(), f"{page.path.name}: {link}"
            if target in pages:
                assert not url.fragment or unquote(url.fragment) in pages[target].ids, f"{page.path.name}: {link}"
                if target not in reached:
                    reached.add(target)
                    queue.append(target)
    assert {str(path.relative_to(first.parent)) for path in pages.keys() - reached} <= OF_SPHINX


def test_every_public_name_of_the_package_is_in_the_reference(site):
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", os.path.join)
    names = {name for kind, objects in inventory.items() if kind.startswith("py:") for name in objects}
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        own = {
            each
            for each, value in vars(module).items()
            if isinstance(value, types.FunctionType | type) and value.__module__ == name and not each.startswith("_")
        }
        missing += [f"{name}.{each}" for each in {*public(MODULES[name]), *own} if f"{name}.{each}" not in names]
    assert missing == []
