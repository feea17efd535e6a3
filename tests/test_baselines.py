"""Figures beside those of samples: of noise, of held-out images, and a warning where samples are closer to noise."""

import numpy as np
import pytest

from score_sde import data, metrics
from score_sde.errors import UsageError
from score_sde.evaluation import report, sample_metrics
from score_sde.metrics import baselines, corruptions
from score_sde.metrics.features import Features

SHAPE = (2, 2, 1)
UNIFORM = ((255 - 1) / 2, np.sqrt((255**2 - 1) / 12))  # mean and standard deviation of 0..254, as of floor(255 u)
NAMES = list(baselines.NOISES)


def numbers(pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {"features": pixels.reshape(len(pixels), -1).astype(np.float32)}


@pytest.fixture
def pixels() -> Features:
    """Features that are the pixels themselves."""
    return Features("pixels", "0" * 16, 4, ("features",), 64, numbers)


@pytest.fixture
def reference() -> metrics.Statistics:
    """A data set of pixels N(100, 20^2)."""
    x = np.random.default_rng(0).normal(100, 20, (300, 4)).astype(np.float32)
    return metrics.Statistics(300, np.full(4, 100.0), 400.0 * np.eye(4), x, {"split": "train"})


def like_data(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, (n, *SHAPE)).clip(0, 255).astype(np.uint8)


def test_the_distance_of_noise_is_its_closed_form(pixels, reference):
    found = metrics.baselines_of(3000, SHAPE, None, pixels, reference)
    mean, spread = UNIFORM
    expected = 4 * ((mean - 100) ** 2 + (spread - 20) ** 2)
    figure = found.rows["uniform noise"]["frechet_distance[features=pixels]"]
    assert abs(figure["mean"] - expected) < 4 * figure["standard_error"] < 0.05 * expected
    np.testing.assert_allclose(found.noises["uniform noise"][0], mean, atol=4 * spread / np.sqrt(3000))
    edges = metrics.baselines_of(3000, SHAPE, None, pixels, reference).noises["Gaussian noise"]
    assert abs(edges[0] - mean).max() < 8 and edges[1][0, 0] > UNIFORM[1] ** 2  # much of it is black or white


def test_noise_is_a_function_of_an_images_number():
    whole = baselines.noise("uniform noise", np.arange(5), SHAPE)
    np.testing.assert_array_equal(baselines.noise("uniform noise", np.arange(3, 5), SHAPE), whole[3:])
    assert (whole != baselines.noise("Gaussian noise", np.arange(5), SHAPE)).any()


def test_held_out_images_are_as_many_as_the_samples_or_as_there_are(pixels, reference):
    held_out = data.InMemory(like_data(200))
    for n, expected in ((50, 50), (500, 200)):
        row = metrics.baselines_of(n, SHAPE, held_out, pixels, reference).rows["held-out images"]
        assert row["images"] == expected
    assert row["precision[features=pixels]"]["mean"] > 0.8 < row["recall[features=pixels]"]["mean"]


def test_without_held_out_images_one_half_is_measured_by_the_other(pixels, reference):
    half = metrics.baselines_of(500, SHAPE, None, pixels, reference).rows["half of the images, by the other half"]
    assert half["images"] == 150
    assert half["frechet_distance[features=pixels]"]["mean"] < 100  # of pixels of variance 400
    moments = reference._replace(features=None)
    assert set(metrics.baselines_of(9, SHAPE, None, pixels, moments).rows) == set(NAMES)


def test_samples_closer_to_noise_than_to_the_data_are_warned_of(pixels, reference):
    beside = metrics.baselines_of(400, SHAPE, None, pixels, reference)
    some_noise = 0.1 * baselines.noise("Gaussian noise", np.arange(400), SHAPE) + 0.9 * like_data(400)
    for good in (like_data(400, 2), some_noise, like_data(1)):
        assert beside.warning(numbers(good)["features"], reference) is None
    saturated = np.random.default_rng(3).integers(0, 2, (400, *SHAPE)) * 255
    black = np.zeros((400, *SHAPE))
    for bad in (baselines.noise("uniform noise", np.arange(400, 800), SHAPE), saturated, black):
        assert "closer to" in beside.warning(numbers(bad)["features"], reference)


def test_baselines_are_computed_once_for_a_number_of_samples(tmp_path, tiny_config, pixels, reference, monkeypatch):
    config = tiny_config()
    config.metrics.dir = str(tmp_path)
    config.data.update(image_size=2, num_channels=1)

    def beside(n: int) -> metrics.Baselines:
        return sample_metrics._baselines(config, n, pixels, reference, lambda train: data.InMemory(like_data(30)))

    found = beside(20)
    assert list(found.rows) == [*NAMES, "held-out images"]
    assert {row["images"] for row in found.rows.values()} == {20}
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "baselines_of", None)
        again = beside(20)
    assert again.rows == found.rows
    for name in NAMES:
        np.testing.assert_array_equal(again.noises[name][1], found.noises[name][1])
    file.write_bytes(file.read_bytes()[:-50])  # damaged: made again
    assert beside(20).rows == found.rows
    beside(21)
    assert len(list(tmp_path.iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "VERSION", metrics.VERSION - 1)  # other figures are not mixed with these
        beside(21)
    config.metrics.inception_splits = 10
    beside(21)
    assert len(list(tmp_path.iterdir())) == 4


def test_held_out_images_are_of_the_split_that_the_statistics_are_not_of(tiny_config, reference, monkeypatch):
    config, asked = tiny_config(), []

    def load(train: bool) -> data.Source:
        asked.append(train)
        return data.InMemory(like_data(9, int(train)))

    for split, train in (("train", False), ("test", True)):
        of_split = reference._replace(about={"split": split})
        assert sample_metrics._held_out(config, of_split, load).digest() == load(train).digest()
        assert asked[-2:] == [train, train]
    same = {"split": "train", "data_digest": load(False).digest()}
    assert sample_metrics._held_out(config, reference._replace(about=same), load) is None

    def missing(train: bool) -> data.Source:
        raise UsageError("There is no such split.")

    assert sample_metrics._held_out(config, reference, missing) is None


def test_the_figures_of_a_table_and_its_warning_are_told(tmp_path):
    def figure(mean: float) -> dict:
        return {"fid": {"mean": mean, "standard_error": None}}

    rows = {"uniform noise": figure(400.5) | {"images": 2000}, "held-out images": figure(3.25) | {"images": 100}}
    measured = figure(390.0) | {"fingerprint": "ab", "protocol": {}, "baselines": rows, "warning": "It is noise."}
    entry = {"step": 3, "sampling": {"metrics": measured}}
    assert set(report.figures(entry)) == {"fid"}
    content = {"config": {}, "versions": {}, "devices": [], "checkpoints": [entry]}
    shown = report.write(tmp_path / "eval", content).read_text()
    for words in ("uniform noise (2,000)", "400.5", "held-out images (100)", "3.25", "Warning, step 3: It is noise."):
        assert words in shown
    assert report.lines(rows) == ["uniform noise: fid 400.5, 2000 images", "held-out images: fid 3.25, 100 images"]


@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 16, 3), (5, 3, 4), (1, 1, 2)])
def test_every_second_image_is_spoilt_each_way_as_often(shape):
    n = 4 * len(corruptions.CORRUPTIONS)
    images = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    spoilt, kinds = corruptions.corrupted(np.random.default_rng(1), images)
    assert (spoilt.shape, spoilt.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(spoilt[::2], images[::2])
    np.testing.assert_array_equal(np.bincount(kinds), [n // 2] + [2] * len(corruptions.CORRUPTIONS))
    assert kinds[::2].max() == 0
    again, _ = corruptions.corrupted(np.random.default_rng(1), images)
    np.testing.assert_array_equal(again, spoilt)
    if shape[0] > 1:
        changed = {int(k) for k, a, b in zip(kinds, images, spoilt, strict=True) if (a != b).any()}
        assert changed == set(range(1, len(corruptions.CORRUPTIONS) + 1))


def test_a_spoilt_image_keeps_what_its_corruption_spares():
    x, rng = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)), np.random.default_rng(1)

    def in_order(y: np.ndarray) -> np.ndarray:
        return np.sort(y.reshape(6, 64, 3), axis=1)

    for reorder in (corruptions._shuffled, corruptions._patched):
        np.testing.assert_array_equal(in_order(reorder(rng, x)), in_order(x))

    def power(y: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.fft2(y, axes=(1, 2)))

    np.testing.assert_allclose(power(corruptions._phases(rng, x)), power(x), rtol=1e-6, atol=1e-6)
    wide = corruptions._smooth(x, np.full((6, 1, 1, 1), 100.0))
    np.testing.assert_allclose(wide, np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape), rtol=1e-9)
    np.testing.assert_allclose(corruptions._smooth(x, np.zeros((6, 1, 1, 1))), x, atol=1e-9)
