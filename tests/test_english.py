"""English: the first line of a docstring has a subject, and the examples run."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from score_sde.conditioning import Average

ROOT = Path(__file__).parent.parent
FILES = [*sorted((ROOT / "score_sde").rglob("*.py")), ROOT / "configs" / "presets.py"]
EXPERIMENTS = [path for path in sorted((ROOT / "experiments").rglob("*.py")) if path.name != "__main__.py"]

PREPOSITIONS = (
    "Above|After|Against|Along|Among|As|At|Before|Below|Beside|Besides|Between|Beyond|By|For|From|In|Inside|Into|Like|Of|On|"
    "Outside|Over|Since|Through|To|Towards|Under|Until|Up|Upon|With|Within|Without"
)
PRONOUNS = "It|Its|That|Their|These|They|This|Those|What|Whatever|Where|When|Which|While|Who|Whose|Why"
NO_SUBJECT = re.compile(
    rf"({PREPOSITIONS}|{PRONOUNS}|And|Are|Because|Has|Have|If|Is|Or|See|Unless|Was)\b"
    r"|(None|True|False|\d+) ?(:|,|\.$|\b(as|at|before|by|for|from|if|in|on|to|when|where|without)\b)"
    r"|(All|Any|Both|Each|Many|One|Some) (are|by|for|in|is|of|that|to)\b"
    r"|\w+(ed|ept|wn|ade) (again|and|as|at|by|in|inside|of|once|only|to|without)\b"  # Loaded once.
    r"|[a-z_]+(, [a-z_]+)*: "  # an argument, as if it stood below in a list of them
)


def docstrings(source: str) -> Iterator[tuple[str, bool, str]]:
    """(name, whether "Whether" may begin it, text) of every docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            returns = ast.unparse(node.returns or ast.Constant(None)) if isinstance(node, ast.FunctionDef) else ""
            yield getattr(node, "name", ""), "bool" in returns, text


def without_subject(source: str) -> list[str]:
    return [
        f"{name}: {text.splitlines()[0]}"
        for name, is_boolean, text in docstrings(source)
        if NO_SUBJECT.match(text)
        or (text.startswith("Whether") and not is_boolean)
        or (text.startswith("How") and name)
    ]


@pytest.mark.parametrize("path", FILES + EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_of_a_docstring_has_a_subject(path):
    assert without_subject(path.read_text()) == []


NAMELESS = {"found", "given", "known", "told"}  # a name says what it holds


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_says_what_it_holds(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not NAMELESS & {name.strip("_").lower() for name in names}


FRAGMENTS = "Of every pixel.|What a host frees.|0 without labels.|None: nothing is saved.|All are read.|One for each."
FRAGMENTS += "|Loaded once.|flag: the option.|Whether it is there.|How it is done.|Has none to close.|See `main`."


@pytest.mark.parametrize("line", FRAGMENTS.split("|"))
def test_a_first_line_without_a_subject_is_found(line):
    assert without_subject(f'def f() -> int:\n    """{line}"""')
    assert without_subject(f'def f() -> int:\n    """Summary.\n\n    {line}"""') == []


@pytest.mark.parametrize("line", ["Whether it is there.", "The pixels.", "32 digits of a digest.", "One key for each."])
def test_a_first_line_with_a_subject_is_not(line):
    assert without_subject(f'def f() -> bool:\n    """{line}"""') == []


def indented(text: str) -> list[str]:
    blocks = re.findall(r"(?:^    .*\n|^\n)+", text + "\n", re.M)
    return [textwrap.dedent(block) for block in blocks if block.strip()]


def examples(text: str) -> list[str]:
    """The blocks of a docstring that begin with their imports; one that is all of its body has lost its indentation."""
    blocks = [block.strip("\n") for block in (*indented(text), text.partition("\n\n")[2])]
    return [code for code in blocks if re.match(r"import \w|from \S+ import ", code)]


EXAMPLES = {
    f"{path.relative_to(ROOT / 'score_sde').with_suffix('')}:{name}": "\n".join(codes)
    for path in FILES
    if path.stem not in ("__init__", "protocols", "presets")  # those of protocols are followed in test_extending
    for name, _, text in docstrings(path.read_text())
    if (codes := examples(text))
}


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - {"inference/pretrained:Pretrained"}))
def test_an_example_of_a_docstring_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[name], {"__name__": "example"})


def test_the_examples_of_a_model_run_with_the_one_of_its_class():
    model = {"__name__": "example", "np": np, "Average": Average}
    exec(EXAMPLES["inference/pretrained:Pretrained"], model)
    for module in ("pretrained", "likelihoods", "latents"):
        for name, _, text in docstrings((ROOT / "score_sde" / "inference" / f"{module}.py").read_text()):
            for code in indented(text) if name != "Pretrained" else ():
                exec(code, model)
    assert model["s"].shape == model["x0"].shape == model["z"].shape == (2, 8, 8, 1)
    assert model["eps"].shape == model["decoded"].shape == (2, 8, 8, 1) and model["path"].shape == (3, 2, 8, 8, 1)
    assert model["bits"].shape == model["above"].shape == (2,)


def test_the_public_functions_have_examples():
    named = {name.split(":")[1] for name in EXAMPLES}
    public = """Process from_score model Objective Oracle Gaussian Mixture Empirical bits_per_dim likelihood_bound
        uniform truncated_normal variational solve time_grid adaptive fast_solver predictor_corrector probability_flow
        clipped Pretrained PretrainedClassifier Operator extrapolation classifier_guidance dps pigdm tmpd projection
        particles load InMemory"""
    assert set(public.split()) <= named


TABLES = "ema paths sde times weights sampling/predictors sampling/correctors likelihood/ode"


@pytest.mark.parametrize("name", TABLES.split())
def test_the_module_of_a_table_shows_how_a_row_is_used(name):
    assert f"{name}:" in EXAMPLES
