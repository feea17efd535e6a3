"""Trainings on captions: words are learned once and kept with the run, and losses are those of the captions."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import data
from score_sde.cli.describe import describe
from score_sde.cli.main import main
from score_sde.data.captioned import captioned
from score_sde.data.text_cond import Tokens
from score_sde.data.tokenizers import END, Bytes, Words
from score_sde.errors import UsageError
from score_sde.evaluation import over_split
from score_sde.evaluation.evaluate import evaluate
from score_sde.inference.pretrained import load
from score_sde.io import workdir
from score_sde.models import MODELS
from score_sde.models.encoders import encoded, taken_entries
from score_sde.training import text
from score_sde.training.build import Experiment
from score_sde.training.run import load_data, train

TRAINED_ON = dict(image_size=16, num_channels=3, scene_objects=1, scene_images=100)
CAPTIONS = data.load("scenes", train=True, **TRAINED_ON).captions(np.arange(100))


class Reader(nn.Module):
    """A network that adds the vector of a caption to its features."""

    encoder: nn.Module | None = None
    nf: int = 4

    @property
    def cond_entries(self):
        return taken_entries(0, self.encoder)

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        h = nn.Conv(self.nf, (3, 3))(x) + nn.Dense(self.nf)(jnp.log1p(noise_cond)[:, None])[:, None, None]
        if self.encoder is not None:
            h = h + nn.Dense(self.nf)(encoded(self.encoder, cond, len(x)).vector)[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(nn.swish(h))

    def clone(self, *, compute=None, **kwargs):  # it computes in one way only
        return super().clone(**kwargs)


@pytest.fixture
def of_scenes(tiny_config, monkeypatch):
    """(values by key) -> the config of a training on captions of scenes, with these values."""
    monkeypatch.setitem(MODELS, "reader", Reader)

    def build(**values):
        config = tiny_config()
        with config.unlocked():
            config.model = dict(name="reader", nf=4, scale_by_sigma=False)
        config.training.update(n_iters=2, snapshot_freq=1, snapshot_sampling=False)
        config.data.update(dataset="scenes", random_flip=False, **TRAINED_ON)
        config.encoder.update(name="tokens", features=4)
        config.text.update(tokenizer="words", vocab_size=300)
        config.update_from_flattened_dict(values)
        return config

    return build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def run(of_scenes, folder):
    """The workdir of a training of two updates, made by the first test that needs it."""
    if not folder.exists():
        train(of_scenes(), folder)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """A workdir with the files of `run` that a test may damage, and its checkpoints."""
    for name in ("config.json", "launch.json", "text.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    return tmp_path


def test_words_are_those_of_the_training_captions_and_a_loaded_model_has_them(run, of_scenes):
    expected = Tokens(Words.learned(CAPTIONS, 300), 32)
    assert load(run).text == expected and json.loads((run / "text.json").read_text()) == expected.to_json()
    assert load(run).at(1).text is not None and " red" in expected.tokenizer.words
    assert workdir.read(run, "launch.json")["text"] == expected.digest()


def test_the_size_of_the_table_is_known_before_the_words(run, of_scenes):
    table = load(run).params["encoder"]["table"]["embedding"]
    assert table.shape == (300, 4) == Experiment(of_scenes()).param_shapes["encoder"]["table"]["embedding"].shape
    config = of_scenes(**{"text.tokenizer": "bytes", "text.max_tokens": 128})
    shapes = Experiment(config).param_shapes["encoder"]
    assert shapes["table"]["embedding"].shape == (257, 4) and shapes["places"].shape == (128, 4)


def test_a_run_that_is_stopped_goes_on_to_the_same_bits_with_its_own_words(run, of_scenes, tmp_path, monkeypatch):
    train(of_scenes(**{"training.n_iters": 1}), tmp_path)
    first = (tmp_path / "text.json").read_bytes()
    monkeypatch.setattr(Words, "learned", None)
    train(of_scenes(), tmp_path)
    assert (tmp_path / "text.json").read_bytes() == first and load(tmp_path).digest == load(run).digest


def test_tokens_that_captions_have_learn_and_others_stay(run):
    model = load(run, ema=False)
    fresh = jax.device_get(jax.jit(model.experiment.init_params)())
    tables = (each["encoder"]["table"]["embedding"] for each in (model.params, fresh))
    moved = np.any(np.not_equal(*tables), axis=1)
    assert moved[END] and not moved[[0, 200]].any()  # 0 stands where there is padding
    assert set(np.flatnonzero(moved)) <= set(np.concatenate([model.text.tokenizer.encode(each) for each in CAPTIONS]))


def test_the_loss_of_a_split_is_that_of_its_captions(run):
    model = load(run)
    source = load_data(model.config, train=False)
    indices = np.arange(len(source))
    found = over_split.loss(model, captioned(source, model.text))["mean"]
    pixels, cond = source.take(indices).images, model.text.cond(source.captions(indices))
    losses = {
        name: np.mean(model.evaluation(model.params, pixels, 0, indices, given)["loss"])
        for name, given in {"captions": cond, "none": None}.items()
    }
    np.testing.assert_allclose(found, losses["captions"], rtol=1e-6)
    assert abs(losses["captions"] - losses["none"]) > 1e-6 * losses["none"]


def test_an_evaluation_has_losses_and_bits_per_dim_of_a_captioned_split(run, tmp_path):
    config = workdir.stored_config(run)
    config.eval.update(enable_bpd=True, max_images=8, batch_size=8, begin_ckpt=-1)
    evaluate(config, run, out=tmp_path)
    (entry,) = json.loads((tmp_path / "eval" / "report.json").read_text())["checkpoints"]
    assert entry["loss"]["mean"] > 0 and entry["bits_per_dim"]["images"] == 8


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"encoder.name": "", "encoder.features": None},
            r"text\.tokenizer=words makes tokens .*set encoder\.name=text",
        ),
        ({"encoder.max_tokens": 5}, r"encoder\.max_tokens=5, .* it is 32; leave encoder\.max_tokens out"),
        ({"encoder.vocab_size": 301}, r"encoder\.vocab_size=301, .* it is 300;"),
        ({"text.tokenizer": ""}, r"takes tokens; set text\.tokenizer=words, .* or encoder\.vocab_size"),
        ({"text.tokenizer": "", "encoder.vocab_size": 9}, r"scenes has no tokens, .* set text\.tokenizer=words"),
        ({"text.max_tokens": 3}, r"The caption '.*' has \d+ tokens, .* text\.max_tokens=3; shorten it"),
        ({"data.random_flip": True}, "A mirrored picture is no longer what its caption says"),
    ],
)
def test_text_that_does_not_fit_is_refused_before_anything_is_written(of_scenes, values, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        train(of_scenes(**values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_may_say_the_sizes_of_text_once_more(of_scenes):
    Experiment(of_scenes(**{"encoder.max_tokens": 32, "encoder.vocab_size": 300}))


def test_data_without_captions_are_refused(of_scenes, tmp_path):
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 16, 16, 3), np.uint8))
    values = {"data.dataset": "array", "data.path": str(tmp_path / "images.npz"), "data.scene_objects": 3}
    with pytest.raises(UsageError, match="Text needs captions, and this data set has none"):
        train(of_scenes(**values, **{"data.scene_images": 50_000}), tmp_path / "run")


def test_captions_are_cut_where_the_config_says_so(of_scenes):
    config = of_scenes(**{"text.max_tokens": 3, "text.truncate": True})
    source = load_data(config, train=True)
    cut = captioned(source, text.of_config(config, source))
    text.check_captions(cut)
    assert cut.take(np.arange(4)).cond["tokens_mask"].all()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), r"has no text\.json, without which its network cannot read captions; restore it"),
        (lambda path: path.write_text(path.read_text()[:40]), "is not valid JSON"),
        (lambda path: path.write_text('{"kind": "pictures"}'), r"Unknown kind 'pictures'; choose from: tokens"),
        (lambda path: path.write_text('{"kind": "tokens"}'), r"cannot be used: it has no 'tokenizer'; restore it"),
        (lambda path: path.write_text(json.dumps(Tokens(Bytes(), 32).to_json())), "not the one that this run was"),
    ],
)
def test_a_workdir_without_its_text_says_so(copy, of_scenes, damage, words):
    damage(copy / "text.json")
    for use in (load, lambda folder: train(of_scenes(), folder)):
        with pytest.raises(UsageError, match=words):
            use(copy)


def test_a_training_from_weights_of_another_run_reads_captions_as_that_run(run, of_scenes, tmp_path):
    def learning():
        raise AssertionError("the words are those of the first run")

    values = {"training.start_from": str(run), "data.scene_seed": 1}
    assert text.of_training(tmp_path, of_scenes(**values), learning) == load(run).text
    with pytest.raises(UsageError, match=r"text\.truncate=False, not True; set text\.\*"):
        text.of_training(tmp_path, of_scenes(**values, **{"text.truncate": True}), learning)


def test_a_run_without_text_has_none(of_scenes, tmp_path):
    config = of_scenes(**{"text.tokenizer": "", "encoder.name": "", "encoder.features": None})
    workdir.write(tmp_path, "config.json", config.to_dict())
    assert text.stored(tmp_path) is None and text.of_config(config, load_data(config, train=True)) is None


def test_a_description_says_how_captions_are_read(run, of_scenes, tiny_config, capsys):
    config = of_scenes()
    with config.unlocked():
        config.model = tiny_config().model
    describe(config)
    assert "text: words, 300 tokens with those that training learns; captions of at most 32 tokens" in (
        capsys.readouterr().out
    )
    words = load(run).text.tokenizer.words
    expected = f"text: words, {len(words)} words; captions of at most 32 tokens; longer ones are refused"
    assert text.of_described(config, run) == expected


@pytest.mark.parametrize(
    ("max_tokens", "words"), [(32, "none has more than text.max_tokens=32"), (3, "100.0% have more than")]
)
def test_the_data_are_described_with_the_lengths_of_their_captions(max_tokens, words, capsys):
    options = {"data.dataset": "scenes", "data.scene_images": 50, "data.scene_objects": 1, "data.random_flip": False}
    options |= {"text.tokenizer": "words", "text.max_tokens": max_tokens}
    command = ["score_sde", "--mode=data", "--config=vp/cifar10_ddpmpp_continuous"]
    assert main([*command, *(f"--config.{key}={value}" for key, value in options.items())]) == 0
    printed = capsys.readouterr().out
    assert words in printed and "  all captions: " in printed and "tokens, " in printed
