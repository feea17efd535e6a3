"""Pieces of a user's own, named by their import paths, in the ordinary command and from Python."""

import dataclasses
import inspect
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import own_pieces
import pytest

import score_sde
from score_sde.cli.command_line import parse
from score_sde.cli.main import main
from score_sde.config import PIECES, protocols
from score_sde.config.import_paths import choose, missing
from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.sampling import SAMPLERS
from score_sde.sde import VP
from score_sde.training.pieces import KINDS, complete
from score_sde.training.recipe import objective_of

ROOT = Path(__file__).parent.parent
CONFIG = f"--config={ROOT / 'configs/vp/digits_ddpmpp_continuous.py'}"
QUICK = {
    "model.name": "own_pieces:Mixer",
    "model.width": 8,
    "training.batch_size": 16,
    "training.log_freq": 1,
    "training.snapshot_freq_for_preemption": 1,
    "optim.warmup": 0,
    "eval.enable_bpd": False,
    "eval.enable_sampling": True,
    "eval.num_samples": 16,
    "eval.batch_size": 64,
    "sampling.num_samples": 4,
    "sampling.noise_removal": False,
    "metrics.features": "none",
}
OBJECTIVE = {
    "process.name": "own_pieces:Power",
    "process.k": 3,
    "parameterization.name": "own_pieces:Data",
    "times.name": "own_pieces:Middle",
    "times.t": 0.25,
    "weight.name": "own_pieces:CappedSNR",
    "weight.gamma": 4.0,
    "sampling.method": "ddim",
    "sampling.num_steps": 4,
}
REST = {
    "encoder.name": "own_pieces:Attributes",
    "encoder.features": 8,
    "data.dataset": "own_pieces:rectangles",
    "data.n": 48,
    "sampling.method": "own_pieces:euler",
    "sampling.num_steps": 4,
    "sampling.stretch": 2.0,
    "metrics.features": "own_pieces:Projections",
}
OWN = {key: value for key, value in (QUICK | OBJECTIVE | REST).items() if str(value).startswith("own_pieces:")}


def flags(values):
    return [f"--config.{key}={value}" for key, value in values.items()]


def program(directory, *arguments):
    assert main(["score_sde", f"--workdir={directory}", *arguments]) == 0


def resolved(values):
    return parse(["score_sde", CONFIG, *flags(values)]).config


@pytest.mark.parametrize("values", [OBJECTIVE, REST], ids=["process, network and objective", "the rest"])
def test_own_pieces_train_stop_go_on_sample_and_evaluate_by_the_ordinary_command(values, tmp_path, data_dir):
    given = [CONFIG, *flags(QUICK | {"data.data_dir": data_dir} | values), "--mode=train"]
    program(tmp_path / "run", *given, "--config.training.n_iters=1")
    # The workdir has the config and its overrides, but for where things are on this machine.
    again = [CONFIG, f"--config.data.data_dir={data_dir}"] if values is OBJECTIVE else []
    program(tmp_path / "run", *again, "--mode=train", "--config.training.n_iters=2")
    model = score_sde.load(tmp_path / "run")
    assert model.step == 2 and not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(model.params))

    np.savez(tmp_path / "sides.npz", side=np.float32([[0.25, 0.5], [1, 1]]))  # in turns
    condition = [f"--config.sampling.condition=cond={tmp_path}/sides.npz"] if values is REST else []
    program(tmp_path / "run", "--mode=sample", *condition)
    drawn = np.load(next((tmp_path / "run/samples").glob("*.npz")))["images"]
    assert len(drawn) == 4 and ("cond_sides" in str(os.listdir(tmp_path / "run/samples"))) == bool(condition)
    program(tmp_path / "run", "--mode=eval")
    report = json.loads((tmp_path / "run/eval/report.json").read_text())
    assert report["complete"] and report["checkpoints"][0]["sampling"]["nfe"] == 4
    if "metrics.features" in values:
        assert report["checkpoints"][0]["sampling"]["metrics"]["protocol"]["features"].startswith("Projections-")

    stored, launch = (workdir.read(tmp_path / "run", f"{name}.json") for name in ("config", "launch"))
    assert workdir.flatten(stored).items() >= {key: value for key, value in values.items() if key != "data.n"}.items()
    own = {key for key, value in (QUICK | values).items() if value in OWN.values()}
    assert launch["code"].keys() == own and launch["code"]["model.name"]["file"] == own_pieces.__file__
    same = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(*(m.sample(jax.random.key(0), 2) for m in (model, same)))


@pytest.mark.parametrize("path", sorted(OWN.values()))
def test_an_own_piece_takes_forty_lines_at_most(path):
    assert len(inspect.getsource(getattr(own_pieces, path.partition(":")[2])).splitlines()) <= 40


def test_the_arguments_of_own_pieces_are_values_of_their_sections():
    config = resolved(QUICK | OBJECTIVE | REST)
    assert dict(config.process) == {"name": "own_pieces:Power", "k": 3.0}
    assert dict(config.model) == {
        "name": "own_pieces:Mixer",
        "width": 8,
        "blocks": 1,
        "patch": 2,
        "scale_by_sigma": False,
    }
    assert config.data.n == 48 and config.sampling.stretch == 2.0
    parts = vars(objective_of(config)).values()
    assert [type(part).__name__ for part in parts] == ["Power", "Data", "Middle", "CappedSNR"]
    assert objective_of(config).process.k == 3 and objective_of(config).weight.gamma == 4
    # From Python, defaults that are not given are added before a run begins.
    config = resolved({})
    config.update_from_flattened_dict({"process.name": "own_pieces:Power", "sampling.method": "own_pieces:euler"})
    complete(config)
    assert config.process.k == 2.0 and config.sampling.stretch == 1.0


def test_another_row_keeps_what_both_rows_have_and_an_import_path_begins_anew():
    assert resolved({"sde.name": "subvpsde", "sde.beta_max": 5}).sde.to_dict() == {
        "name": "subvpsde",
        "beta_min": 0.1,
        "beta_max": 5.0,
        "num_scales": 1000,
    }
    ddpm = resolved({"model.name": "ddpm"}).model
    assert (ddpm.nf, ddpm.ch_mult, "fir" in ddpm) == (32, (1, 2), False)
    assert "nf" not in resolved({"model.name": "own_pieces:Mixer"}).model


class Counting(own_pieces.Mixer):
    num_scales: int = 3  # the paper's code had model.num_scales, which is sde.num_scales here


def test_an_argument_of_ones_own_may_have_the_name_of_a_key_that_has_moved():
    assert resolved({"model.name": "test_extending:Counting", "model.num_scales": 5}).model.num_scales == 5
    with pytest.raises(UsageError, match=r"config\.model\.num_scales is now config\.sde\.num_scales"):
        resolved({"model.num_scales": 5})


def test_samples_by_an_own_sampler_are_asked_for_from_python(tmp_path, data_dir):
    score_sde.train(resolved(QUICK | {"data.data_dir": data_dir}), tmp_path, {"training.n_iters": 1})
    model = score_sde.train(None, tmp_path, {"training.n_iters": 2})  # goes on with the workdir's config
    assert model.step == 2
    with pytest.raises(UsageError, match=r"'optim.lrr' \(did you mean 'optim.lr'\?\)"):
        score_sde.train(None, tmp_path, {"optim.lrr": 1.0})
    options = dict(num_steps=3, clip="none", noise_removal=False)
    own = model.sample(jax.random.key(0), 2, "own_pieces:euler", **options, stretch=np.float32(1))
    np.testing.assert_allclose(own, model.sample(jax.random.key(0), 2, "euler", **options, grid="uniform"), atol=2e-5)
    with pytest.raises(UsageError, match="stretch"):
        model.sample(jax.random.key(0), 2, "ddim", stretch=2.0)


@pytest.mark.parametrize("name", [kind.protocol.__name__ for kind in KINDS.values()])
def test_the_example_of_a_protocol_follows_it_and_no_other_of_its_kind(name):
    protocol = getattr(protocols, name)
    lines = [line[8:] for line in protocol.__doc__.splitlines() if line.startswith("        ") or not line.strip()]
    module = {"__name__": "example"}
    exec("\n".join(lines), module)
    example = [found for found in module.values() if getattr(found, "__module__", "") == "example"][-1]
    assert missing(example, protocol) == []
    assert len([line for line in lines if line.strip()]) <= 15
    others = {kind.protocol for kind in KINDS.values()} - {protocol}
    assert all(missing(example, other) for other in others)


@dataclasses.dataclass(frozen=True)
class NoSigma(score_sde.process.Process):
    def alpha(self, t):
        return 1 - t


def no_keywords(process, model):
    """Lacks the options of all samplers."""


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        ("process.name", "no_such_module:Power", "no module no_such_module; start Python in the folder"),
        ("process.name", "own_pieces.no:Power", "no module own_pieces.no"),
        ("process.name", "own_pieces:Powr", r"has no Powr \(did you mean 'Power'\?\)"),
        ("process.name", "own pieces:Power", "no import path, which looks like"),
        ("process.name", "own_pieces:Mixer", "no Process: it lacks the base class score_sde.process.Process"),
        ("process.name", "test_extending:NoSigma", "it lacks a definition of sigma"),
        ("process.name", "own_pieces:np.pi", "neither a class nor a function"),
        ("sampling.method", "test_extending:no_keywords", "the parameter eps, the parameter noise_removal"),
        ("model.name", "own_pieces:Attributes", "the parameter dropout_keys of __call__"),
        ("model.name", "own_pieces:euler", "a class: it is a function"),
        ("data.dataset", "own_pieces:euler", "the parameter train"),
        ("metrics.features", "own_pieces:Power", "a definition of dimension"),
    ],
)
def test_a_piece_that_cannot_be_had_is_one_sentence(key, name, words):
    kind = KINDS[key]
    with pytest.raises(UsageError, match=words):
        choose(key, name, kind.choices, kind.protocol)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"process.power": 3}, "Unknown config key 'process.power'"),
        ({"encoder.name": "own_pieces:Attributes", "model.name": "ncsnv2_64"}, "NCSNv2 takes no encoder"),
        ({"encoder.name": "vector"}, "needs encoder.size"),
        ({"training.precision": "bfloat16"}, "Mixer has no field `compute"),
    ],
)
def test_pieces_that_do_not_go_together_are_one_sentence_and_nothing_is_written(values, words, tmp_path, capsys):
    given = flags({key: value for key, value in (QUICK | OBJECTIVE | values).items() if key != "model.width"})
    assert main(["score_sde", CONFIG, f"--workdir={tmp_path / 'run'}", "--mode=train", *given]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_every_key_that_names_a_piece_has_its_kind():
    assert set(KINDS) == set(PIECES)
    assert SAMPLERS is KINDS["sampling.method"].choices and issubclass(VP, protocols_base("process.name"))


def protocols_base(key):
    module, _, name = KINDS[key].protocol.base.rpartition(".")
    return getattr(sys.modules[module], name)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch, data_dir):
    """A run of one update with a network in a file of its own, and that file."""
    file = tmp_path / "code" / "my_network.py"
    file.parent.mkdir()
    shutil.copy(own_pieces.__file__, file)
    monkeypatch.syspath_prepend(str(file.parent))
    values = QUICK | {"model.name": "my_network:Mixer", "data.data_dir": data_dir, "training.n_iters": 1}
    program(tmp_path / "run", CONFIG, *flags(values), "--mode=train")
    yield tmp_path / "run", file
    sys.modules.pop("my_network", None)


def test_a_file_that_has_changed_or_is_gone_is_named(elsewhere, capsys, monkeypatch):
    directory, file = elsewhere
    file.write_text(file.read_text() + "\n# changed\n")
    going_on = ["score_sde", f"--workdir={directory}", "--mode=train", "--config.training.n_iters=2"]
    assert main(going_on) == 2
    error = capsys.readouterr().err
    assert f"{file}, which defines model.name=my_network:Mixer, has changed" in error and "--allow_change=code" in error
    score_sde.load(directory)
    assert "has changed since" in capsys.readouterr().err
    program(directory, "--mode=train", "--config.training.n_iters=2", "--allow_change=code")
    assert workdir.read(directory, "launch.json")["changes"][0]["key"] == "code"

    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(file.parent)])
    del sys.modules["my_network"]
    with pytest.raises(UsageError, match=f"no module my_network.*was in {file}"):
        score_sde.load(directory)
