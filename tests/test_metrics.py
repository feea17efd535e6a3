"""Features, statistics, protocols and the figures made of them."""

import re

import numpy as np
import pytest
from score_sde.experiments.features.run import rows

from score_sde import data, metrics
from score_sde.cli.main import main
from score_sde.errors import UsageError
from score_sde.evaluation import report, sample_metrics
from score_sde.evaluation.figure_names import short_names
from score_sde.metrics import features as of_images
from score_sde.metrics.features import Features

OPTIONS = metrics.Options(nf=16, dimension=24, n_iters=300, batch_size=64)


@pytest.fixture(scope="module")
def digits(data_dir) -> data.Source:
    return data.load("digits", train=True, image_size=8, num_channels=1, data_dir=data_dir)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory) -> tuple[Features, object]:
    folder = tmp_path_factory.mktemp("features")
    return metrics.trained_features(digits, OPTIONS, folder, 256), folder


def statistics_of(pixels: np.ndarray, features: Features) -> metrics.Statistics:
    return metrics.statistics_of(data.InMemory(pixels), features, {"features_digest": features.digest})


def distance(features: Features, samples: np.ndarray, reference: metrics.Statistics) -> float:
    return figures(features, samples, reference)[f"frechet_distance[features={features.name}]"]["mean"]


def figures(features: Features, samples: np.ndarray, reference: metrics.Statistics) -> dict:
    return metrics.measure(features.name, features.of(samples), reference)


def corrupted(pixels: np.ndarray, levels: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, levels, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def test_trained_features_tell_digits_from_what_are_none_the_better_the_worse_they_are(digits, trained):
    features, _ = trained
    first, second = digits.images[::2], digits.images[1::2]
    reference = statistics_of(first, features)
    same = distance(features, second, reference)
    worse = [distance(features, corrupted(second, levels), reference) for levels in (32, 64, 128)]
    assert 0 <= same < worse[0] < worse[1] < worse[2]
    assert 5 * same < worse[1]


def test_precision_on_trained_features_is_low_for_noise_and_for_spoilt_images(digits, trained):
    features, _ = trained
    reference = statistics_of(digits.images[::2], features)
    found = {row.name: row for row in rows(features, reference, digits.images[1::2], {})}
    assert found["held-out images"].precision > 0.8 < found["held-out images"].recall
    for name in ("uniform noise", "Gaussian noise", "pixels shuffled", "one colour", "blurred by 1/8 of the side"):
        assert found[name].precision < 0.05, name
    for worse in ("noise of {} levels added", "blurred by 1/{} of the side"):
        distances = [found[worse.format(part)].distance for part in ((10, 26, 64) if "noise" in worse else (32, 16, 8))]
        assert found["held-out images"].distance < distances[1] < distances[2] > distances[0]


def test_trained_features_are_a_function_of_data_and_options_and_are_kept(digits, trained):
    features, folder = trained
    (file,) = folder.iterdir()
    assert features.name == f"trained-{features.digest[:8]}"
    content = file.read_bytes()
    assert metrics.trained_features(digits, OPTIONS, folder, 64).digest == features.digest
    assert file.read_bytes() == content
    file.write_bytes(content[:-50])  # damaged: made again
    assert metrics.trained_features(digits, OPTIONS, folder, 64).digest == features.digest
    assert file.read_bytes() == content
    short = OPTIONS._replace(n_iters=5)
    fewer = data.InMemory(digits.images[1:], digits.labels[1:])
    names = {metrics.trained_features(source, short, folder, 64).name for source in (digits, fewer)}
    assert len(names | {features.name}) == 3


def test_a_data_set_without_labels_trains_on_turns(digits, tmp_path):
    features = metrics.trained_features(data.InMemory(digits.images), OPTIONS._replace(n_iters=5), tmp_path, 64)
    assert features.of(digits.images[:70])["features"].shape == (70, 24)


def test_features_do_not_depend_on_the_batch(digits, trained):
    features, _ = trained
    whole = features.of(digits.images[:300])["features"]
    parts = [features.of(digits.images[i : i + 100])["features"] for i in (0, 100, 200)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5 * np.abs(whole).max())


def test_statistics_are_moments_of_every_image_and_survive_their_file(digits, trained, tmp_path):
    features, _ = trained
    found = statistics_of(digits.images, features)
    all_features = features.of(digits.images)["features"].astype(np.float64)
    np.testing.assert_allclose(found.mean, all_features.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.cov(all_features, rowvar=False), rtol=1e-6, atol=1e-8)
    found.save(tmp_path / "statistics.npz", "--out")
    again = metrics.load_statistics(tmp_path / "statistics.npz")
    assert (again.digest, again.n, again.about) == (found.digest, len(digits), found.about)
    np.testing.assert_array_equal(again.features, found.features)
    assert figures(features, digits.images[:50], again) == figures(features, digits.images[:50], found)


def test_statistics_of_others_are_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    moments = {"mu": x.mean(axis=0), "sigma": np.cov(x, rowvar=False)}
    np.savez(tmp_path / "fid.npz", **moments)
    np.savez(tmp_path / "paper.npz", pool_3=x)
    theirs, papers = (metrics.load_statistics(tmp_path / name) for name in ("fid.npz", "paper.npz"))
    np.testing.assert_allclose(papers.mean, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(papers.covariance, theirs.covariance, rtol=1e-5, atol=1e-7)
    arrays = {"features": x[:20]}
    assert set(metrics.measure("inception", arrays, theirs)) == {"fid"}
    assert set(metrics.measure("inception", arrays, papers)) == {"fid", "kid", "precision", "recall"}
    np.savez(tmp_path / "other.npz", images=x)
    (tmp_path / "page.npz").write_bytes(b"<html>")
    for name, words in (("other", "no statistics"), ("page", "compute them again"), ("none", "No file")):
        with pytest.raises(UsageError, match=words):
            metrics.load_statistics(tmp_path / f"{name}.npz")


def test_only_inceptions_distances_are_called_fid():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    reference = metrics.Statistics(40, np.zeros(4), np.eye(4), x, {})
    found = metrics.measure("trained-12345678", {"features": x}, reference)
    assert all(name.endswith("[features=trained-12345678]") for name in found)
    assert not any(name.startswith(("fid", "kid", "inception")) for name in found)
    found = metrics.measure("inception", {"features": x, "logits": x}, reference)
    assert set(found) == {"fid", "fid_infinity", "kid", "precision", "recall", "inception_score"}


def test_features_of_ones_own_have_a_cmmd_and_the_others_none():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    reference = metrics.Statistics(40, np.zeros(4), np.eye(4), x, {})
    for name in ("inception", "inception-12345678", "trained-12345678"):
        assert not any("cmmd" in figure for figure in metrics.measure(name, {"features": x}, reference))
    figure = metrics.measure("Clip-12345678", {"features": x + 1}, reference)["cmmd[features=Clip-12345678]"]
    assert figure["mean"] > 3 * figure["standard_error"] > 0 and figure["over"] == "all pairs"


def test_the_inception_score_says_over_how_many_splits_it_is():
    rng = np.random.default_rng(0)
    arrays = {"features": rng.normal(size=(60, 4)).astype(np.float32), "logits": rng.normal(size=(60, 5))}
    reference = metrics.Statistics(40, np.zeros(4), np.eye(4), None, {})
    figures = metrics.measure("inception", arrays, reference, inception_splits=10)
    assert set(figures) == {"fid", "fid_infinity", "inception_score[splits=10]"}
    names, _ = short_names(figures)
    assert names["inception_score[splits=10]"] == "Inception score (10 splits)"


def test_features_that_were_computed_elsewhere_are_measured(tmp_path, capsys):
    rng = np.random.default_rng(0)
    samples, of_data = rng.normal(0.5, 1, (50, 6)), rng.normal(size=(80, 6))
    np.savez(tmp_path / "samples.npz", features=samples)
    np.save(tmp_path / "data.npy", of_data)
    np.savez(tmp_path / "moments.npz", mu=of_data.mean(axis=0), sigma=np.cov(of_data, rowvar=False))
    mode = ["score_sde", "--mode=measure", f"--samples={tmp_path / 'samples.npz'}"]
    assert main([*mode, f"--reference={tmp_path / 'data.npy'}"]) == 0
    printed = capsys.readouterr().out
    figures = metrics.measure("x", {"features": np.float32(samples)}, metrics.load_statistics(tmp_path / "data.npy"))
    for name, title in (("frechet_distance", "Fréchet"), ("kernel_distance", "kernel distance"), ("cmmd", "CMMD")):
        assert f"{title} (file) {report.text(figures[f'{name}[features=x]'])}\n" in printed
    assert main([*mode, f"--reference={tmp_path / 'moments.npz'}"]) == 0
    assert "CMMD" not in capsys.readouterr().out  # there are no pairs


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((50, 5)), "holds 5 features of an image, and .* 6"),
        (np.zeros((1, 6)), "at least two images"),
        (np.zeros(6), "at least two images"),
        (np.zeros((50, 6), int), "floating-point numbers"),
        (np.full((50, 6), np.nan), "not finite"),
        (None, "no whole .npz or .npy file"),
    ],
)
def test_features_that_cannot_be_measured_are_one_sentence(array, sentence, tmp_path, capsys):
    path = tmp_path / "samples.npy"
    path.write_bytes(b"<html>") if array is None else np.save(path, array)
    np.savez(tmp_path / "data.npz", mu=np.zeros(6), sigma=np.eye(6))
    assert main(["score_sde", "--mode=measure", f"--samples={path}", f"--reference={tmp_path / 'data.npz'}"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize("n", [2, 5])
def test_a_handful_of_samples_has_what_can_be_had(n, trained, digits):
    features, _ = trained
    found = figures(features, digits.images[:n], statistics_of(digits.images[:9], features))
    assert found and all(np.isfinite(figure["mean"]) for figure in found.values())


def test_a_fingerprint_is_one_of_the_protocol_whatever_its_order():
    first = {"sampler": "pc", "nfe": 1000, "options": {"snr": 0.16}}
    assert metrics.fingerprint(first) == metrics.fingerprint(dict(reversed(first.items())))
    second = first | {"nfe": 2000}
    assert metrics.fingerprint(first) != metrics.fingerprint(second)
    metrics.check_comparable(first, dict(first))
    with pytest.raises(UsageError, match=r"do not compare.*nfe: 1000 and 2000"):
        metrics.check_comparable(first, second)


def test_absent_weights_without_a_network_are_one_sentence(tmp_path, monkeypatch):
    nowhere = of_images.WEIGHTS._replace(url="http://127.0.0.1:9/weights.pth")  # nobody listens there
    monkeypatch.setattr(of_images, "WEIGHTS", nowhere)
    with pytest.raises(UsageError, match=r"Cannot download .*put pt_inception.* yourself, or set config.metrics.dir"):
        metrics.inception_features("", tmp_path, 8)
    with pytest.raises(UsageError, match="weights to a copy of"):
        metrics.inception_features(str(tmp_path / "none.pth"), tmp_path, 8)
    assert list(tmp_path.iterdir()) == []


def test_the_program_keeps_statistics_that_an_evaluation_takes(tmp_path, data_dir, capsys, tiny_config):
    arguments = ["score_sde", "--mode=statistics", "--config=vp/digits_ddpmpp_continuous"]
    arguments += [
        f"--config.data.data_dir={data_dir}",
        f"--config.metrics.dir={tmp_path}",
        "--config.metrics.n_iters=5",
        "--config.eval.num_samples=20",
    ]
    assert main([*arguments, f"--out={tmp_path / 'copy.npz'}"]) == 0
    printed = capsys.readouterr().out
    config = tiny_config()
    config.metrics.update(features="trained", dir=str(tmp_path), n_iters=5, statistics=str(tmp_path / "copy.npz"))
    measure = sample_metrics.measure(config)
    assert measure.features.name in printed and measure.statistics.digest in printed
    assert "uniform noise: Fréchet (trained) " in printed and "held-out images: Fréchet (trained) " in printed
    assert f"trained: features {measure.features.name}.\n" in printed
    config.metrics.n_iters = 6  # other features
    with pytest.raises(UsageError, match="holds statistics of the features trained-"):
        sample_metrics.measure(config)
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    config.metrics.update(n_iters=5, statistics=str(tmp_path / "theirs.npz"))
    with pytest.raises(UsageError, match=r"statistics of 2048 features, and trained-.* has 64"):
        sample_metrics.measure(config)
    before = {path: path.read_bytes() for path in tmp_path.glob("statistics_*")}
    config.metrics.update(n_iters=5, statistics="")
    assert sample_metrics.measure(config).statistics.digest == measure.statistics.digest
    assert {path: path.read_bytes() for path in tmp_path.glob("statistics_*")} == before
    mistakes = {f"--out={tmp_path}/a.txt": "must end in .npz", "--config.metrics.features=none": "needs no statistics"}
    mistakes["--config.metrics.features=inceptoin"] = "did you mean 'inception'"
    for extra, words in mistakes.items():
        assert main([*arguments, extra]) == 2
        assert words in capsys.readouterr().err
