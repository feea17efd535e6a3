"""Distances against independent implementations and closed forms, on features of known distributions."""

import numpy as np
import pytest
from scipy import linalg

from score_sde.metrics import distances, kernels
from score_sde.metrics.distances import inception_score, precision_recall
from score_sde.metrics.frechet import Frechet, Moments, factor, frechet_distance
from score_sde.metrics.kernels import cmmd, kernel_distance


def features(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Correlated, with a spectrum that falls as that of a network's."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) * np.arange(1, d + 1) ** -0.7
    return (shift + scale * rng.normal(size=(n, d)) @ mixing.T).astype(np.float32)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype(np.float64).mean(axis=0), np.cov(x.astype(np.float64), rowvar=False)


def by_sqrtm(mean1, cov1, mean2, cov2) -> float:
    root = linalg.sqrtm(cov1 @ cov2)
    return np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * np.real(root))


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """tr (C2^1/2 C1 C2^1/2)^1/2 is the sum of singular values of the centred features' product: no root is taken."""
    (mean1, cov1), (mean2, cov2) = moments(x), moments(y)
    a, b = ((z - z.astype(np.float64).mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y))
    cross = linalg.svdvals(a @ b.T).sum()
    return np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * cross


def test_moments_of_parts_add_up_and_can_be_taken_away():
    x, origin = features(50, 8, 0, shift=3.0), np.full(8, 2.9)
    whole, part = Moments.of(x, origin), Moments.of(x[:20], origin)
    rest = whole.plus(part, -1)
    mean, covariance = moments(x[20:])
    np.testing.assert_allclose(rest.mean + origin, mean, rtol=1e-12)
    np.testing.assert_allclose(rest.covariance, covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", [1, 5, 64])
def test_the_frechet_distance_is_that_by_a_general_matrix_square_root(d):
    x, y = features(400, d, 1), features(300, d, 2, scale=1.3, shift=0.2)
    arguments = (*map(np.atleast_1d, moments(x)), *map(np.atleast_1d, moments(y)))
    arguments = tuple(a.reshape(d, d) if i % 2 else a for i, a in enumerate(arguments))
    np.testing.assert_allclose(frechet_distance(*arguments), by_sqrtm(*arguments), rtol=1e-6)
    np.testing.assert_allclose(Frechet(*arguments[2:])(x).mean, by_sqrtm(*arguments), rtol=1e-6)


@pytest.mark.parametrize(("n1", "n2"), [(20, 30), (64, 64), (40, 500), (500, 40)])
def test_the_frechet_distance_of_fewer_images_than_features(n1, n2):
    x, y = features(n1, 64, 1), features(n2, 64, 2, scale=1.3, shift=0.2)
    expected = by_singular_values(x, y)
    np.testing.assert_allclose(frechet_distance(*moments(x), *moments(y)), expected, rtol=1e-6)
    np.testing.assert_allclose(frechet_distance(*moments(y), *moments(x)), expected, rtol=1e-6)


def test_the_frechet_distance_of_gaussians_that_commute_has_a_closed_form():
    """Sum of squared differences of the means and of the standard deviations."""
    rotation = linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    s1, s2 = np.arange(6.0), np.array([2.0, 0, 3, 0, 1, 7])  # two of them singular
    cov1, cov2 = ((rotation * s**2) @ rotation.T for s in (s1, s2))
    found = frechet_distance(np.full(6, 1.0), cov1, np.zeros(6), cov2)
    np.testing.assert_allclose(found, 6 + np.sum((s1 - s2) ** 2), rtol=1e-9)
    assert frechet_distance(np.ones(6), cov1, np.ones(6), cov1) < 1e-9
    np.testing.assert_allclose(factor(cov1) @ factor(cov1).T, cov1, atol=1e-9)


def test_the_jackknifes_error_is_the_spread_over_independent_sets():
    reference = Frechet(*moments(features(4000, 8, 0)))
    found = [reference(features(500, 8, seed, scale=1.1)) for seed in range(1, 201)]
    spread = np.std([estimate.mean for estimate in found], ddof=1)
    errors = np.sqrt(np.mean([estimate.standard_error**2 for estimate in found]))
    np.testing.assert_allclose(errors, spread, rtol=0.15)  # three deviations of a spread over 200 sets


def test_the_distance_of_infinitely_many_samples_has_no_bias_of_their_number():
    """Of samples of the reference itself the true distance is zero; that of n is of order d / n."""
    d = 16
    exact = Frechet(np.zeros(d), np.eye(d))
    sets = [np.random.default_rng(seed).normal(size=(400, d)) for seed in range(40)]
    biased = np.array([exact(x).mean for x in sets])
    extrapolated = np.array([exact.of_infinitely_many(x) for x in sets])
    error = extrapolated.std(ddof=1) / np.sqrt(len(sets))
    assert biased.mean() > 10 * error
    assert abs(extrapolated.mean()) < 3 * error + 0.05 * biased.mean()  # what is left is of order 1/n^2


@pytest.mark.parametrize("n", [40, 90])
@pytest.mark.parametrize("n_reference", [50, 80])
def test_the_jackknifes_distances_without_a_group_are_those_of_the_other_images(n, n_reference):
    """With fewer images than the 64 features, with more, and with a singular covariance of the reference."""
    x, y = features(n, 64, 1, scale=1.2, shift=0.1), features(n_reference, 64, 2)
    without = np.array([by_singular_values(np.delete(x, np.arange(i, n, 10), axis=0), y) for i in range(10)])
    estimate = Frechet(*moments(y))(x)
    np.testing.assert_allclose(estimate.mean, by_singular_values(x, y), rtol=1e-6)
    np.testing.assert_allclose(estimate.standard_error, 3 * np.std(without), rtol=1e-5)


def test_the_distance_of_infinitely_many_is_a_line_through_the_distances_of_fewer():
    x, y = features(120, 6, 1, scale=1.2), features(90, 6, 2)
    order, sizes = np.random.default_rng(0).permutation(120), np.linspace(12, 120, 15).astype(int)
    distances = [by_singular_values(x[order[:size]], y) for size in sizes]
    expected = np.polyfit(1 / sizes, distances, 1)[1]
    np.testing.assert_allclose(Frechet(*moments(y)).of_infinitely_many(x), expected, rtol=1e-6)


def cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3


def over_pairs(kernel, x: np.ndarray, y: np.ndarray) -> float:
    within = [np.mean([kernel(s, s)[i, j] for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return sum(within) - 2 * kernel(x, y).mean()


def test_the_kernel_distance_is_the_mean_over_all_pairs_however_many_are_computed_at_a_time(monkeypatch):
    x, y = features(12, 5, 1), features(9, 5, 2, shift=0.3)
    whole = kernel_distance(x, y)
    np.testing.assert_allclose(whole.mean, over_pairs(cubic, x, y), rtol=1e-9)
    monkeypatch.setattr(kernels, "BLOCK", 5)
    np.testing.assert_allclose(kernel_distance(x, y), whole, rtol=1e-9)
    assert kernel_distance(x, y[:3]).standard_error is None


def test_the_kernel_distances_error_is_the_jackknifes_without_what_that_counts_twice():
    """Leaving images out of either set; what is counted twice is of pairs alone, so of a kernel less its means."""
    x, y = features(14, 3, 1), features(11, 3, 2, shift=1.5)
    n, m = len(x), len(y)
    jackknife = 0.0
    for k, without in (
        (n, [over_pairs(cubic, np.delete(x, i, axis=0), y) for i in range(n)]),
        (m, [over_pairs(cubic, x, np.delete(y, i, axis=0)) for i in range(m)]),
    ):
        jackknife += (k - 1) * np.var(without)
    twice = 0.0
    for s in (x, y):
        k, size = cubic(s, s), len(s)
        i, j = np.triu_indices(size, 1)
        sums = np.eye(size)[i] + np.eye(size)[j]  # a kernel that is a sum over single images
        left = k[i, j] - sums @ np.linalg.lstsq(sums, k[i, j], rcond=None)[0]
        twice += 2 / ((size - 1) * (size - 2)) * (left**2).sum() / (len(i) - size)
    k = cubic(x, y)
    left = k - k.mean(axis=0) - k.mean(axis=1, keepdims=True) + k.mean()
    twice += 4 / (n * m) * (left**2).sum() / ((n - 1) * (m - 1))
    assert twice < jackknife / 2
    np.testing.assert_allclose(kernel_distance(x, y).standard_error ** 2, jackknife - twice, rtol=1e-9)


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 60, 1.0), (40, 120, 0.3), (100, 50, 0.0)])
def test_the_discrepancy_of_gaussians_is_its_closed_form_and_its_error_the_spread(n, m, shift):
    """E k = (s^2 / (s^2 + 2))^(d/2) exp(-|difference of means|^2 / (2 s^2 + 4)), for a kernel of width s."""
    d, width = 3, kernels.SIGMA**2

    def of_gaussians(seed: int) -> kernels.Estimate:
        rng = np.random.default_rng(seed)
        return kernels.discrepancy(kernels._gaussian, shift + rng.normal(size=(n, d)), rng.normal(size=(m, d)))

    means, errors = np.array([of_gaussians(seed) for seed in range(400)]).T
    exact = 2 * (width / (width + 2)) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * width + 4)))
    assert abs(means.mean() - exact) < 3 * means.std() / np.sqrt(len(means))
    # Of equal distributions it is on the safe side, as it is not let below half of the jackknife's.
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), means.std(), rtol=0.15 if shift else 0.3)


def test_all_pairs_say_more_than_pairs_of_ten_blocks(monkeypatch):
    """The variance of equal distributions goes with the number of pairs: a tenth as many in ten blocks."""
    sets = [np.random.default_rng(seed).normal(size=(2, 100, 8)) for seed in range(100)]
    of_all = np.var([kernel_distance(*each).mean for each in sets])
    monkeypatch.setattr(kernels, "PAIRED", 50)
    assert np.var([kernel_distance(*each).mean for each in sets]) > 6 * of_all


def test_the_kernel_distance_of_very_many_images_is_the_mean_over_blocks(monkeypatch):
    x, y = features(30, 5, 1), features(40, 5, 2, shift=0.3)
    rng = np.random.default_rng(0)
    blocks = [np.array_split(s[rng.permutation(len(s))], 10) for s in (x, y)]
    expected = [over_pairs(cubic, a, b) for a, b in zip(*blocks, strict=True)]
    monkeypatch.setattr(kernels, "PAIRED", 39)
    found = kernel_distance(x, y)
    np.testing.assert_allclose(found.mean, np.mean(expected), rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, np.std(expected, ddof=1) / np.sqrt(10), rtol=1e-6)


def test_cmmd_is_the_published_one_without_the_pairs_of_an_image_with_itself():
    x, y = features(40, 6, 1), features(30, 6, 2, shift=0.3)
    u, v = (s.astype(np.float64) / np.linalg.norm(s.astype(np.float64), axis=1, keepdims=True) for s in (x, y))

    def gaussian(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=-1) / (2 * 10**2))

    published = 1000 * (gaussian(u, u).mean() + gaussian(v, v).mean() - 2 * gaussian(u, v).mean())
    bias = sum(1000 * (1 - (gaussian(s, s).sum() - len(s)) / (len(s) * (len(s) - 1))) / len(s) for s in (u, v))
    np.testing.assert_allclose(cmmd(x, y).mean, published - bias, rtol=1e-6)
    np.testing.assert_allclose(cmmd(x, 7 * y), cmmd(x, y), rtol=1e-4)  # of directions
    assert np.isfinite(cmmd(np.zeros((5, 3), np.float32), x[:, :3])).all()


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    found = [kernel_distance(features(60, 4, seed), features(80, 4, 1000 + seed)) for seed in range(200)]
    means, errors = np.array(found).T
    assert abs(means.mean()) < 3 * means.std() / np.sqrt(len(found))
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), means.std(), rtol=0.25)


def test_the_kernel_distance_does_not_mind_sorted_images():
    """Of two classes, far apart: a block of one of them would be far from samples of both, by thousands.

    The blocks' order is always the same, so what it adds is too; the error says how much that may be.
    """

    def of_two_classes(seed: int) -> np.ndarray:
        n = np.random.default_rng(seed).binomial(200, 0.5)
        return np.concatenate([features(n, 4, seed), features(200 - n, 4, 1000 + seed, shift=5.0)])

    found = [kernel_distance(of_two_classes(seed), of_two_classes(500 + seed)) for seed in range(20)]
    means, errors = np.array(found).T
    assert abs(means.mean()) < 2 * errors.mean() < 1000


def test_inception_scores_in_closed_form():
    """k labels, equally often and told with certainty: k. The same distribution for every image: 1."""
    certain = 1e3 * np.eye(7)[np.arange(70) % 7]
    np.testing.assert_allclose(inception_score(certain).mean, 7, rtol=1e-9)
    same = np.tile(np.random.default_rng(0).normal(size=9), (40, 1))
    assert abs(inception_score(same).mean - 1) < 1e-9
    assert inception_score(same).standard_error < 1e-9


def test_the_inception_score_is_its_definition():
    logits = np.random.default_rng(0).normal(size=(50, 12))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp(np.mean([np.sum(row * np.log(row / p.mean(axis=0))) for row in p]))
    np.testing.assert_allclose(inception_score(logits).mean, expected, rtol=1e-9)
    without = []
    for i in range(10):
        q = np.delete(p, np.arange(i, 50, 10), axis=0)
        without.append(np.exp(np.mean([np.sum(row * np.log(row / q.mean(axis=0))) for row in q])))
    np.testing.assert_allclose(inception_score(logits).standard_error, 3 * np.std(without), rtol=1e-9)


def test_inception_scores_over_splits_have_the_usual_mean_and_deviation():
    logits = np.random.default_rng(0).normal(size=(200, 12))
    scores = []
    for part in np.split(logits, 10):
        p = np.exp(part) / np.exp(part).sum(axis=1, keepdims=True)
        scores.append(np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(axis=0))), axis=1))))
    estimate = inception_score(logits, splits=10)
    np.testing.assert_allclose(estimate.mean, np.mean(scores), rtol=1e-9)
    np.testing.assert_allclose(estimate.standard_error * np.sqrt(9), np.std(scores), rtol=1e-9)  # which others print
    assert estimate.mean < inception_score(logits).mean + 1e-9 and inception_score(logits[:1], splits=10).mean == 1


def test_what_has_moved_is_answered_with_its_new_name():
    with pytest.raises(ImportError, match=r"is now score_sde\.metrics\.frechet\.Frechet"):
        _ = distances.Frechet


def test_precision_and_recall_are_their_definitions():
    fake, real = features(230, 6, 1), features(170, 6, 2, scale=1.4)

    def share(points, centres):
        distances = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        radii = np.sort(distances, axis=1)[:, 3]
        return np.mean([np.any(np.linalg.norm(centres - point, axis=1) <= radii) for point in points])

    np.testing.assert_allclose(precision_recall(fake, real), (share(fake, real), share(real, fake)), atol=1e-6)


def test_precision_falls_with_what_is_foreign_and_recall_with_what_is_missing():
    real = features(400, 4, 1)
    foreign = np.concatenate([features(200, 4, 2), features(200, 4, 3, shift=100.0)])
    precision, recall = precision_recall(foreign, real)
    assert 0.4 < precision < 0.52 and recall > 0.8
    few = np.repeat(real[:5], 80, axis=0)
    precision, recall = precision_recall(few, real)
    assert precision == 1 and recall < 0.1


@pytest.mark.parametrize("n", [2, 3, 9, 12])
def test_a_handful_of_samples_has_a_distance_and_perhaps_no_error(n):
    x, reference = features(n, 5, 1), features(100, 5, 2)
    for estimate in (Frechet(*moments(reference))(x), kernel_distance(x, reference), inception_score(x)):
        assert np.isfinite(estimate.mean)
