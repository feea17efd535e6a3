"""Means and standard errors over a split, of models whose likelihood is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from score_sde.data import InMemory, part_of
from score_sde.evaluation import report
from score_sde.evaluation.evaluate import bits_per_dim
from score_sde.images import UNIT
from score_sde.inference.pretrained import Pretrained
from score_sde.likelihood.dequantization import uniform
from score_sde.oracles import Gaussian
from score_sde.sde import VP

SHAPE = (4, 4, 1)
IMAGES, REPEATS, REPLICATIONS = 60, 2, 400
DATA = Gaussian(np.full(SHAPE, 0.5), 0.03**2)  # in [0, 1]; eight levels wide


class OracleModel(Pretrained):
    """A trained model with the density of DATA in the place of the ODE's."""

    def __init__(self, seed: int):
        self.seed = seed

    @property
    def config(self):
        options = SimpleNamespace(batch_size=IMAGES, max_images=None, bpd_with_cond=False)
        return SimpleNamespace(seed=self.seed, eval=options)

    def likelihoods(self, keys, x, report, *, cond):
        return evaluated(keys, x)


@jax.jit
def evaluated(keys, x):
    y, log_q = uniform(UNIT).sample(keys, x)
    return log_q - DATA.log_density(VP(), y, jnp.full(len(y), 1e-9)) / (np.log(2) * 16), np.zeros(len(y))


def truth() -> float:
    """E over images of -log2 p(dequantized) + log2 q, by quadrature over the levels and their cells."""
    edges = np.arange(257) / 256
    p = stats.norm(0.5, 0.03)
    inside = (np.arange(256)[:, None] + (np.arange(64) + 0.5) / 64) / 256
    return 8 - np.sum(np.diff(p.cdf(edges)) * p.logpdf(inside).mean(axis=1)) / np.log(2)


@pytest.mark.parametrize(("deviations", "share"), [(1, 0.6827), (2, 0.9545)])
def test_standard_errors_cover_the_truth_at_their_rate(deviations, share, replications):
    """Within three binomial deviations, of replications with their own images, dequantization noise and seeds."""
    means, errors = replications
    covered = np.mean(np.abs(means - truth()) < deviations * errors)
    assert abs(covered - share) < 3 * np.sqrt(share * (1 - share) / REPLICATIONS)


def test_standard_errors_are_the_spread_of_the_mean_over_replications(replications):
    means, errors = replications
    np.testing.assert_allclose(means.std(), errors.mean(), rtol=4 / np.sqrt(2 * REPLICATIONS))


@pytest.fixture(scope="module")
def replications() -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors of independent evaluations."""
    rng = np.random.default_rng(0)
    results = []
    for seed in range(REPLICATIONS):
        pixels = np.floor(256 * rng.normal(0.5, 0.03, (IMAGES, *SHAPE))).astype(np.uint8)
        report = bits_per_dim(OracleModel(seed), InMemory(pixels, None), REPEATS)
        assert (report["images"], report["repeats"]) == (IMAGES, REPEATS)
        results.append((report["mean"], report["standard_error"]))
    return tuple(np.array(results).T)


# A part of a split, by eval.max_images.


def part(n: int, most: int, monkeypatch) -> dict:
    pixels = np.floor(256 * np.random.default_rng(1).normal(0.5, 0.03, (n, *SHAPE))).astype(np.uint8)
    monkeypatch.setattr(
        OracleModel,
        "config",
        SimpleNamespace(seed=3, eval=SimpleNamespace(batch_size=8, max_images=most, bpd_with_cond=False)),
    )
    return bits_per_dim(OracleModel(3), InMemory(pixels, None), 1)


def test_a_part_of_a_split_is_named_and_its_images_have_the_figures_that_they_have_in_the_whole(monkeypatch):
    asked, likelihoods = [], OracleModel.likelihoods

    def noted(self, keys, x, report, *, cond):
        bits, nfe = likelihoods(self, keys, x, report, cond=cond)
        asked.extend((image.tobytes(), float(own)) for image, own in zip(np.asarray(x), bits, strict=True))
        return bits, nfe

    monkeypatch.setattr(OracleModel, "likelihoods", noted)
    whole = part(IMAGES, None, monkeypatch)
    of_whole = dict(asked)
    asked.clear()
    few = part(IMAGES, 10, monkeypatch)
    assert len(set(asked)) == 10 and set(asked) <= set(of_whole.items())
    assert (few["images"], few["of"]) == (10, IMAGES) and few["standard_error"] > whole["standard_error"]
    np.testing.assert_allclose(few["mean"], np.mean([bits for _, bits in dict(asked).items()]), rtol=1e-6)
    assert "of" not in whole and part(IMAGES, IMAGES + 5, monkeypatch) == whole
    assert report.parts({"bits_per_dim": few}) == ["bits/dim: on 10 of 60 images (eval.max_images)."]


def test_a_part_is_of_no_class_and_smaller_ones_are_in_larger_ones():
    """Of a set that is sorted by class, a tenth has each class as often as a random choice has."""
    labels, chosen = np.repeat(np.arange(10), 1000), part_of(10_000, 1000)
    assert len(set(chosen.tolist())) == 1000 and np.all(np.diff(chosen) > 0)
    assert np.abs(np.bincount(labels[chosen]) - 100).max() < 4 * np.sqrt(90)
    assert set(part_of(10_000, 100)) < set(chosen)
    assert part_of(10_000, 5).tolist() == [1926, 5820, 7552, 9232, 9334]  # the same for ever
