"""Train, stop, go on, evaluate, sample, load: through the functions the command line calls."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import seeded
from older_workdir import older
from test_data import prepare_cifar10

import score_sde
from score_sde import likelihood
from score_sde.cli.main import main
from score_sde.data import batch_indices
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.images import CENTERED
from score_sde.inference.train_dequantizer import train_dequantizer
from score_sde.io import workdir as wd
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.likelihood.dequantization import truncated_normal
from score_sde.models import MODELS, NCSNpp
from score_sde.randomness import Stream, stream
from score_sde.training.build import Experiment
from score_sde.training.run import train
from score_sde.training.state import initial_state

pytestmark = pytest.mark.usefixtures("one_block", "compiled_once")
CONFIGS = ["vp/digits_ddpmpp_continuous", "ve/digits_ncsnpp_continuous"]


def metrics(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trained workdirs, by config name, and what is loaded of one."""
    return {}, tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(runs, tiny_config):
    """name -> (workdir, config), trained for 4 steps the first time."""
    done, folder = runs

    def run(name=CONFIGS[0]):
        if name not in done:
            done[name] = folder / name.replace("/", "_")
            train(tiny_config(name), done[name], {"training.n_iters": 4})
        return done[name], tiny_config(name)

    return run


@pytest.fixture
def model(trained, runs):
    """The one trained, loaded the first time: its programs serve several tests."""
    done, _ = runs
    if "loaded" not in done:
        done["loaded"] = score_sde.load(trained()[0])
    return done["loaded"]


@pytest.fixture
def evaluated(trained):
    """What the report says of the last checkpoint, evaluated the first time."""
    folder, config = trained()
    if not (folder / "eval").exists():
        config.eval.begin_ckpt = -1  # of two snapshots the last
        evaluate(config, folder)
    report = json.loads((folder / "eval" / "report.json").read_text())
    (entry,) = report["checkpoints"]
    assert report["complete"]
    return entry


def test_a_training_goes_on_the_same_with_64_bit_types(trained, tmp_path):
    folder, config = trained()
    wide = shutil.copytree(folder, tmp_path / "wide")
    shutil.rmtree(wide / "checkpoints" / "4")
    jax.config.update("jax_enable_x64", True)  # as JAX_ENABLE_X64=1 does
    try:
        train(config, wide)
    finally:
        jax.config.update("jax_enable_x64", False)
    assert score_sde.load(wide).digest == score_sde.load(folder).digest  # read without them
    assert metrics(wide) == metrics(folder)


def test_a_config_trains_evaluates_and_samples(trained, evaluated):
    """That of every other config is in test_configs.py."""
    folder, config = trained()
    assert [line["step"] for line in metrics(folder)] == [1, 2, 2, 3, 4, 4]
    assert all(np.isfinite(value) for line in metrics(folder) for value in line.values())
    assert json.loads((folder / "config.json").read_text())["model"]["nf"] == 8

    entry = evaluated
    assert entry["step"] == 4
    assert entry["loss"]["images"] == entry["bits_per_dim"]["images"] == 299
    assert 5 < entry["bits_per_dim"]["mean"] < 20  # near the 8 bits and more of an untrained model
    assert 0 < entry["bits_per_dim"]["standard_error"] < 1

    sample(config, folder)
    (file,) = (folder / "samples").glob("*.npz")
    images = np.load(file)["images"]
    assert (images.shape, images.dtype) == ((8, 8, 8, 1), np.uint8)
    assert len(list((folder / "samples").glob("*.png"))) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_discrete_noise_levels_train_and_sample(name, tiny_config, tmp_path, monkeypatch):
    if name.startswith("ve"):
        monkeypatch.setitem(MODELS, "ncsnpp", NCSNpp)
    config = tiny_config(name)
    config.training.update(continuous=False, n_iters=2)
    config.model.update(embedding_type="positional", ch_mult=(1,), num_res_blocks=1)
    config.sampling.predictor = "ancestral_sampling"
    train(config, tmp_path)
    sample(config, tmp_path)
    assert len(np.load(next((tmp_path / "samples").glob("*.npz")))["images"]) == 8
    config.sampling.method = "ode"
    if name.startswith("ve"):
        with pytest.raises(UsageError, match="trained at discrete"):
            sample(config, tmp_path)


def test_a_stopped_run_goes_on_to_the_same_numbers(trained, tiny_config, tmp_path):
    folder, _ = trained()
    config = tiny_config()
    config.training.n_iters = 2
    train(config, tmp_path)
    config.training.n_iters = 4
    train(config, tmp_path)
    assert metrics(tmp_path) == metrics(folder)
    for a, b in zip(*(jax.tree.leaves(score_sde.load(f).params) for f in (folder, tmp_path)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_a_finished_run_again_changes_nothing(trained, tmp_path):
    folder, config = trained()
    shutil.copytree(folder, tmp_path / "copy")
    train(config, tmp_path / "copy")
    assert metrics(tmp_path / "copy") == metrics(folder)


def test_the_evaluation_does_not_depend_on_the_batch_size(trained, evaluated):
    """Of the parts of the last checkpoint, in rounds of 64, and here of all images at once."""
    folder, config = trained()
    assert config.eval.batch_size == 64
    config.eval.batch_size = 299
    evaluate(config, folder, "eval299")
    report = json.loads((folder / "eval299" / "report.json").read_text())
    assert [entry["step"] for entry in report["checkpoints"]] == [2, 4]
    found = report["checkpoints"][-1]
    np.testing.assert_allclose(found["loss"]["mean"], evaluated["loss"]["mean"], rtol=1e-5)
    np.testing.assert_allclose(found["bits_per_dim"]["mean"], evaluated["bits_per_dim"]["mean"], atol=1e-4)


def test_variational_dequantization_trains_and_evaluates(trained, tmp_path, capsys):
    folder, config = trained()
    run = shutil.copytree(folder, tmp_path / "run")
    config.eval.update(
        begin_ckpt=2, dequantization="variational", enable_loss=False, enable_bpd=False, enable_bound=True
    )
    config.dequantizer.update(nf=4, batch_size=8, snapshot_freq=2, log_freq=1, n_iters=4)
    with pytest.raises(UsageError, match=r"no dequantizer in .* --mode=train_dequantizer"):
        evaluate(config, run)
    config.eval.update(enable_bound=False, enable_loss=True)
    evaluate(config, run)  # which needs none
    config.eval.update(enable_bound=True, enable_loss=False)
    train_dequantizer(config, run)
    assert [line["step"] for line in metrics(run / "dequantizer")] == [1, 2, 3, 4]
    stored = wd.read(run, "dequantizer/config.json")
    config.dequantizer.nf = 8
    with pytest.raises(UsageError, match=r"dequantizer\.nf=4, not 8"):
        train_dequantizer(config, run)
    config.dequantizer.nf = 4
    for step in (2, 3):  # trained on since, and gone
        wd.write(run / "dequantizer", "config.json", stored | {"score_step": step})
        with pytest.raises(
            UsageError, match=f"fitted to the score of step {step}, and the last checkpoint is of step 4"
        ):
            train_dequantizer(config, run)
    wd.write(run / "dequantizer", "config.json", stored)
    evaluate(config, run)
    (entry,) = json.loads((run / "eval/report.json").read_text())["checkpoints"]
    assert entry["bits_per_dim_bound"]["images"] == 299
    assert 0 < entry["bits_per_dim_bound"]["standard_error"] < 1
    assert "bound on bits/dim" in capsys.readouterr().out


def test_the_dequantization_of_the_config_is_the_one_computed_with(trained, monkeypatch):
    folder, config = trained()
    config.eval.dequantization = "truncated_normal"
    model = score_sde.inference.pretrained.load(folder, config=config)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)) / 255, jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4)
    q = truncated_normal(model.sde, CENTERED, dequantized=True)
    for found, expected in zip(model.dequantize(keys, x), q.sample(stream(keys, Stream.DEQUANTIZE), x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    options, solver = {}, likelihood.bits_per_dim
    monkeypatch.setattr(likelihood, "bits_per_dim", lambda *args, **kw: options.update(kw) or solver(*args, **kw))
    model.experiment.bits_per_dim(model.params)
    assert options["eps"] == q.eps > 1e-5
    with pytest.raises(UsageError, match="at a later one"):
        model.bound(jax.random.key(0), x)


def test_a_workdir_of_before_these_choices_has_the_first_ones(trained, tmp_path):
    folder, _ = trained()
    shutil.copytree(folder, tmp_path / "old")
    stored = json.loads((folder / "config.json").read_text())
    stored = older(stored)
    del stored["dequantizer"]
    wd.write(tmp_path / "old", "config.json", stored)
    old, new = score_sde.load(tmp_path / "old").config, score_sde.load(folder).config
    assert (old.sampling.clip, new.sampling.clip) == ("none", "")  # its samples stay what they were
    for section in ("eval", "sampling", "training", "model"):
        assert old[section].to_dict() | {"clip": ""} == new[section].to_dict() | {"clip": ""}


def test_a_loaded_model_does_all_it_says(trained, model):
    folder, _ = trained()
    assert model.step == 4
    assert model.config.model.nf == 8
    assert type(model.sde).__name__ == "VP"
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    assert model.score(x, jnp.array([0.1, 0.5, 1.0])).shape == x.shape
    three = model.sample(jax.random.key(1), 3)
    assert three.shape == (3, 8, 8, 1)
    assert 0 <= float(three.min()) <= float(three.max()) <= 1
    np.testing.assert_allclose(model.sample(jax.random.key(1), 2), three[:2], atol=1e-5)
    ode = model.sample(jax.random.key(1), 2, sampler="ode")
    assert np.abs(ode - three[:2]).max() > 1e-3
    pixels = (np.asarray(three) * 255).astype(np.uint8)
    np.testing.assert_allclose(
        model.bits_per_dim(jax.random.key(2), pixels),
        model.bits_per_dim(jax.random.key(2), pixels.astype(np.float32) / 255),
        rtol=1e-5,
    )
    older = score_sde.load(folder, step=2)
    assert not np.array_equal(older.score(x, jnp.ones(3)), model.score(x, jnp.ones(3)))
    with pytest.raises(UsageError, match="there are: 2, 4"):
        score_sde.load(folder, step=3)


def test_an_images_bits_are_the_same_to_the_last_bit_whatever_shares_its_batch(tiny_config, tmp_path, monkeypatch):
    """Of a whole U-Net, whose convolutions, attention and normalisations see the batch; with weights of any numbers."""
    monkeypatch.setitem(MODELS, "ncsnpp", NCSNpp)
    config = tiny_config()
    config.model.num_res_blocks = 1
    experiment = Experiment(config)
    wd.write(tmp_path, "config.json", config.to_dict())
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        checkpoints.save(1, initial_state(seeded(experiment.param_shapes), experiment.optimizer))
    model = score_sde.load(tmp_path)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1))
    others = x.at[1:].set(jnp.round(x[:-1]))
    bits, nfe = model.likelihoods(keys, x)
    beside_others, nfe_beside_others = model.likelihoods(keys, others)
    assert bits[0] == beside_others[0]
    assert nfe[0] == nfe_beside_others[0]
    assert bits[1] != beside_others[1]
    swapped, _ = model.likelihoods(keys[::-1], x[::-1])
    np.testing.assert_array_equal(swapped[::-1], bits)


def test_interpolation_goes_from_the_first_image_to_the_last(trained):
    folder, config = trained()
    config.sampling.update(rtol=1e-5, atol=1e-5)
    model = score_sde.inference.pretrained.load(folder, config=config)
    first, last = jax.random.uniform(jax.random.key(0), (2, 2, 8, 8, 1), minval=0.1, maxval=0.9)
    path = model.interpolate(first, last, 3)
    assert path.shape == (3, 2, 8, 8, 1)
    np.testing.assert_allclose(path[0], first, atol=2e-3)
    np.testing.assert_allclose(path[2], last, atol=2e-3)
    assert np.all(np.abs(path[1] - path[0]).max(axis=(1, 2, 3)) > 0.05)
    with pytest.raises(UsageError, match="pairs"):
        model.interpolate(first, last[:1], 3)


def test_options_of_a_sampler_are_arguments_of_sample(model):
    keys = jax.random.split(jax.random.key(0), 2)
    nfe = [model.draw(keys, "ddim", num_steps=n)[1].tolist() for n in (2, 5, 2)]
    assert nfe == [[3, 3], [6, 6], [3, 3]]
    cold, warm = (model.sample(jax.random.key(0), 2, "ddim", num_steps=2, temperature=t) for t in (0.5, 1.0))
    assert not np.array_equal(cold, warm)
    with pytest.raises(UsageError, match="did you mean 'num_steps'"):
        model.sample(jax.random.key(0), 2, "ddim", num_step=2)
    with pytest.raises(UsageError, match="num_steps=0"):
        model.sample(jax.random.key(0), 2, "ddim", num_steps=0)
    with pytest.raises(AttributeError, match="immutable"):  # it would change nothing that is compiled
        model.config.sampling.num_steps = 5


def test_samples_of_one_sampler_leave_those_of_another_alone(trained):
    folder, config = trained()
    for method in ("edm_stochastic", "edm", "edm"):
        config.sampling.update(method=method, num_steps=2, num_samples=2)
        sample(config, folder)
    written = sorted(path.name for path in (folder / "samples").glob("*edm*.npz"))
    assert [name[: -len("_01234567.npz")] for name in written] == [
        "step_00000004_edm_2",
        "step_00000004_edm_stochastic_2",
    ]


def test_decoding_inverts_encoding(trained):
    folder, config = trained()
    config.sampling.update(rtol=1e-5, atol=1e-5)
    model = score_sde.inference.pretrained.load(folder, config=config)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=0.1, maxval=0.9)
    latents = model.encode(images)
    assert latents.shape == images.shape
    np.testing.assert_allclose(model.decode(latents), images, atol=2e-3)
    with pytest.raises(UsageError, match=r"in \[0, 1\]"):
        model.encode(images * 255)
    with pytest.raises(UsageError, match="shape"):
        model.bits_per_dim(jax.random.key(0), images[:, :4])
    with pytest.raises(UsageError, match="shape"):
        model.decode(latents[0])


def test_the_other_sections_come_from_the_workdir(trained, data_dir, capsys):
    """Overrides of the training's command line need not be repeated, and cannot be contradicted."""
    folder, config = trained()
    wd.write(folder, "launch.json", {"overrides": differences(config)})
    command = ["score_sde", "--config=configs/vp/digits_ddpmpp_continuous.py", f"--workdir={folder}", "--mode=sample"]
    assert main([*command, "--config.sampling.num_samples=4", "--config.sampling.method=ode"]) == 0
    images = np.load(next((folder / "samples").glob("step_00000004_ode_*.npz")))["images"]
    assert len(images) == 4
    capsys.readouterr()
    for argument, words in (
        ("--config.model.nf=16", "model.nf=8, not 16"),
        ("--config.training.n_iters=9", "cannot be changed after training"),
        ("--config.data.dataset=cifar10", "data.dataset='digits', not 'cifar10'"),
    ):
        assert main([*command, argument]) == 2
        assert words in capsys.readouterr().err
    other = [c.replace("vp/digits_ddpmpp", "subvp/digits_ddpmpp") for c in command]
    for mode in ("sample", "eval", "train"):
        assert main([*other, f"--mode={mode}"]) == 2
        assert "another --workdir" in capsys.readouterr().err


def differences(config) -> dict:
    from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

    base, own = wd.flatten(get_config().to_dict()), wd.flatten(config.to_dict())
    return {key: value for key, value in own.items() if base[key] != value}


def test_training_another_network_in_the_same_workdir_is_refused(trained, capsys):
    folder, config = trained()
    before = (folder / "config.json").read_text()
    config.model.nf = 16
    with pytest.raises(UsageError, match=r"model\.nf=8, not 16"):
        train(config, folder)
    assert (folder / "config.json").read_text() == before


def test_a_diverging_run_stops_and_names_the_last_checkpoint(tiny_config, tmp_path):
    config = tiny_config()
    config.optim.update(lr=1e30, warmup=0, grad_clip=-1.0)
    config.training.snapshot_freq_for_preemption = 1
    with pytest.raises(UsageError, match=r"is NaN or infinite at step 2 \(.*diverged.json\); .* of step 1\."):
        train(config, tmp_path)
    told = json.loads((tmp_path / "diverged.json").read_text())
    assert told == {"step": 2, "indices": batch_indices(1498, 16, seed=config.seed, step=1).tolist()}
    assert np.isfinite(score_sde.load(tmp_path).params["Dense_0"]["kernel"]).all()


def test_snapshots_and_the_end_come_with_samples_which_are_drawn_where_they_are_missing(tiny_config, tmp_path, capsys):
    config = tiny_config()
    config.training.update(n_iters=3, snapshot_sampling=True)  # with snapshots at every second step
    train(config, tmp_path)
    second, last = (tmp_path / f"samples/snapshots/step_0000000{step}.npz" for step in (2, 3))
    drawn = np.load(last)["images"]
    assert drawn.shape == (16, 8, 8, 1)
    said, place = capsys.readouterr().err, last.with_suffix(".png")
    assert said.count("Training in") == said.count("Trained: 3 updates in") == 1
    assert f"  samples      {place}\n  draw more    score_sde --mode=sample --workdir={tmp_path}\n" in said
    assert f"  evaluate     score_sde --mode=eval --workdir={tmp_path}\n" in said
    last.unlink()
    train(config, tmp_path)
    assert not last.exists()  # its picture, written after it, says that it was whole
    place.unlink()
    train(config, tmp_path)
    np.testing.assert_array_equal(np.load(last)["images"], drawn)
    for sheet in (second, last):
        sheet.write_bytes(b"as it was")
    config.training.n_iters = 4
    train(config, tmp_path)  # leaves the sheet of the shorter run, whose step is no snapshot
    assert [sheet.read_bytes() for sheet in (second, last)] == [b"as it was"] * 2
    assert [path.stem[-1] for path in sorted(last.parent.glob("*.png"))] == ["2", "3", "4"]


def test_cifar10_trains_resumes_samples_and_evaluates_from_the_command_line(tmp_path, monkeypatch, capsys):
    prepare_cifar10(tmp_path / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    small = ["--config.model.nf=8", "--config.model.num_res_blocks=1", "--config.model.ch_mult=(1,)"]
    small += ["--config.data.image_size=16"]
    small += ["--config.training.batch_size=4", "--config.sde.num_scales=25", "--config.training.snapshot_freq=2"]
    small += [
        "--config.training.log_freq=1",
        "--config.training.eval_freq=2",
        "--config.training.snapshot_sampling=False",
    ]
    command = ["score_sde", "--config=configs/vp/cifar10_ddpmpp_continuous.py", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, "--mode=train", *small, "--config.training.n_iters=2"]) == 0
    assert main([*command, "--mode=train", *small, "--config.training.n_iters=3"]) == 0
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 2, 3]
    assert main([*command, "--mode=sample", "--config.sampling.num_samples=3"]) == 0
    assert np.load(next((tmp_path / "run/samples").glob("*.npz")))["images"].shape == (3, 16, 16, 3)
    loose = ["--config.eval.rtol=0.1", "--config.eval.atol=0.1", "--config.eval.bpd_num_repeats=1"]
    assert main([*command, "--mode=eval", "--config.eval.enable_bpd=True", "--config.eval.batch_size=20", *loose]) == 0
    (entry,) = json.loads((tmp_path / "run/eval/report.json").read_text())["checkpoints"]
    assert entry["bits_per_dim"]["images"] == 20
