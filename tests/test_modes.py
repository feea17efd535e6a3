"""The modes of the command line: each is found, says what it takes, and refuses what others take."""

import functools
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.cli import modes
from score_sde.cli.command_line import arguments, config_names, parse
from score_sde.cli.main import main
from score_sde.runtime import clone
from score_sde.runtime.preemption import UNREAD, exit_status

ROOT = Path(__file__).parent.parent

EXAMPLES = [(name, example) for name, mode in modes.MODES.items() for example in mode.examples]
EXPERIMENTS = sorted(path.parent.name for path in clone.folder("experiments").glob("*/__main__.py"))


@pytest.mark.parametrize("name", modes.MODES)
def test_a_mode_shows_its_flags_and_two_examples(name, capsys):
    assert main(["score_sde", f"--mode={name}", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"score_sde --mode={name} [flags]\n\n{modes.MODES[name].text[:60]}")
    assert all(f"--{flag}=" in text for flag in modes.flags_of(name))
    assert text.count(f"  score_sde --mode={name} ") == len(set(modes.MODES[name].examples)) == 2
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_of_a_mode_is_a_command_line_that_it_takes(name, example):
    words = ["score_sde", *shlex.split(example)]
    given = dict(arguments(words))
    assert given["mode"] == name
    if name == "experiment":
        return
    modes.check_flags(name, given)
    if "config" not in given:  # it stands in the workdir
        words.append("--config=vp/cifar10_ddpmpp_continuous")
    parse(words, functools.partial(modes.define, name))


@pytest.mark.parametrize("name", [name for name in modes.MODES if name != "experiment"])
def test_a_mode_has_its_function(name):
    module, _, function = modes.MODES[name].run.partition(":")
    assert callable(getattr(importlib.import_module(f"score_sde.cli.{module}"), function))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--mode=train --out=x", "--out is for --mode=eval, sample, pairs, statistics, data, card; --mode=train takes"),
        (
            "--mode=eval --explain=sde",
            "--explain is for --mode=describe; --mode=eval takes --workdir, --eval_folder",
        ),
        ("--mode=eval --allow_change=data", "--allow_change is for --mode=train; "),
        (
            "--mode=data --coordinator=a:1",
            "--coordinator is for --mode=train, eval, sample, describe, ",
        ),
        ("--mode=import --workdir=x --config=vp/digits_ddpmpp_continuous", "--from=FILE is missing"),
        ("--mode=sample", "--workdir=DIR is missing"),
        ("--mode=sampel", "did you mean 'sample'"),
        ("--mode=experiment --name=digit", "did you mean 'digits'"),
        ("--mode=train --workdir=x --config=vp/digits_ddpmp_continuous", "did you mean 'vp/digits_ddpmpp_continuous'"),
        ("--mode=train --workdir=x --config=vp", "No config file vp, and no config of this name"),
    ],
)
def test_a_mistake_is_one_sentence(line, sentence, capsys):
    assert main(["score_sde", *line.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["vp/digits_ddpmpp_continuous", "vp/digits_ddpmpp_continuous.py"])
@pytest.mark.parametrize("prefix", ["", "configs/"])
def test_a_config_is_found_by_its_name_from_any_folder(name, prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if prefix and not name.endswith(".py"):
        name += ".py"  # it is a path then
    config = parse(["score_sde", f"--config={prefix}{name}"]).config
    assert config.data.dataset == "digits" and config.sde.name == "vpsde"


def test_a_file_in_the_folder_comes_before_a_config_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "configs/vp").mkdir(parents=True)
    text = "from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as theirs\n\n\n"
    text += "def get_config():\n    config = theirs()\n    config.seed = 7\n    return config\n"
    (tmp_path / "configs/vp/digits_ddpmpp_continuous.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert parse(["score_sde", "--config=configs/vp/digits_ddpmpp_continuous.py"]).config.seed == 7
    assert parse(["score_sde", "--config=vp/digits_ddpmpp_continuous"]).config.seed == 42


def test_without_a_config_describe_lists_all(capsys):
    assert main(["score_sde", "--mode=describe"]) == 0
    names = capsys.readouterr().out.split()
    assert names == config_names() and len(names) > 40 and "vp/ddpm/cifar10" in names


def test_output_that_nobody_reads_to_its_end_is_no_error():
    command = [sys.executable, "-m", "score_sde", "--mode=describe"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before there is any, as `| head` does after its lines
        assert process.stderr.read() == ""
    assert process.returncode == UNREAD


def test_another_pipe_that_breaks_is_an_error():
    def program(_):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        exit_status(program, [])


def test_experiments_are_listed_with_what_they_do(capsys):
    assert main(["score_sde", "--mode=experiment"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == EXPERIMENTS and len(EXPERIMENTS) > 10
    assert all(line.endswith(".") and len(line) < 120 for line in lines)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score_sde", "--mode=experiment", f"--name={name}", "--help"])
    assert ended.value.code == 0
    assert f"usage: score_sde --mode=experiment --name={name}" in capsys.readouterr().out
