"""Membership by denoising losses: areas and rates against direct computations, and exact models as the truth."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from score_sde.audit.membership import auc, combined, losses, tpr_at
from score_sde.audit.neighbours import nearest
from score_sde.errors import UsageError
from score_sde.oracles import Empirical, Gaussian
from score_sde.sde import EDM

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
MEMBERS, OTHERS = RNG.normal(size=(2, 50, *SHAPE))
KEYS = jax.random.split(jax.random.key(0), 2)
LEVELS = np.array([0.4, 2.0, 4.0, 10.0])
TIMES = EDM().time(LEVELS)
MODELS = {"empirical": Empirical(MEMBERS), "population": Gaussian(np.zeros(SHAPE), 1.0)}


@functools.cache
def losses_of(name):
    model = jax.jit(MODELS[name].model(EDM()))
    of = zip((MEMBERS, OTHERS), KEYS, strict=True)
    return [losses(model, EDM(), images, key, TIMES, draws=4) for images, key in of]


def areas(name):
    return [auc(*pair) for pair in zip(*(each.T for each in losses_of(name)), strict=True)]


def test_the_empirical_score_tells_members_by_noise_level_as_far_as_its_posterior_is_one_image():
    sure, twice, four_times, ten_times = areas("empirical")
    distances = nearest(MEMBERS.reshape(50, -1), MEMBERS.reshape(50, -1), without_itself=True).distances
    assert LEVELS[0] < np.median(distances) / 10 and sure.value == 1 and sure.low > 0.92
    assert twice.value > 0.999  # noise of twice the data's deviation
    assert four_times.low < 0.93 < four_times.high and ten_times.low < 0.59 < ten_times.high


def test_the_populations_score_tells_no_members():
    assert all(area.low < 0.5 < area.high for area in areas("population"))
    whole = auc(*combined(*losses_of("population")))
    assert whole.low < 0.5 < whole.high < 0.7


def test_the_combined_statistic_takes_all_levels_and_looks_at_no_membership():
    members, others = losses_of("empirical")
    assert auc(*combined(members, others)).value > 0.99
    swapped = combined(others, members)
    np.testing.assert_allclose(swapped[::-1], combined(members, others), atol=1e-12)
    np.testing.assert_allclose(combined(1000 * members + 1, 1000 * others + 1), combined(members, others), atol=1e-9)


def test_losses_are_those_of_the_formula():
    keys, n = jax.random.split(KEYS[0], 50), 40
    model = jax.jit(MODELS["population"].model(EDM()))
    loss = losses(model, EDM(), MEMBERS, keys, TIMES[1:2], draws=n, batch_size=500)
    gain, sigma = 1 / (1 + LEVELS[1] ** 2), LEVELS[1]
    bias = (1 - gain) ** 2 * np.square(MEMBERS).mean(axis=(1, 2, 3))
    exact, error = bias + (gain * sigma) ** 2, (gain * sigma) * np.sqrt((2 * (gain * sigma) ** 2 + 4 * bias) / 64 / n)
    assert np.all(np.abs(loss[:, 0] - exact) < 4.5 * error)  # of 50 images


def test_losses_repeat_exactly_and_depend_neither_on_batches_nor_on_other_images_and_levels():
    model = jax.jit(MODELS["population"].model(EDM()))
    of = functools.partial(losses, model, EDM(), MEMBERS, KEYS[0])
    whole = of(TIMES)
    assert np.array_equal(of(TIMES), whole)
    np.testing.assert_allclose(of(TIMES, batch_size=7), whole, rtol=2e-6)
    assert np.array_equal(of(TIMES[2:])[:, 0], whole[:, 2])
    assert np.array_equal(losses(model, EDM(), MEMBERS[:20], KEYS[0], TIMES), whole[:20])


def directly(members, others):
    """The area and DeLong's variance from all pairs (DeLong et al., 1988, equations 3 to 6)."""
    pairs = (members[:, None] < others) + (members[:, None] == others) / 2
    rows, columns = pairs.mean(axis=1), pairs.mean(axis=0)
    return pairs.mean(), np.cov(rows) / len(rows) + np.cov(columns) / len(columns)


@pytest.mark.parametrize("digits", [12, 1], ids=["distinct", "with_ties"])
def test_the_area_and_its_interval_equal_those_of_all_pairs(digits):
    members, others = np.round(RNG.normal(size=40), digits), np.round(RNG.normal(0.7, size=65), digits)
    area, variance = directly(members, others)
    half = 1.959963984540054 * np.sqrt(variance) / (area * (1 - area))
    ends = [1 / (1 + (1 - area) / area * np.exp(-step)) for step in (-half, half)]
    np.testing.assert_allclose(auc(members, others), [area, *ends], rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.2, 3.0])
def test_intervals_of_areas_cover(shift):
    truth = stats.norm.cdf(shift / np.sqrt(2))
    draws = RNG.normal(size=(1000, 70))
    covered = sum(low <= truth <= high for _, low, high in (auc(row[:40], row[40:] + shift) for row in draws))
    assert covered >= 930  # 95 % are 950 +- 7


def test_the_interval_of_two_sets_that_share_no_loss_is_a_bound_for_any_distribution():
    sure = auc(np.arange(10.0), 20 + np.arange(30.0))
    np.testing.assert_allclose(sure, [1, 0.025 ** (1 / 10), 1], rtol=1e-6)  # 10 independent pairs, all right
    np.testing.assert_allclose(auc(20 + np.arange(30.0), np.arange(10.0)), [0, 1 - 0.025 ** (1 / 10), 0 + 0], atol=1)
    low, high = auc(np.ones(10), np.ones(10))[1:]
    assert low < 0.25 and high > 0.75  # equal losses tell nothing


def test_a_rate_is_that_of_the_threshold_that_few_others_are_below():
    members, others = RNG.normal(size=3000), RNG.normal(2, size=1000)
    of = tpr_at(0.01, members, others)
    threshold = np.sort(others)[10]
    assert (others < threshold).mean() == 0.01 and of.value == (members < threshold).mean()
    assert tpr_at(0.01, members, np.full(1000, 5.0)).value == 1  # equal losses of others are no positives
    assert tpr_at(0.01, members, np.full(1000, -9.0)).value == 0


def test_intervals_of_rates_cover_though_the_threshold_is_estimated():
    truth = stats.norm.cdf(stats.norm.ppf(0.05) + 1.5)
    draws = RNG.normal(size=(400, 400))
    of = [tpr_at(0.05, row[:200], row[200:] + 1.5) for row in draws]
    assert sum(each.low <= truth <= each.high for each in of) >= 380
    assert 0 < np.mean([each.value for each in of]) - truth + 0.05 < 0.1


def test_a_rate_that_the_held_out_images_cannot_show_is_refused():
    with pytest.raises(UsageError, match="1,000 other images"):
        tpr_at(0.001, np.zeros(5), np.zeros(999))
    assert tpr_at(0.001, np.zeros(5), np.ones(1000)).value == 1
    assert tpr_at(0.01, np.zeros(5), np.ones(100)).low == 0  # of 100 others, the first may be far above the quantile


def test_mistakes_are_one_sentence():
    with pytest.raises(UsageError, match="2 of each"):
        auc(np.zeros(1), np.zeros(5))
    with pytest.raises(UsageError, match="a row for each of 50"):
        losses(lambda x, t, cond: None, EDM(), MEMBERS, KEYS[0], TIMES, cond={"labels": np.zeros(3)})
    with pytest.raises(UsageError, match="Keys of shape"):
        losses(lambda x, t: None, EDM(), MEMBERS, KEYS, TIMES)
