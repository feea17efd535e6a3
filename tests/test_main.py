"""Mistakes on the command line: one sentence on stderr, status 2, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.cli.command_line import overrides, parse
from score_sde.cli.main import main
from score_sde.cli.modes import MODES

ROOT = Path(__file__).parent.parent
CONFIG = str(ROOT / "configs/vp/digits_ddpmpp_continuous.py")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.training.n_itters=5"], "did you mean 'training.n_iters'"),
        (["--config.optim.wramup", "5"], "did you mean 'optim.warmup'"),
        (["--config.trainning.batch_size=5"], "did you mean 'training.batch_size'"),
        (["--config.training=5"], "is a section"),
        (["--config.training.sde=vesde"], "now config.sde.name"),
        (["--config.model.sigma_max=90"], "now config.sde.sigma_max"),
        (["--config.model.ema_rate=0.9"], "now config.optim.ema_rate"),
        (["--config.training.n_jitted_steps=5"], "is gone"),
        (["--config.training.n_iters=1e4"], "is not an integer"),
        (["--config.optim.lr=high"], "is not a number"),
        (["--config.training.continuous=maybe"], "maybe"),
        (["--config.model.ch_mult=(0,2)"], "ch_mult"),
        (["--config.sampling.num_scales=many"], "many"),
        (["--config=configs/missing.py"], "No config file configs/missing.py"),
        (["--config.data.dataset=cifar"], "did you mean 'cifar10'"),
        (["--config.sde.name=vpsd"], "did you mean 'vpsde'"),
        (["--config.sde.name=vesde", "--config.sde.beta_min=0.2"], "Unknown config key 'sde.beta_min'"),
        (["--config.process.name=linear"], "parameterization.name"),
        (["--config.process.name=linear", "--config.sde.beta_max=3"], "sde.beta_max has no effect"),
        (["--config.model.name=ncsnp"], "did you mean 'ncsnpp'"),
        (["--config.model.nonlinearity=swisch"], "did you mean 'swish'"),
        (["--config.sampling.predictor=euler"], "did you mean 'euler_maruyama'"),
        (["--config.sampling.method=sde"], "Unknown sampling.method"),
        (["--config.optim.optimizer=SGD"], "choose from: Adam"),
        (["--config.training.batch_size=0"], "training.batch_size=0"),
        (["--config.data.image_size=9"], "not divisible by 2"),
        (["--config.metrics.nf=6"], "metrics.nf=6 must be a multiple of 4"),
        (["--config.training.likelihood_weighting=True", "--config.training.continuous=False"], "continuous=True"),
        (["--config.sampling.eps=1.0"], "sampling.eps=1.0"),
        (["--config.sampling.method=ode", "--config.sampling.eps=0.0"], "sampling.eps=0.0"),
        (["--config.sampling.corrector=ald", "--config.sampling.num_scales=10"], "raise num_scales above 20"),
        (["--config.sampling.num_scales=1"], "sampling.num_scales=1"),
        (["--config.sampling.snr=nan", "--config.sampling.corrector=ald"], "snr=nan"),
        (["--config.optim.lr=nan"], "optim.lr=nan"),
        (["--config.eval.rtol=0"], "rtol=0"),
        (["--config.eval.hutchinson_type=hutch"], "did you mean 'hutch++'"),
        (["--config.eval.hutchinson_type=hutch++"], "num_probes=1"),
        (["--config.eval.dequantization=unifrom"], "did you mean 'uniform'"),
        (["--config.eval.bound_num_times=0"], "eval.bound_num_times=0"),
        (["--config.model.num_res_blocks=-1"], "num_res_blocks=-1"),
        (["--config.training.continuous=False", "--config.model.embedding_type=fourier"], "embedding_type=positional"),
        (["--config.data.tfrecords_path=x"], "is gone"),
        (["--config.data.category=bedroom"], "as in lsun/bedroom"),
        (["--config=configs/ve/cifar10_wideresnet.py", "--config.training.continuous=False"], "continuous=True"),
        (["--config.training.label_dropout=1.0"], "training.label_dropout=1.0"),
        (["--config=configs/vp/ddpm/cifar10.py", "--config.model.num_classes=10"], "NCSN++ and DDPM++ alone"),
        (["--config.model.num_classes=10", "--config.model.conditional=False"], "model.conditional=True"),
        (["--config=configs/ve/ncsn/cifar10.py", "--config.training.continuous=True"], "continuous=False"),
        (["--config=configs/ve/ncsn/cifar10.py", "--config.data.image_size=9"], "not divisible by 2"),
        (["--config=configs/vp/ddpm/cifar10.py", "--config.model.nf=16"], "multiple of 32"),
        (
            ["--config=configs/vp/ddpm/cifar10.py", "--config.model.augment_dim=9"],
            "Unknown config key 'model.augment_dim'",
        ),
        (["--config.model.label_embedding=lin"], "did you mean 'linear'"),
        (["--mode=trian"], "trian"),
        (["--mode=eval"], "No checkpoint in"),
        (["--mode=sample"], "No checkpoint in"),
        (["--mode=train_dequantizer"], "No checkpoint in"),
        (["--wrokdir=x"], "wrokdir"),
        (["something"], "Unexpected argument 'something'"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(arguments, words, tmp_path, capsys):
    workdir = tmp_path / "run"
    base = ["score_sde", f"--workdir={workdir}", f"--config.data.data_dir={tmp_path / 'data'}"]
    config = [] if arguments[0].startswith("--config=") else [f"--config={CONFIG}"]
    mode = [] if arguments[0].startswith("--mode") else ["--mode=train"]
    assert main([*base, *config, *mode, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("score_sde: ")
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_a_config_leaves_at_its_default_can_be_set():
    values = parse(["score_sde", f"--config={CONFIG}", "--config.model.label_embedding=linear"])
    assert values.config.model.label_embedding == "linear"
    assert "augment_dim" not in values.config.model


@pytest.mark.parametrize("missing", ["--config", "--mode", "--workdir"])
def test_missing_flags_are_named(missing, tmp_path, capsys):
    arguments = [f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", "--mode=train"]
    assert main(["score_sde", *(a for a in arguments if not a.startswith(missing + "="))]) == 2
    assert f"{missing}" in capsys.readouterr().err


def test_sub_vp_refuses_ancestral_sampling_by_name(tmp_path, capsys):
    config = str(ROOT / "configs/subvp/digits_ddpmpp_continuous.py")
    override = "--config.sampling.predictor=ancestral_sampling"
    assert main(["score_sde", f"--config={config}", f"--workdir={tmp_path}", "--mode=train", override]) == 2
    assert "reverse_diffusion or euler_maruyama" in capsys.readouterr().err


def test_a_misspelt_key_in_a_config_file_is_one_sentence(tmp_path, capsys):
    config = tmp_path / "mine.py"
    body = "from score_sde.configs.presets import compose, ddpmpp, vp\n\n\n"
    body += "def get_config():\n    config = compose(ddpmpp, vp)\n"
    config.write_text(body + "    config.optim.wramup = 3\n    return config\n")
    assert main(["score_sde", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--mode=train"]) == 2
    error = capsys.readouterr().err
    assert "mine.py" in error
    assert "wramup" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "body", ["raise ValueError('what now')", "def get_config():\n    return 3", "import nothing_here"]
)
def test_a_broken_config_file_is_one_sentence(body, tmp_path, capsys):
    config = tmp_path / "mine.py"
    config.write_text(body)
    assert main(["score_sde", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--mode=train"]) == 2
    error = capsys.readouterr().err
    assert "mine.py" in error
    assert error.count("\n") == 1


def test_a_workdir_that_is_a_file_is_one_sentence(tmp_path, capsys, data_dir):
    file = tmp_path / "run"
    file.write_text("something")
    arguments = [f"--config={CONFIG}", f"--workdir={file}", "--mode=train", f"--config.data.data_dir={data_dir}"]
    assert main(["score_sde", *arguments]) == 2
    assert "choose a --workdir" in capsys.readouterr().err


@pytest.mark.parametrize("form", [["--config", CONFIG], [f"--config={CONFIG}"]])
def test_overrides_are_applied_in_any_order_and_form(form):
    arguments = ["--config.optim.lr=1e-3", "--config.training.n_iters", "7", "--noconfig.sampling.noise_removal"]
    values = parse(["score_sde", *arguments, *form, "--config.model.ch_mult=(1,2,4)"])
    assert values.config.optim.lr == 1e-3
    assert values.config.training.n_iters == 7
    assert values.config.model.ch_mult == (1, 2, 4)
    assert values.config.sampling.noise_removal is False
    assert overrides(values)["training.n_iters"] == 7


def test_describe_ends_with_the_counts_as_json(capsys):
    assert main(["score_sde", f"--config={ROOT / 'configs/ve/cifar10_ncsnpp_continuous.py'}", "--mode=describe"]) == 0
    output = capsys.readouterr().out
    assert json.loads(output.splitlines()[-1]) == {
        "trainable_parameters": 62_758_787,
        "total_parameters": 62_758_915,
        "nfe": 2000,
    }
    assert "sde.sigma_max = 50.0" in output
    assert "ResnetBlockBigGANpp_43" in output
    assert "langevin" in output
    ode = ["--mode=describe", "--config.sampling.method=ode", "--config.training.fsdp=8"]
    assert main(["score_sde", f"--config={CONFIG}", *ode]) == 0
    output = capsys.readouterr().out
    assert json.loads(output.splitlines()[-1])["nfe"] is None
    assert "EMA): 1.4 MiB on each device" in output  # of 748,737 parameters
    assert main(["score_sde", f"--config={ROOT / 'configs/vp/digits_wideresnet.py'}", "--mode=describe"]) == 0
    output = capsys.readouterr().out
    assert json.loads(output.splitlines()[-1])["nfe"] is None
    assert "WideResnetGroup_2" in output and "sampler:" not in output
    assert " WideResnetGroup_2            WideResnetGroup            - float32[1,4,4,64]  float32[1,2,2,128]" in output


def test_the_module_runs_as_a_program():
    result = subprocess.run([sys.executable, "-m", "score_sde", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert all(f"  {mode} " in result.stdout for mode in MODES)
    result = subprocess.run([sys.executable, "-m", "score_sde"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("score_sde: --mode is missing")
