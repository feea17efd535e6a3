"""The pages for users of other libraries: whatever they say stands here is here."""

import re
from pathlib import Path

import pytest

from score_sde import sampling, sde
from score_sde.cli.modes import FLAGS, MODES
from score_sde.config import KEYS
from score_sde.config.table import MOVED, REMOVED, SECTIONS
from score_sde.inference.pretrained import Pretrained
from score_sde.paths import PROCESSES
from score_sde.process import Process

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [*sorted((DOCS / "coming_from").glob("*.md")), DOCS / "faq.md"]
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

KEY = re.compile(rf"\b((?:{'|'.join(filter(None, SECTIONS))})\.[A-Za-z_]\w*)(?![\w(.])")


def ours(text: str) -> list[str]:
    """The spans of code on a page, without its blocks and without the first cells of tables, which are the others'."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    cells = re.sub(r"^\|(?:[^|\\]|\\.)*\|", "|", text, flags=re.M)
    return re.findall(r"`([^`\n]+)`", cells)


def unknown_keys(text: str) -> set[str]:
    """Keys of a page that no config has; names of a model's or a process's own members are none."""
    words = {word for span in ours(text) for word in KEY.findall(span)}
    classes = {"model": Pretrained, "process": Process, "sde": Process}
    members = {word for word in words if hasattr(classes.get(word.split(".")[0]), word.split(".")[1])}
    return words - members - set(KEYS) - {"metrics.jsonl"}


@each
def test_a_key_that_a_page_names_exists(page):
    assert unknown_keys(page.read_text()) == set()


def test_a_key_that_is_gone_is_reported_and_one_of_another_library_is_not():
    text = "| `model.ema_rate` | `optim.ema_rate`, `model.sample`, `sampling.gone=1` |"
    assert unknown_keys(text) == {"sampling.gone"}


@each
def test_the_flags_and_modes_that_a_page_names_exist(page):
    spans = ours(page.read_text())
    assert {mode for span in spans for mode in re.findall(r"--mode=(\w+)", span)} <= {*MODES, "MODE"}
    flags = {flag for span in spans if "score_sde --" in span for flag in re.findall(r" --(\w+)[=\s]", span)}
    assert flags <= {*FLAGS, "mode", "config"}


def test_the_page_on_score_sde_names_every_key_that_moved():
    page = (DOCS / "coming_from" / "score_sde.md").read_text()
    misspelt = {"training.continuouse", "training.loss", "device"}  # of single files of the paper, and of PyTorch
    assert [key for key in (*MOVED, *REMOVED) if f"`{key}" not in page and key not in misspelt] == []


def test_every_scheduler_has_a_method_of_ours():
    text = (DOCS / "coming_from" / "diffusers.md").read_text()
    rows = re.findall(r"^\| `[\w`, ]*Scheduler`[^|]*\| ([^|]*) \|", text, re.M)
    methods = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(rows) > 12
    assert methods <= {*sampling.SAMPLERS, *sampling.PREDICTORS, *sampling.CORRECTORS, *PROCESSES}


def test_the_table_of_evaluations_is_right():
    text = (DOCS / "coming_from" / "diffusers.md").read_text()
    rows = re.findall(r"^\| ((?:`[\w*]+`,? ?)+) \| (\d?)n \+ 1 \|$", text, re.M)
    assert len(rows) == 3
    process = sde.VP()
    for names, factor in rows:
        for name in re.findall(r"`([\w*]+)`", names):
            for solver in [each for each in sampling.FAST_SOLVERS if re.fullmatch(name.replace("*", ".*"), each)]:
                planned = sampling.fast_solver(process, lambda x, t: None, name=solver, num_steps=9).nfe
                assert planned == int(factor or 1) * 9 + 1, solver
