"""The code of the README, of the site and of the experiments' pages runs, and what these pages name exists.

Each page is a test: its `python` blocks run in one namespace, its `sh` blocks command by command, in a folder with a
small trained run. An HTML comment directly above a block says what else applies:

    <!-- toy: --config.training.n_iters=2 -->    flags that the test appends to each `score_sde` command of the block
    <!-- hardware: 8 GPUs -->                    not run; its config, keys and flags are checked (so with `needs:`)
"""

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from score_sde.cli import modes
from score_sde.cli.command_line import arguments, config_names, parse
from score_sde.cli.main import main
from score_sde.config import KEYS, check_name
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained

ROOT = Path(__file__).parent.parent
SITE = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "adding"]
SITE = ["README.md", *SITE]  # test_contributing.py has the pages on adding
CHECKED = ["configs/README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("experiments/*/README.md"))]
DATA = ("text", "bibtex", "toml", "yaml")  # languages of blocks that are not run
FILES = {
    "csv",
    "html",
    "json",
    "jsonl",
    "md",
    "npy",
    "npz",
    "pkl",
    "png",
    "pth",
    "py",
    "safetensors",
    "tar",
    "toml",
    "txt",
    "yaml",
}

FENCE = re.compile(r"( *)(`{3,})(.*)")
MARK = re.compile(r"\s*<!--\s*(\w+):\s*(.*?)\s*-->")
OPERATORS = ("|", ">", "<", ";", "&", "$", "(", "*", "`")  # of the shell
CONFIG = "--config=vp/cifar10_ddpmpp_continuous"  # of a command line that takes its workdir's


class Block(NamedTuple):
    """A block of code: the line of the page that it begins after, its language, and the mark above it."""

    line: int
    language: str
    code: str
    mark: str = ""
    argument: str = ""

    @property
    def runs(self) -> bool:
        return self.language in ("python", "sh") and self.mark not in ("hardware", "needs")


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page, those within MyST's directives too."""
    result, directives, mark, inside, lines = [], [], ("", ""), None, []
    for number, line in enumerate(text.splitlines(), 1):
        indent, fence, info = match.groups() if (match := FENCE.fullmatch(line)) else ("", "", "")
        if inside:
            if fence == inside[1] and not info.strip():
                code = "".join(f"{each.removeprefix(inside[0])}\n" for each in lines)
                result.append(Block(inside[2], inside[3], code, *mark))
                inside, mark = None, ("", "")
            else:
                lines.append(line)
        elif fence and not info.strip() and fence in directives:
            directives.remove(fence)
        elif fence and info.strip().startswith("{"):
            directives.append(fence)
        elif fence:
            inside, lines = (indent, fence, number, info.strip()), []
        elif match := MARK.fullmatch(line):
            mark = match.groups()
        elif line.strip():
            mark = ("", "")
    return result


def commands(block: Block) -> Iterator[tuple[int, str]]:
    """(line of the page, command) of a block of shell commands, without comments."""
    start, whole = 0, ""
    for number, line in enumerate(block.code.splitlines(), block.line + 1):
        start = start if whole else number
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            words = re.sub(r"(^|\s)#.*", "", whole).strip()
            whole = ""
            if words:
                yield start, words


def program(command: str) -> list[str] | None:
    """The arguments of the package's program in a command, `mode` among them; None for another command."""
    words = shlex.split(command)
    for n, word in enumerate(words):
        module = words[n + 1] if word == "-m" and n + 1 < len(words) else ""
        if Path(word).name == "score_sde" and words[n + 1 : n + 2] and words[n + 1].startswith("-"):
            return words[n + 1 :]
        if module == "score_sde":
            return words[n + 2 :]
        if match := re.fullmatch(r"(?:score_sde\.)?experiments\.(\w+)", module):
            return ["--mode=experiment", f"--name={match[1]}", *words[n + 2 :]]
        if word.startswith("experiments/launch/"):  # each passes its arguments on
            assert (ROOT / word).exists(), f"there is no {word}"
            return [each for each in words[n + 1 :] if each.startswith("-")]
    return None


def check(command: str) -> None:
    """Raises an error that says what a command names and there is not: a mode, flag, config, key, target, extra."""
    if len(parts := command.split(" && ")) > 1:
        for part in parts:
            check(part)
        return
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:] if "=" not in word} <= {*targets}, "the Makefile has no such target"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"(?:\.|score-sde|\.whl)\[([\w,]+)\]", command):
        assert {*names.split(",")} <= {*extras}, "pyproject.toml has no such extra"
    if words[:2] == ["python", "-m"] and words[2].startswith(("experiments.", "score_sde.experiments.")):
        assert importlib.util.find_spec("score_sde." + words[2].removeprefix("score_sde.")), f"there is no {words[2]}"
    if argv := program(command):
        check_arguments([word for word in argv if not re.match(r"--(config|mode|name)=(\.\.\.|[A-Z]+$)", word)])


def check_arguments(argv: list[str]) -> None:
    """Raises an error for a mode, flag, config or key that does not exist."""
    written = dict(arguments(["score_sde", *argv]))
    for key in [name.removeprefix("config.") for name in written if name.startswith("config.")]:
        if key not in KEYS:
            check_name(key)
        assert key in KEYS or any(":" in (value or "") for value in written.values()), f"there is no key {key}"
    if (name := written.get("config")) and not name.partition(":")[0].endswith(".py"):
        assert name.removeprefix("configs/") in config_names(), f"there is no config {name}"
    if written.get("mode") == "experiment":
        return check_experiment(written)
    if "mode" not in written:
        return None
    modes.mode_of(written["mode"])
    modes.check_flags(written["mode"], {flag: value for flag, value in written.items() if flag != "mode"})
    kept = [word for word in argv if not re.match(r"--(no)?config\b", word)]
    parse(["score_sde", *kept, CONFIG], functools.partial(modes.define, written["mode"]))
    return None


def check_experiment(written: dict) -> None:
    """Raises an error for an experiment that does not exist, or a flag that it does not take."""
    if "name" not in written:
        return
    assert (ROOT / "experiments" / written["name"] / "__main__.py").exists(), f"no experiment {written['name']}"
    source = (ROOT / "experiments" / written["name"] / "__main__.py").read_text()
    if "add_launcher(" in source:
        source += (ROOT / "experiments" / "sweep" / "flags.py").read_text()
    calls = re.findall(r"add_argument\(([^)]*)", source)  # importing all of them takes seconds
    flags = {flag for call in calls for flag in re.findall(r'"--([\w-]+)"', call)} | {"mode", "name"}
    unknown = {flag for flag in written if flag not in flags and not flag.startswith("config.")}
    assert not unknown, f"the experiment {written['name']} takes no {unknown}"


def keys(text: str) -> set[str]:
    """Keys of a config that a page names in backticks: `optim.lr`, `--config.optim.lr=1e-3`, `sampling.clip=none`."""
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    names = re.findall(r"`(?:--)?(?:config\.)?([a-z]+\.[a-zA-Z_]\w*)(?:=[^`]*)?`", text)
    return {name for name in names if name.split(".")[0] in sections and name.split(".")[1] not in FILES}


def is_name(key: str) -> bool:
    """Whether a key exists, or once did, or is an attribute of a loaded model or of a module of the package."""
    section, name = key.split(".")
    with contextlib.suppress(UsageError):
        check_name(key)
        if section == "model" and hasattr(Pretrained, name):
            return True
        with contextlib.suppress(ImportError):
            return key in KEYS or hasattr(importlib.import_module(f"score_sde.{section}"), name)
        return key in KEYS
    return True  # `check_name` says where it is now


@pytest.mark.parametrize("page", SITE + CHECKED)
def test_what_a_page_names_exists_and_each_block_is_run_or_marked(page):
    text = (ROOT / page).read_text()
    for block in blocks(text):
        where = f"{page}:{block.line}"
        assert block.language in ("python", "sh", *DATA), f"{where}: language {block.language!r}"
        assert block.mark in ("", "toy", "hardware", "needs"), f"{where}: the mark {block.mark} is none"
        if block.language == "python":
            compile("\n" * block.line + block.code, page, "exec")
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.code))
        for line, command in commands(block) if block.language == "sh" else ():
            try:
                check(command)
            except (AssertionError, UsageError) as error:
                raise AssertionError(f"{page}:{line}: {command}: {error}") from None
    prose = re.sub(r"^( *)(`{3,}).*?^\1\2$", "", text, flags=re.M | re.S)
    for command in re.findall(r"`((?:score_sde -|python -m (?:score_sde|experiments)|make )[^`]*)`", prose):
        try:
            check(" ".join(command.split()))
        except (AssertionError, UsageError) as error:
            raise AssertionError(f"{page}: `{command}`: {error}") from None
    assert {key for key in keys(prose) if not is_name(key)} == set(), f"{page} names keys that there are not"


def test_the_links_of_the_readme_resolve():
    targets = re.findall(r"(?:\]\(|(?:src|href|srcset)=\")([^)#\s\"]+)", (ROOT / "README.md").read_text())
    assert [target for target in targets if "//" not in target and not (ROOT / target).exists()] == []


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
    assert {"make demo", "make test", "make test-long"} <= {
        command for block in blocks((ROOT / "README.md").read_text()) for _, command in commands(block)
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("score_sde --mode=trian --workdir=x", "did you mean 'train'"),
        ("score_sde --mode=train --workdir=x --config=vp/digit", "there is no config vp/digit"),
        ("score_sde --mode=train --workdir=x --config.optim.rate=3", "there is no key optim.rate"),
        ("score_sde --mode=train --workdir=x --config.model.ema_rate=3", "now config.optim.ema_rate"),
        ("score_sde --mode=train", "--workdir=DIR is missing"),
        ("score_sde --mode=train --workdir=x --out=y", "--out is for"),
        ("python -m score_sde --mode=train --workdir=x --owt=y", "owt"),
        ("score_sde --mode=experiment --name=digit", "no experiment digit"),
        ("score_sde --mode=experiment --name=digits --kills=3", "takes no {'kills'}"),
        ("srun --nodes=2 score_sde --mode=train --workdir=... --config.data.where=x", "there is no key data.where"),
        ("sbatch experiments/launch/slurm.sh --mode=train", "there is no experiments/launch/slurm.sh"),
        ("python -m experiments.nothing --fast", "there is no experiments.nothing"),
        ("make coffee", "no such target"),
        ('pip install -e ".[gpus]"', "no such extra"),
    ],
)
def test_what_a_command_names_and_there_is_not_is_an_error(command, words):
    with pytest.raises((AssertionError, UsageError), match=re.escape(words)):
        check(command)


def test_blocks_have_their_line_language_and_mark():
    text = """A page.
```python
x = 1
```
<!-- toy: --config.seed=3 -->
```sh
score_sde --mode=sample \\
  --workdir=x  # a comment
make demo
```
````{note}
<!-- needs: a network -->
```sh
pip install x
```
````
- item
  ```text
  drawing
  ```
"""
    python, sh, needs, drawing = blocks(text)
    assert python == Block(2, "python", "x = 1\n")
    assert (sh.mark, sh.argument, sh.runs) == ("toy", "--config.seed=3", True)
    assert list(commands(sh)) == [(7, "score_sde --mode=sample   --workdir=x"), (9, "make demo")]
    assert (needs.line, needs.mark, needs.runs) == (13, "needs", False)
    assert drawing == Block(18, "text", "drawing\n")


def test_keys_are_looked_up_and_methods_and_files_are_not_taken_for_them():
    text = "`optim.lr`, `--config.data.where=x`, `model.sample`, `metrics.jsonl`, `model.ema_rate`, `sampling.solve`"
    assert {key for key in keys(text) if not is_name(key)} == {"data.where"}


# What follows runs pages.

TINY = "model.nf=8 model.attn_resolutions=(4,) model.ch_mult=(1,) sde.num_scales=30 training.batch_size=16 "
TINY += "training.n_iters=4 training.snapshot_freq=2 training.log_freq=1 training.eval_freq=2 eval.batch_size=64 "
TINY += "eval.num_samples=16 eval.rtol=1e-2 eval.atol=1e-2 sampling.num_samples=8 sampling.rtol=1e-2 "
TINY += "sampling.atol=1e-2 metrics.n_iters=2 dequantizer.n_iters=2 dequantizer.log_freq=1 "
TINY_CLASSIFIER = "model.channel_multiplier=1 " + " ".join(each for each in TINY.split() if "model." not in each)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with a trained run, its classifier, and pictures; pages have a copy each."""
    folder, rng = tmp_path_factory.mktemp("documents"), np.random.default_rng(0)
    for name in [f"photos/{n}.png" for n in range(20)] + [
        f"pets/{pet}/{n}.png" for pet in ("cat", "dog") for n in (1, 2, 3)
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name)
    train = ["score_sde", "--mode=train", f"--config.data.data_dir={folder / 'data'}"]
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        digits, classifier = f"--workdir={folder / 'runs/digits'}", f"--workdir={folder / 'runs/digits/classifier'}"
        for name, workdir, values in (("ddpmpp_continuous", digits, TINY), ("wideresnet", classifier, TINY_CLASSIFIER)):
            flags = [f"--config.{value}" for value in values.split()]
            assert main([*train, f"--config=vp/digits_{name}", workdir, *flags]) == 0, errors.getvalue()
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch) -> Path:
    """This page's copy of the folder, in which it runs, with the command on the PATH."""
    copy = shutil.copytree(prepared, tmp_path / "page")
    example = Path("experiments/sweep/example.py")
    (copy / example).parent.mkdir(parents=True)
    shutil.copy(ROOT / example, copy / example)  # as in a clone
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("python", ""), ("score_sde", "-m score_sde")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared / "data"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds this folder
    before = {*sys.modules}
    yield copy
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(copy)):
            del sys.modules[name]


def run_python(page: str, block: Block, namespace: dict) -> None:
    """Runs a block of Python; an error names the line of the page."""
    try:
        exec(compile("\n" * block.line + block.code, page, "exec"), namespace)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == page), block.line)
        raise AssertionError(f"{page}:{line}: {type(error).__name__}: {error}") from error


def run_command(command: str, monkeypatch) -> tuple[int, str]:
    """Runs a command, in this process where it is the package's; returns its status and what it wrote to stderr."""
    words = shlex.split(command)
    if words[0] == "export":
        for word in words[1:]:
            monkeypatch.setenv(*word.split("=", 1))
        return 0, ""
    if words[0] == "cd":
        monkeypatch.chdir(words[1])
        return 0, ""
    if words[0] == "make":  # its target exists
        return 0, ""
    alone = words[0] == "score_sde" or words[:2] == ["python", "-m"]
    argv = program(command) if alone and not any(operator in command for operator in OPERATORS) else None
    if argv is None:
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        return ended.returncode, ended.stderr
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            status = main(["score_sde", *argv])
        except SystemExit as ended:
            status = ended.code
    return status, errors.getvalue()


@pytest.mark.parametrize(
    "page", [page for page in SITE + CHECKED if any(block.runs for block in blocks((ROOT / page).read_text()))]
)
def test_the_code_of_a_page_runs(page, folder, monkeypatch):
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where pickle and dataclasses look for it
    for block in blocks((ROOT / page).read_text()):
        if not block.runs:
            continue
        if block.language == "python":
            run_python(page, block, module.__dict__)
            continue
        toy = block.argument if block.mark == "toy" else ""
        for line, command in commands(block):
            whole = f"{command} {toy}" if program(command) is not None else command
            status, errors = run_command(whole, monkeypatch)
            assert status == 0, f"{page}:{line}: status {status} of `{whole}`: {errors[-2000:]}"


def test_a_mistake_in_a_page_names_its_line(monkeypatch):
    with pytest.raises(AssertionError, match=re.escape("docs/page.md:12: ZeroDivisionError")):
        run_python("docs/page.md", Block(10, "python", "x = 0\n1 / x\n"), {})
    status, errors = run_command("score_sde --mode=sample --workdir=nothing", monkeypatch)
    assert status == 2 and "nothing" in errors
