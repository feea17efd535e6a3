"""The notebooks: what they print is asserted, each is listed, and each runs without a warning."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))

SILENT = ("print(", "np.testing.", "plt.rcParams.update(", "panel.minorticks_off(", "panel.set_axis_off(")
SILENT += ("score_sde.configure(",)  # calls that return None

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(source: str) -> list[tuple[str, str]]:
    """(kind, text) of each cell of a script in the percent format, without its header; text of markdown is unquoted."""
    _, *parts = re.split(r"^# %%(.*)\n", source, flags=re.M)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [
        ("markdown", re.sub(r"^# ?", "", text, flags=re.M)) if "[markdown]" in title else ("code", text)
        for title, text in pairs
    ]


def problems(code: str) -> list[str]:
    """Faults of a code cell: it asserts nothing of what it prints, or ends in a value, which a notebook shows."""
    tree = ast.parse(code)
    nodes = list(ast.walk(tree))
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    asserts = any(isinstance(node, ast.Assert) for node in nodes) or any(".assert_" in call for call in calls)
    end = tree.body[-1]
    shows = isinstance(end, ast.Expr) and not ast.unparse(end).startswith(SILENT)
    return ["prints, and asserts nothing"] * ("print" in calls and not asserts) + ["ends in a value"] * shows


@each_notebook
def test_a_notebook_asserts_what_it_prints_and_ends_with_what_to_try(path):
    source = path.read_text()
    assert 80 <= len(re.findall(r"\S.*", source.partition("# %%")[2])) <= 200
    assert source.startswith("# ---\n# jupyter:\n") and "display_name: Python 3" in source.partition("# %%")[0]
    (kind, title), *_, (last, what_to_try) = cells(source)
    assert kind == last == "markdown" and title.startswith("# ")
    assert len(re.findall(r"^- ", what_to_try.partition("## What to try\n")[2], re.M)) >= 3
    code = [text for kind, text in cells(source) if kind == "code"]
    assert [problem for text in code for problem in problems(text)] == []
    assert any("print(" in text for text in code)


@each_notebook
def test_every_picture_has_an_alternative_text(path):
    cells_with_titles = re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", path.read_text(), flags=re.M)
    drawing = [title for title, text in cells_with_titles if "plt.subplots(" in text]
    assert drawing and all(re.search(r'mystnb={"image": {"alt": "\w.{10,}"}}', title) for title in drawing)


@each_notebook
def test_a_notebook_is_listed_with_a_sentence(path):
    index = (FOLDER / "index.md").read_text()
    title = cells(path.read_text())[0][1].splitlines()[0].removeprefix("# ")
    assert f"- [{title}]({path.name}): " in index
    assert path.stem in re.search(r"```\{toctree\}(.*?)```", index, re.S)[1].split()


def test_the_index_lists_no_other():
    listed = re.search(r"```\{toctree\}\n:hidden:\n(.*?)```", (FOLDER / "index.md").read_text(), re.S)[1].split()
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize(
    ("code", "complaints"),
    [
        ("print(1)\n", ["prints, and asserts nothing"]),
        ("print(1)\nassert True\n", []),
        ("print(1)\nnp.testing.assert_allclose(1, 1)\n", []),
        ("panel.legend()\n", ["ends in a value"]),
        ("_ = panel.legend()\n", []),
    ],
)
def test_a_cell_that_lacks_an_assertion_is_noticed(code, complaints):
    assert problems(code) == complaints


RUN = """
import runpy, sys
import matplotlib.pyplot as plt
runpy.run_path(sys.argv[1], run_name="__main__")
assert plt.get_fignums()
for number in plt.get_fignums():
    axes = plt.figure(number).axes
    assert all(each.get_title() or each.get_xlabel() for each in axes), f"figure {number} says nothing"
"""


@each_notebook
def test_a_notebook_runs_without_a_warning_and_draws(path, tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", RUN, str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
