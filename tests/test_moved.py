"""Old names of modules are answered with the new ones."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

import score_sde
from score_sde.runtime import moved

PACKAGE = Path(score_sde.__file__).parent
MODULES = [name for name in moved.MOVED if name not in moved.PROGRAMS]


@pytest.mark.parametrize("old", MODULES)
def test_an_old_name_is_answered_with_the_new_one(old):
    sentence = f"^score_sde.{old} is now score_sde.{moved.MOVED[old]}.$"
    with pytest.raises(ImportError, match=sentence):
        importlib.import_module(f"score_sde.{old}")
    parent, _, name = f"score_sde.{old}".rpartition(".")
    if old != "train":  # the function
        with pytest.raises(ImportError, match=sentence):
            exec(f"from {parent} import {name}")


@pytest.mark.parametrize("new", sorted(set(moved.MOVED.values())))
def test_a_new_name_is_there(new):
    module, _, name = f"score_sde.{new}".rpartition(".")
    assert (
        hasattr(importlib.import_module(module), name)
        if name[0].isupper()
        else importlib.import_module(f"{module}.{name}")
    )


def test_no_old_name_hides_a_module():
    assert not [old for old in moved.MOVED if PACKAGE.joinpath(*old.split(".")).with_suffix(".py").exists()]


def test_a_name_that_never_was_is_no_module():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'score_sde\.nothing'"):
        importlib.import_module("score_sde.nothing")
    assert not hasattr(score_sde, "nothing")


@pytest.mark.parametrize("name", moved.PROGRAMS)
def test_a_program_runs_by_its_old_name(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module(f"score_sde.{name}", run_name="__main__", alter_sys=True)
    assert f"python -m score_sde.{name}" in "".join(capsys.readouterr())
