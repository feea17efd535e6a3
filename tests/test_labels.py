"""Labels: told to score networks, and told by classifiers, which are trained, evaluated and refused here."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from score_sde.configs.ve.ncsn.cifar10 import get_config as ncsn

import score_sde
from score_sde import data
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.inference.train_dequantizer import train_dequantizer
from score_sde.process import LEAST_TIME
from score_sde.randomness import sample_keys, stream, uniform
from score_sde.training.build import Classification, Experiment, trainable
from score_sde.training.run import train
from score_sde.training.source_checks import check_source

pytestmark = pytest.mark.usefixtures("one_block")
CLASSIFIER = "vp/digits_wideresnet"
KEYS = sample_keys(jax.random.key(0), jnp.arange(4000))


def test_the_classes_of_a_source_are_counted():
    pixels = np.zeros((3, 4, 4, 1), np.uint8)
    named = data.InMemory(pixels, np.array([0, 1, 0]))
    named.class_names = ["a", "b", "c", "d"]
    sources = [data.InMemory(pixels), data.InMemory(pixels, np.array([0, 2, 1])), named]
    assert [source.num_classes for source in sources] == [0, 3, 4]


def test_the_old_name_of_the_names_of_classes_is_answered_with_the_new_one():
    source = data.InMemory(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 0]))
    with pytest.raises(AttributeError, match="now its class_names"):
        source.classes = ["a", "b"]
    with pytest.raises(AttributeError, match="now its class_names"):
        source.classes  # noqa: B018
    with pytest.raises(AttributeError, match="now its class_names"):
        type("Own", (data.InMemory,), {"classes": ["a", "b"]})


@pytest.fixture
def told(tiny_config, monkeypatch):
    """The labels that the network of a tiny experiment is given in a loss of these, and which of them are null."""
    config, seen = tiny_config(), []
    config.model.num_classes = 10
    experiment = Experiment(config)
    monkeypatch.setattr(
        experiment, "network_fn", lambda params, *, cond, **_: seen.append(cond) or (lambda x, noise_cond: x)
    )

    @functools.partial(jax.jit, static_argnames="training")
    def classes(keys, x, labels, training=False):
        experiment.loss({}, keys, x, {"labels": labels}, training=training)
        given = seen.pop()
        return given["labels"], given.get("null", {}).get("labels", jnp.zeros(len(x), bool))

    return classes


def test_a_label_is_dropped_in_training_by_its_own_key_at_the_given_rate(told):
    x, labels = np.zeros((4000, 2, 2, 1), np.float32), np.arange(4000) % 10
    given, dropped = told(KEYS, x, labels, training=True)
    assert abs(dropped.mean() - 0.1) < 4 * np.sqrt(0.09 / 4000)
    np.testing.assert_array_equal(given, labels)
    np.testing.assert_array_equal(dropped, uniform(stream(KEYS, 16)) < 0.1)  # as ever
    _, on_another_device = told(KEYS[7:99], x[7:99], labels[7:99], training=True)
    np.testing.assert_array_equal(on_another_device, dropped[7:99])
    _, in_evaluation = told(KEYS, x, labels)
    assert not in_evaluation.any()


def test_networks_without_classes_are_told_none(tiny_config):
    of_ncsn = ncsn()
    of_ncsn.model.nf = 8  # whose own classes are noise levels
    for config in (tiny_config(), of_ncsn):
        experiment = Experiment(config)
        assert experiment.num_classes == 0 and not experiment.cond_entries
        with pytest.raises(UsageError, match="takes no condition entry 'labels'"):
            experiment.score_fn(experiment.param_shapes, cond={"labels": jnp.zeros(1, jnp.int32)})


@pytest.fixture
def classification(tiny_config, monkeypatch):
    """A Classification under VE, of images as they are, and how to give it other logits, of (x, t)."""
    config = tiny_config("ve/digits_wideresnet")
    config.data.uniform_dequantization = False
    built = Classification(config)
    return built, lambda logits: monkeypatch.setattr(built, "logits_fn", lambda *_: logits)


def test_constant_logits_lose_the_logarithm_of_the_number_of_classes(classification):
    built, put = classification
    put(lambda x, t: jnp.zeros((len(x), 7)))
    loss = jax.jit(built.loss)({}, KEYS, np.zeros((4000, 2, 2, 1), np.float32), {"labels": np.arange(4000) % 7})
    np.testing.assert_allclose(loss, np.log(7), rtol=1e-6)


def test_exact_logits_lose_what_the_noise_hides_of_the_class(classification):
    """Of images 0 and 1: E log(1 + exp(-(1/2 + s z) / s^2)) over t and z, by quadrature; and hits are Phi(1/(2 s))."""
    built, put = classification
    sde, labels = built.sde, np.arange(4000) % 2
    put(lambda x, t: -jnp.square(x[:, 0, 0] - jnp.arange(2)) / (2 * jnp.square(sde.sigma(t)))[:, None])
    x = labels.astype(np.float32)[:, None, None, None]
    loss = np.asarray(jax.jit(built.loss)({}, KEYS, x, {"labels": labels}))
    t = LEAST_TIME + (1 - LEAST_TIME) * (np.arange(400) + 0.5) / 400
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    s = np.asarray(sde.sigma(t))[:, None]
    expected = (np.logaddexp(0, -(0.5 + s * z) / s**2) * weights).sum() / weights.sum() / len(t)
    assert abs(loss.mean() - expected) < 4 * loss.std() / np.sqrt(len(loss))

    s = 0.7
    times = np.full(4000, sde.time(np.array(s)), np.float32)
    hits = np.asarray(jax.jit(built.hits)({}, KEYS, (255 * x).astype(np.uint8), labels, times))
    rate = stats.norm.cdf(0.5 / s)
    assert abs(hits.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 4000)


@pytest.fixture
def few(tmp_path) -> dict:
    """Options of data: 40 images with labels, of which some are held out."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", images=pixels, labels=np.arange(40) % 10)
    return dict(dataset="array", path=str(tmp_path / "few.npz"))


def test_a_classifier_trains_and_is_evaluated(tiny_config, few, tmp_path, capsys):
    config = tiny_config(CLASSIFIER)
    config.data.update(few)
    config.training.snapshot_sampling = True  # of which there are none
    config.eval.begin_ckpt = 2
    train(config, tmp_path / "whole")
    whole = score_sde.load_classifier(tmp_path / "whole")
    assert not (tmp_path / "whole" / "samples").exists()

    evaluate(config, tmp_path / "whole")
    (entry,) = json.loads((tmp_path / "whole/eval/report.json").read_text())["checkpoints"]
    levels, n = entry["accuracy"]["by_noise_level"], entry["loss"]["images"]
    ends = whole.sde.noise_level(np.array([LEAST_TIME, 1.0])) / 2  # of data in [-1, 1]
    np.testing.assert_allclose([level["noise_level"] for level in levels], np.geomspace(*ends, 10), rtol=1e-3)
    np.testing.assert_allclose(entry["accuracy"]["mean"], np.mean([level["mean"] for level in levels]))
    assert all(0 <= level["mean"] <= 1 and level["images"] == n for level in levels)
    page = (tmp_path / "whole/eval/report.html").read_text()
    assert "Accuracy by noise level" in page and "chance is 0.1" in page
    assert "accuracy, mean over noise levels 0." in capsys.readouterr().out

    for mode in (sample, train_dequantizer):
        with pytest.raises(UsageError, match="is a classifier"):
            mode(config, tmp_path / "whole")
    config.eval.enable_bpd = True
    with pytest.raises(UsageError, match=r"eval\.enable_bpd=False"):
        evaluate(config, tmp_path / "whole")


def test_a_network_with_classes_trains_and_is_evaluated_with_them(tiny_config, few, tmp_path):
    config = tiny_config()
    config.data.update(few)
    config.model.update(num_classes=10, init_scale=1.0)  # or the embedding's first gradient is almost nothing
    config.training.n_iters = 2
    config.eval.update(enable_bpd=False)
    train(config, tmp_path / "run")
    evaluate(config, tmp_path / "run")
    model = score_sde.load(tmp_path / "run")
    trees = jax.device_get((model.params, jax.jit(model.experiment.init_params)()))
    embedding, fresh = (tree["Embed_0"]["embedding"] for tree in trees)
    assert np.any(embedding != fresh, axis=1)[:10].sum() > 5  # of 32 labels
    pixels, indices = np.zeros((4, 8, 8, 1), np.uint8), np.arange(4)
    one, other = (
        model.evaluation(model.params, pixels, 0, indices, {"labels": np.array(labels)})["loss"]
        for labels in ([0, 1, 2, 3], [0, 2, 1, 3])
    )
    assert (one == other).tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("change", "words"), [({"num_outputs": 9}, "model.num_outputs=10"), ({"path": True}, "array has no labels")]
)
def test_labels_that_a_network_cannot_be_told_are_refused_before_anything_is_written(
    change, words, tiny_config, tmp_path
):
    config = tiny_config(CLASSIFIER)
    if "path" in change:
        np.save(tmp_path / "images.npy", np.zeros((40, 8, 8), np.uint8))
        config.data.update(dataset="array", path=str(tmp_path / "images.npy"))
    else:
        config.model.update(change)
    with pytest.raises(UsageError, match=words):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_count_from_zero(tiny_config):
    source = data.InMemory(np.zeros((2, 8, 8, 1), np.uint8), np.array([-1, 2]))
    with pytest.raises(UsageError, match="count from 0"):
        check_source(trainable(tiny_config(CLASSIFIER)), source)
