"""Whether generated images help a classifier: Bayes rates, copies, label noise in closed form, and a short run."""

import json

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm
from score_sde.experiments.augmentation import classifier, generator, measure, page, report, splits
from score_sde.experiments.augmentation.__main__ import counts_of, program
from score_sde.experiments.augmentation.classifier import Options, batch, train
from score_sde.experiments.augmentation.config import TRANSFORMS, Transform, get_config, transform_of
from score_sde.experiments.augmentation.measure import Fit
from score_sde.experiments.augmentation.run import Plan, run
from score_sde.experiments.augmentation.splits import Pool
from test_conditional import saved

from score_sde import data
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import sample
from score_sde.randomness import sample_keys

RNG = np.random.default_rng(0)
LINEAR = Options(updates=600, batch_size=512, width=0, lr=0.02)
SHAPE, STD, APART = (4, 4, 1), 20.0, 2.0  # of two Gaussians, in levels, and their distance in standard deviations
BAYES = norm.cdf(APART / 2)
DIRECTION = RNG.standard_normal(SHAPE)
DIRECTION /= np.linalg.norm(DIRECTION)


def gaussians(n: int) -> Pool:
    """Exact samples of two classes with one covariance, so that Bayes' rule is linear."""
    labels = np.arange(n) % 2
    means = (labels - 0.5)[:, None, None, None] * APART * DIRECTION
    return Pool(np.rint(128 + STD * (means + RNG.standard_normal((n, *SHAPE)))).astype(np.uint8), labels)


def accuracy(real: Pool, generated: Pool | None = None, share: float = 0.0) -> float:
    """The exact accuracy on the Gaussians of the linear rule that is trained on pools."""
    (layer,) = train(LINEAR, 2, [real], generated and [generated], share).values()
    weights = (layer["kernel"][0, :, 1] - layer["kernel"][0, :, 0]) * 2 / 255  # of levels
    bias = layer["bias"][0, 1] - layer["bias"][0, 0] + (128 - 127.5) * weights.sum()
    signal = STD * APART / 2 * (weights @ DIRECTION.ravel())
    spread = np.sqrt(STD**2 + 1 / 12) * np.linalg.norm(weights)  # levels are rounded
    return float(norm.cdf((signal + bias) / spread) + norm.cdf((signal - bias) / spread)) / 2


def predicted(flipped: tuple[float, float]) -> float:
    """The accuracy of the linear rule with the least expected loss, by quadrature, where labels 0 and 1 are flipped."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def loss(rule: np.ndarray) -> float:
        logits = [rule[0] * (nodes + side) + rule[1] for side in (-APART / 2, APART / 2)]
        wrong = [np.logaddexp(0, logits[0]), np.logaddexp(0, -logits[1])]
        right = [np.logaddexp(0, -logits[0]), np.logaddexp(0, logits[1])]
        return sum(weights @ ((1 - p) * a + p * b) for p, a, b in zip(flipped, wrong, right, strict=True))

    slope, bias = minimize(loss, [0.1, 0.0]).x
    ends = [norm.cdf(np.sign(slope) * APART / 2 + side * bias / abs(slope)) for side in (-1, 1)]
    return float(np.mean(ends))


def noisy(pool: Pool, flipped: tuple[float, float]) -> Pool:
    """The pool with these parts of the labels 0 and 1 flipped, so that only images are random."""
    rank = np.arange(len(pool.labels)) // 2 / (len(pool.labels) / 2)
    flips = rank < np.take(flipped, pool.labels)
    return pool._replace(labels=np.where(flips, 1 - pool.labels, pool.labels))


# Generators whose worth is known.


def test_samples_of_an_exact_generator_reach_the_bayes_rate_and_never_exceed_it():
    assert BAYES - 0.002 < accuracy(gaussians(40_000)) <= BAYES


@pytest.mark.parametrize("flipped", [(0.0, 0.4), (0.2, 0.2), (0.7, 0.7)])
def test_label_noise_lowers_the_score_as_the_quadrature_predicts(flipped):
    measured = accuracy(noisy(gaussians(40_000), flipped))
    assert measured == pytest.approx(predicted(flipped), abs=0.004)  # three standard deviations over samples


def test_the_prediction_for_symmetrical_noise_is_the_bayes_rate_or_its_reverse():
    assert predicted((0.2, 0.2)) == pytest.approx(BAYES, abs=1e-5)
    assert predicted((0.7, 0.7)) == pytest.approx(1 - BAYES, abs=1e-5)
    assert predicted((0.0, 0.4)) < BAYES - 0.14


@pytest.mark.parametrize("most", [None, TRANSFORMS["fashion_mnist"]])
def test_a_generator_that_copies_changes_no_bit_at_any_share(most):
    real, options = gaussians(20), Options(updates=5, batch_size=16, width=2)
    copies = Pool(*(np.repeat(each, 4, axis=0) for each in real))
    alone = train(options, 2, [real] * 2, most=most)
    for share in (0.5, 1.0):
        jax.tree.map(np.testing.assert_array_equal, train(options, 2, [real] * 2, [copies] * 2, share, most), alone)


def test_copies_are_counted_and_exact_samples_are_none():
    real = gaussians(20)
    assert measure.copies(real, Pool(*(np.repeat(each, 2, axis=0) for each in real))) == 1
    assert measure.copies(real, gaussians(200)) == 0
    turned = Pool(real.images[:, :, ::-1], real.labels)
    assert measure.copies(real, turned) < measure.copies(real, turned, mirrored=True) == 1


def test_samples_of_an_exact_generator_help_where_real_images_are_few():
    real, generated = gaussians(10), gaussians(40_000)
    alone, both = (accuracy(real, generated, share) for share in (0.0, 0.5))
    assert alone + 0.02 < both < accuracy(real, generated, 1.0)


# Batches, subsets and transforms.

transformed = jax.jit(classifier.transformed, static_argnums=2)


def test_a_batch_is_a_function_of_seed_and_update_and_has_its_share():
    real, generated = gaussians(10), gaussians(30)._replace(labels=np.full(30, 7))
    labels = np.concatenate([batch(0, step, 500, real, generated, 0.25)[1] for step in range(4)])
    assert np.mean(labels == 7) == pytest.approx(0.25, abs=0.04)
    np.testing.assert_array_equal(batch(1, 2, 8, real)[0], batch(1, 2, 8, real)[0])
    assert (batch(1, 2, 8, real)[0] != batch(1, 3, 8, real)[0]).any()


def test_subsets_are_balanced_nested_and_without_the_validation_part():
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    numbered = Pool(np.arange(60, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    parts = splits.split(numbered, numbered, ("a", "b", "c"))
    assert np.bincount(parts.validation.labels).tolist() == [2, 4, 6]
    few, more, every = ({*splits.subset(parts.train, parts.names, n, 0).images.ravel()} for n in (3, 6, 0))
    assert len(few) == 9 and few < more < every and len(every) == 48
    assert not every & {*parts.validation.images.ravel()}
    assert few != {*splits.subset(parts.train, parts.names, 3, 1).images.ravel()}


def test_transforms_of_no_size_change_no_bit_and_a_flip_is_one():
    x, keys = RNG.standard_normal((20, 7, 5, 2)).astype(np.float32), sample_keys(jax.random.key(0), np.arange(20))
    np.testing.assert_array_equal(transformed(keys, x, Transform(0.0)), x)
    flipped = np.asarray(transformed(keys, x, Transform(0.0, flip=True)))
    mirrored = (flipped == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 4 < mirrored.sum() < 16 and (flipped[~mirrored] == x[~mirrored]).all()


def test_a_shift_stays_within_its_limit_and_moves_what_is_in_the_image():
    x = np.zeros((200, 9, 9, 1), np.float32)
    x[:, 4, 4] = 1
    moved = np.asarray(transformed(sample_keys(jax.random.key(1), np.arange(200)), x, Transform(2 / 9)))[..., 0]
    rows = np.einsum("nij,i->n", moved, np.arange(9)) - 4
    assert np.abs(rows).max() < 2 + 1e-5 and rows.std() == pytest.approx(2 / np.sqrt(3), rel=0.1)


def test_no_flip_is_where_labels_would_not_survive_one():
    assert not transform_of("digits").flip and not transform_of("MNIST").flip and not transform_of("folder").flip
    assert transform_of("fashion_mnist").flip and transform_of("cifar10").flip


# The choice and the words.


def test_validation_images_alone_choose_the_share():
    wrong, right = np.zeros((2, 5), bool), np.ones((2, 5), bool)
    fits = {
        0.25: Fit(wrong, np.array([0.9, 0.9])),
        0.5: Fit(right, np.array([0.8, 0.9])),
        0.75: Fit(right, np.zeros(2)),
    }
    assert measure.chosen(fits) == 0.25


def test_a_verdict_is_of_the_corrected_test_in_either_order():
    better, equal = np.ones((4, 500), bool), RNG.random((4, 500)) < 0.7
    of = measure.compared({"real": Fit(equal, np.zeros(4)), "both": Fit(better, np.zeros(4))})
    assert report.verdict(of, "both", "real").endswith("better") and report.verdict(of, "real", "both").endswith(
        "worse"
    )
    of = measure.compared({"real": Fit(equal, np.zeros(4)), "both": Fit(equal[:, ::-1], np.zeros(4))})
    assert report.verdict(of, "both", "real") == "no difference shown"
    assert not report.verdict(of, "generated", "real")


# Mistakes.


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((4, 8, 8, 1), np.uint8)}, "has no labels; --mode=sample with"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.arange(4)}, r"uint8 of shape \(8, 8, 1\) each"),
        ({"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.arange(4)}, "a number from 0 to 1"),
        ({"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.zeros(4, int)}, "has none of class b"),
        ({"images": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.arange(4) // 3}, "has 1 of class b, and --each=2"),
    ],
)
def test_a_file_of_samples_that_does_not_suffice_is_one_sentence(arrays, words, tmp_path):
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(UsageError, match=words):
        splits.samples(tmp_path / "samples.npz", 2, Pool(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1)), ("a", "b"))


def test_a_file_of_samples_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"There is no file .*none\.npz; look at its name"):
        splits.samples(tmp_path / "none.npz", 2, Pool(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1)), ("a", "b"))


def test_too_few_real_images_and_no_labels_are_one_sentence(tiny_config, tmp_path):
    pool = gaussians(20)
    with pytest.raises(UsageError, match="--counts=11 is more than the 10 training images that class a has"):
        splits.subset(pool, ("a", "b"), 11, 0)
    with pytest.raises(UsageError, match="Class c has 0 training images"):
        splits.split(pool, pool, ("a", "b", "c"))
    np.save(tmp_path / "images.npy", pool.images)
    config = tiny_config()
    config.data.update(dataset="array", path=str(tmp_path / "images.npy"))
    with pytest.raises(UsageError, match="has no labels of two or more classes"):
        splits.load(config)


@pytest.mark.parametrize("text", ["", "5,none", "0", "5,5", "-1"])
def test_counts_are_whole_numbers_or_all(text):
    with pytest.raises(UsageError, match="must be different whole numbers of 1 or more, or all"):
        counts_of(text)
    assert counts_of("all,15,5") == (5, 15, 0)


# Runs.


@pytest.fixture
def few(tiny_config):
    """The config of a class-conditional model."""
    config = tiny_config()
    config.model.num_classes = 10
    config.sampling.update(method="ddim", num_steps=2)
    return config


@pytest.mark.usefixtures("one_block")
def test_one_command_writes_labelled_samples_that_a_data_set_reads(few, tmp_path):
    saved(few, tmp_path / "run")
    few.sampling.update(condition="class=all", num_samples=20, save=("arr_0",))
    sample(few, tmp_path / "run")
    (path,) = (tmp_path / "run" / "samples").glob("*.arr_0.npz")
    source = data.load("array", train=True, path=str(path), image_size=8, num_channels=1, held_out=0.0)
    batch = source.take(np.arange(20))
    np.testing.assert_array_equal(batch.labels, np.arange(20) % 10)
    np.testing.assert_array_equal(batch.images, np.load(path)["arr_0"])


@pytest.mark.usefixtures("one_block")
def test_a_model_without_classes_is_refused(tiny_config, tmp_path):
    saved(tiny_config(), tmp_path / "run")
    with pytest.raises(UsageError, match="is unconditional, and a classifier needs samples of classes"):
        program(["augmentation", f"--folder={tmp_path / 'out'}", f"--workdir={tmp_path / 'run'}", "--counts=5"])


def test_a_run_is_measured_drawn_and_not_repeated(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("score_sde.experiments.augmentation.run.get_config", lambda: _of(get_config(), data_dir))
    labels = np.arange(40) % 10
    np.savez(tmp_path / "samples.npz", arr_0=RNG.integers(0, 256, (40, 8, 8, 1), np.uint8), arr_1=labels)
    plan = Plan((5, 0), 2, 4, Options(updates=4, batch_size=8, width=0), samples=tmp_path / "samples.npz")
    assert run(tmp_path / "out", plan) == 0
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    shown = (tmp_path / "out" / "report.html").read_text()
    assert set(result["counts"]) == {"5", "all"} and result["counts"]["5"]["images"] == 50
    assert all(len(of["rows"]["both"]["values"]) == 2 and of["comparisons"] for of in result["counts"].values())
    assert "Nothing is known of the images" in shown and shown.count("<svg") == 2 and shown.count("<img") == 2
    monkeypatch.setattr(classifier, "train", None)  # and none is trained anew
    monkeypatch.setattr(page, "write", lambda *_: None)
    assert run(tmp_path / "out", plan) == 0 and "Chosen shares of generated images" in capsys.readouterr().out


def test_a_generator_is_trained_on_the_images_of_its_classifier_and_draws_each_class(few, tmp_path, monkeypatch):
    few.training.n_iters = 2
    monkeypatch.setattr(generator, "get_config", lambda: few)
    monkeypatch.setattr(generator, "SCHEDULE", {"training.n_iters": 2, "training.snapshot_freq": 2})
    real = Pool(RNG.integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 10)
    parts = splits.split(real, real, tuple("abcdefghij"))
    pool = generator.trained_here(tmp_path, parts, 2)(3, 1)
    assert pool.images.shape == (20, 8, 8, 1) and np.bincount(pool.labels).tolist() == [2] * 10
    stored = np.load(tmp_path / "generators" / "3_1" / generator.FILE)
    np.testing.assert_array_equal(stored["x_train"], splits.subset(parts.train, parts.names, 3, 1).images)


def _of(config, data_dir):
    config.data.data_dir = data_dir
    return config
