"""Old names of modules are answered with the new ones."""

import importlib
import runpy
from pathlib import Path

import pytest

import score_sde
from score_sde.runtime import moved

PACKAGE = Path(score_sde.__file__).parent


@pytest.mark.parametrize("old", [name for name in moved.MOVED if not name.endswith("__main__")])
def test_an_old_name_is_answered_with_the_new_one(old):
    sentence = f"^score_sde.{old} is now score_sde.{moved.MOVED[old]}[.,]"
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


@pytest.mark.parametrize(("old", "mode"), moved.PROGRAMS.items())
def test_an_old_program_is_answered_with_its_mode(old, mode):
    with pytest.raises(ImportError, match=f"score_sde --mode={mode} runs it"):
        runpy.run_module(f"score_sde.{old.removesuffix('.__main__')}", run_name="__main__")


@pytest.mark.parametrize(
    "old, new",
    [
        ("sde.SDE", "score_sde.process.Process"),
        ("sampling.runge_kutta.dormand_prince", "runge_kutta, with method='dopri5'"),
        ("metrics.distances.kernel_distance", "score_sde.metrics.kernels.kernel_distance"),
    ],
)
def test_a_name_that_has_moved_from_its_module_is_answered_with_the_new_one(old, new):
    module, _, name = old.rpartition(".")
    with pytest.raises(ImportError, match=f"^score_sde.{old} is now {new}.$"):
        exec(f"from score_sde.{module} import {name}")
