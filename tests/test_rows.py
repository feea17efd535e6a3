"""The digits under flow matching and under EDM's row, of the paper's preset by config values only."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_end_to_end import metrics

import score_sde
from score_sde.cli.main import main
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.io import checkpoints
from score_sde.io import workdir as wd
from score_sde.metrics import at_the_ends, compared
from score_sde.paths import PROCESSES
from score_sde.process import before_noise
from score_sde.training.run import train
from score_sde.weights import LikelihoodWeight

pytestmark = pytest.mark.usefixtures("one_block", "compiled_once")
ROWS = {
    "flow": {
        "process.name": "linear",
        "parameterization.name": "velocity",
        "times.name": "logit_normal",
        "weight.name": "velocity",
        "sampling.method": "dpmpp_2m",
    },
    "edm": {
        "process.name": "edm",
        "parameterization.name": "edm",
        "times.name": "lognormal",
        "weight.name": "edm",
        "sampling.method": "edm",
        "sampling.grid": "karras",
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(params=ROWS)
def row(request, folder, tiny_config):
    """(workdir, config, values) of a row, trained for 4 updates the first time, with a checkpoint every two."""
    workdir, values, config = folder / request.param, ROWS[request.param], tiny_config()
    config.update_from_flattened_dict(values | {"sampling.num_steps": 4, "training.snapshot_sampling": False})
    if not workdir.exists():
        train(config, workdir, values)
    return workdir, config, values


def test_a_killed_run_goes_on_bit_for_bit(row, tmp_path):
    folder, config, values = row
    killed = tmp_path / "run"
    shutil.copytree(folder, killed)
    shutil.rmtree(killed / "checkpoints" / "4")  # as one killed before the last was saved; its later lines are there
    assert checkpoints.steps(killed / "checkpoints") == [2]
    train(config, killed, values)
    assert score_sde.load(killed).digest == score_sde.load(folder).digest
    assert metrics(killed) == metrics(folder)


def test_a_run_reports_bits_per_dim_and_its_samples(row, capsys):
    folder, config, _ = row
    config.eval.update(enable_sampling=True, enable_loss=False, num_samples=8, batch_size=299, begin_ckpt=-1)
    evaluate(config, folder)
    (entry,) = json.loads((folder / "eval" / "report.json").read_text())["checkpoints"]
    assert 3 < entry["bits_per_dim"]["mean"] < 30
    shares = entry["sampling"]["at_the_ends"]
    assert 0 <= shares["samples"] <= 1 and shares["data"] == pytest.approx(0.58, abs=0.02)
    assert f"{shares['samples']:.1%} of the samples" in (folder / "eval" / "report.html").read_text()


def test_the_predictor_of_every_process_makes_images(row):
    x = np.asarray(score_sde.load(row[0]).sample(jax.random.key(0), 2, "pc", predictor="exponential", num_scales=4))
    assert x.shape == (2, 8, 8, 1) and 1e-3 < x.std() < 1


def test_what_a_network_was_not_trained_with_is_refused_before_anything_is_written(row, capsys):
    folder, config, _ = row
    before = sorted(folder.rglob("*"))
    other = {"parameterization.name": "noise", "process.name": "cosine", "weight.name": "likelihood"}
    for key, value in other.items():
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({key: value})
        for act in (train, evaluate, sample):
            with pytest.raises(UsageError, match=f"was trained with {key}="):
                act(changed, folder)
    config.sampling.condition = "class=3"
    for act in (evaluate, sample):
        config.eval.update(enable_sampling=True, enable_loss=False, enable_bpd=False)
        with pytest.raises(UsageError, match="takes no condition entry 'labels'"):
            act(config, folder)
    data = f"--config.data.data_dir={config.data.data_dir}"
    command = ["score_sde", "--config=configs/vp/digits_ddpmpp_continuous.py", f"--workdir={folder}", data]
    assert main([*command, "--mode=eval", "--config.parameterization.name=noise"]) == 2
    assert "was trained with" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


PC = "--config.sampling.method=pc"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([PC], "infinite at t = 1 of Linear; set sampling.predictor=exponential"),
        (
            [PC, "--config.sampling.predictor=reverse_diffusion"],
            "predictor needs a discrete chain",
        ),
        (
            [PC, "--config.sampling.predictor=ancestral_sampling"],
            "sampling needs a discrete chain",
        ),
        (
            [PC, "--config.sampling.predictor=exponential", "--config.sampling.corrector=langevin"],
            "corrector needs a discrete chain, and Linear has none",
        ),
        (["--config.sampling.method=adaptive"], "infinite at t = 1 of Linear; set sampling.method=ode"),
        (["--config.times.name=chain"], "Linear has no chain"),
        (["--config.parameterization.name=edm", "--config.data.centered=False"], "set data.centered=True"),
        (["--config.sde.beta_max=10.0"], "sde.beta_max has no effect, because process.name=linear replaces it"),
        (["--config.training.cond_dropout=('tokens',)"], "takes no condition; leave training.cond_dropout empty"),
    ],
)
def test_what_a_flow_does_not_have_is_one_sentence_before_anything_is_written(arguments, words, tmp_path, capsys):
    command = ["score_sde", "--config=configs/flow/digits_ddpmpp_velocity.py", "--mode=train"]
    command += [f"--workdir={tmp_path / 'run'}", f"--config.data.data_dir={tmp_path / 'data'}"]
    assert main([*command, *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "override"),
    [
        ({"process.name": "linear", "parameterization.name": "velocity"}, "sde.beta_max"),
        ({"ema.profiles": ("power:0.1",)}, "optim.ema_rate"),
    ],
)
def test_the_old_and_the_new_key_are_refused_in_a_program_of_ones_own(values, override, tiny_config, tmp_path):
    config = tiny_config()
    config.update_from_flattened_dict(values | {"sampling.method": "ddim"})
    with pytest.raises(UsageError, match=f"{override} has no effect"):
        train(config, tmp_path / "run", dict.fromkeys([*values, override], 0.5))
    assert not list(tmp_path.iterdir())


def test_a_replaced_key_is_told_as_one_that_says_nothing(capsys):
    command = ["score_sde", "--config=configs/flow/digits_ddpmpp_velocity.py", "--mode=describe"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "sde.beta_max = 20.0  (no effect: process.name=linear replaces it)" in output
    assert "objective: process Linear(" in output and "parameterization Velocity(" in output


def test_a_likelihoods_weight_is_finite_at_the_last_time_that_is_drawn_where_alpha_ends_at_0():
    for name in ("linear", "cosine", "trigonometric"):
        process = PROCESSES[name]()
        t = before_noise(process, np.float32([0.5, 1.0]))
        assert t[1] < 1 and np.all(np.isfinite(LikelihoodWeight().on_noise(process, jnp.asarray(t))))


def pixels(share: float, n: int = 64) -> np.ndarray:
    """Images of which this share of the numbers is at the ends, half at each."""
    numbers = np.full((n, 10, 10, 1), 100, np.uint8).reshape(n, -1)
    numbers[:, : round(100 * share)] = 0
    numbers[:, : round(50 * share)] = 255
    return numbers.reshape(n, 10, 10, 1)


@pytest.mark.parametrize(
    ("samples", "data", "warns"),
    [
        (0.02, 0.02, False),
        (0.06, 0.02, False),  # three times as much, of next to nothing
        (0.21, 0.02, True),
        (0.6, 0.58, False),
        (0.7, 0.58, False),
        (0.9, 0.58, True),
        (0.2, 0.58, False),
        (1.0, 1.0, False),
        (0.2, 0.0, True),
    ],
)
def test_samples_warn_where_they_have_more_numbers_at_the_ends_than_the_data(samples, data, warns):
    found = compared(at_the_ends(pixels(samples)), at_the_ends(pixels(data)), "train longer")
    assert (found["samples"], found["data"]) == (pytest.approx(samples), pytest.approx(data))
    assert ("warning" in found) == warns
    if warns:
        assert f"{samples:.1%} of the samples'" in found["warning"] and found["warning"].count(". ") == 0


def test_few_samples_and_data_that_cannot_be_had_do_not_warn():
    varied = np.concatenate([pixels(share, 32) for share in (0.0, 0.2)])
    assert "warning" not in compared(at_the_ends(pixels(0.2, 1)), at_the_ends(varied))
    assert "warning" in compared(at_the_ends(pixels(0.2, 64)), at_the_ends(varied))
    assert compared(at_the_ends(pixels(0.9)), None) == {"samples": pytest.approx(0.9), "data": None}


@pytest.mark.parametrize("row", ["flow"], indirect=True)
def test_samples_of_saturated_images_are_warned_of_and_listed(row, tmp_path, capsys, monkeypatch):
    folder, config, _ = row
    monkeypatch.setattr("score_sde.images.to_pixels", lambda x: np.full(np.shape(x), 255, np.uint8))
    config.sampling.update(method="ddim", clip="none")
    sample(config, folder, tmp_path)
    error = capsys.readouterr().err
    assert "warning: 100.0% of the samples' numbers are at the ends" in error and "set sampling.clip=range" in error
    (listed,) = wd.read(tmp_path / "samples", "index.json").values()
    assert listed["at_the_ends"] == {"samples": 1.0, "data": pytest.approx(0.58, abs=0.02)}
