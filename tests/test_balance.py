"""Balance: frequencies behind a judge that errs in a known way, exact samplers, and the law of guided samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from score_sde import data
from score_sde.audit.balance import balance, balance_by_guidance, per_class
from score_sde.audit.intervals import share
from score_sde.conditioning import extrapolation
from score_sde.errors import UsageError
from score_sde.metrics import Options
from score_sde.metrics.judge import Attribute, Judge, judge
from score_sde.oracles import Gaussian, Mixture
from score_sde.sampling import fast_solver, solve
from score_sde.sde import VP

TEN = np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01])
RNG = np.random.default_rng(0)
OFTEN = np.full((10, 10), 0.005) + 0.045 * np.roll(np.eye(10), 1, axis=1) + 0.905 * np.eye(10)
OFTEN /= OFTEN.sum(axis=1, keepdims=True)
# true frequencies, P(judged | true) by rows of true classes, numbers of samples and of held-out images of each class
JUDGED = {
    "two": (np.array([0.7, 0.3]), np.array([[0.9, 0.1], [0.05, 0.95]]), 1000, 500),
    "two_rare": (np.array([0.96, 0.04]), np.array([[0.96, 0.04], [0.03, 0.97]]), 1000, 200),
    "ten": (TEN, OFTEN, 2000, 200),
}


def replications(name, number, seed):
    """Balances of samples that have the data's frequencies, each with a count of errors of its own."""
    p, rows, n, images = JUDGED[name]
    rng = np.random.default_rng(seed)
    exact = np.round(10_000 * p).astype(int)
    for _ in range(number):
        confusion = np.stack([rng.multinomial(images, row) for row in rows])
        yield balance(rng.multinomial(n, p @ rows), confusion, exact)


@pytest.mark.parametrize("name", JUDGED)
def test_estimates_have_the_predicted_bias_and_none_and_intervals_cover(name):
    (p, rows, *_), number = JUDGED[name], 1000
    of = list(replications(name, number, 1))
    uncorrected, corrected = (np.array([each.value for each in kind]) for kind in list(zip(*of, strict=True))[1:3])
    error = corrected.std(axis=0) / np.sqrt(number)
    assert np.all(np.abs(uncorrected.mean(axis=0) - p @ rows) < 4 * error)  # the bias that is predicted: q - p
    assert np.all(np.abs(corrected.mean(axis=0) - p) < 4 * error)
    covered = np.array([(each.corrected.low <= p) & (p <= each.corrected.high) for each in of])
    assert np.abs(covered.mean(axis=0) - 0.95).max() < 0.02, covered.mean(axis=0)
    amplified = np.array([(each.amplification.low > 0) | (each.amplification.high < 0) for each in of])
    assert np.array_equal(amplified, ~covered)
    assert stats.kstest([each.p_value for each in of], "uniform").pvalue > 0.01
    assert abs(np.mean([each.total_variation / each.expected for each in of]) - 1) < 0.06


def test_two_classes_are_corrected_as_rogan_and_gladen_do():
    of = balance(np.array([640, 360]), np.array([[450, 50], [10, 190]]), np.array([1, 1]))
    np.testing.assert_allclose(of.corrected.value[0], (0.64 + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert of.corrected.value.sum() == pytest.approx(1)
    np.testing.assert_allclose(of.amplification.value, of.corrected.value - 0.5)


def test_a_judge_without_errors_leaves_the_multinomial():
    counts, expected = np.array([50, 30, 20, 0]), np.array([40, 30, 20, 10])
    of = balance(counts, 10**12 * np.eye(4, dtype=int), 7 * expected)
    wilson = np.array([share(int(k), 100) for k in counts]).T
    np.testing.assert_allclose(of.uncorrected, wilson, atol=1e-12)
    np.testing.assert_allclose(of.corrected, wilson, atol=1e-6)
    np.testing.assert_allclose(of.p_value, stats.chisquare(counts, expected).pvalue, rtol=1e-6)


def test_intervals_widen_with_fewer_held_out_images_and_narrow_with_a_lower_level():
    judged, confusion, exact = np.array([640, 360]), np.array([[90, 10], [5, 95]]), np.array([7, 3])

    def width(of):
        return of.corrected.high - of.corrected.low

    few, many = (balance(judged, n * confusion, exact) for n in (1, 100))
    assert np.all(width(few) > 1.5 * width(many))
    assert np.all(width(balance(judged, confusion, exact, 0.5)) < width(few) / 2)
    assert np.array_equal(few.corrected.value, many.corrected.value)


def test_an_estimate_below_zero_is_kept_and_may_be_clipped():
    of = balance(np.array([990, 10]), np.array([[95, 5], [5, 95]]), np.array([1, 1])).corrected
    assert of.value[1] < 0 < of.high[1] and of.low[1] < of.value[1]
    assert np.all(np.array(of.clipped()) >= 0) and of.clipped().high[1] == of.high[1]


def test_an_exact_sampler_of_an_imbalanced_mixture_amplifies_nothing():
    weights, places = np.array([0.7, 0.2, 0.1]), (-0.8, 0.0, 0.8)
    mixture = Mixture(weights, [Gaussian(np.full((1, 1, 1), each), 0.01) for each in places])
    x = np.asarray(mixture.sample(jax.random.split(jax.random.key(0), 20_000))).ravel()
    classes = np.searchsorted([-0.4, 0.4], x)
    rows = np.array([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
    judged = (RNG.random(len(x))[:, None] > rows.cumsum(axis=1)[classes]).sum(axis=1)
    of = balance(np.bincount(judged), (5000 * rows).astype(int), (100 * weights).astype(int))
    assert np.all(of.amplification.low < 0) and np.all(of.amplification.high > 0) and of.p_value > 0.05
    assert of.total_variation < 0.01 < np.abs(of.uncorrected.value - weights).sum() / 2


# Guidance in one dimension: the attribute is the sign. Under the condition the two have other frequencies than without.

SIDES, STD = np.array([-1.0, 1.0]), 0.6
WITH, WITHOUT = np.array([0.7, 0.3]), np.array([0.5, 0.5])
ONE = (1, 1, 1)


def of_guided_ode(process, scale):
    """P(x < 0) at the end of the guided ODE dy = -k s(y, k) dk, y = x / alpha, whose paths in 1-D do not cross."""

    def score(y, k, p):
        v = STD**2 + k**2
        weights = special.softmax(np.log(p) - (y - SIDES) ** 2 / (2 * v))
        return weights @ (SIDES - y) / v

    def drift(k, y):
        without = score(y[0], k, WITHOUT)
        return [-k * (without + scale * (score(y[0], k, WITH) - without))]

    alpha, sigma = float(process.alpha(np.ones(1))[0]), float(process.sigma(np.ones(1))[0])
    path = integrate.solve_ivp(drift, (0.0, sigma / alpha), [0.0], method="DOP853", rtol=1e-11, atol=1e-11)
    return stats.norm.cdf(alpha * path.y[0, -1] / process.prior_std)


def of_tilted_law(scale):
    def tilted(x):
        of, reference = (p @ stats.norm.pdf(x, SIDES, STD) for p in (WITH, WITHOUT))
        return of**scale * reference ** (1 - scale)

    below, above = (integrate.quad(tilted, *ends)[0] for ends in ((-8, 0), (0, 8)))
    return below / (below + above)


def guided_samples(process, scale, x, num_steps=60):
    parts = [Gaussian(np.full(ONE, each), STD**2) for each in SIDES]
    of, reference = (Mixture(p, parts).model(process) for p in (WITH, WITHOUT))
    sampler = fast_solver(process, extrapolation(of, reference, scale=scale), name="unipc_3", num_steps=num_steps)
    return np.asarray(solve(sampler, jax.random.key(0), x)[0])


SIGN = Judge(lambda x: np.stack([x < 0, x >= 0], axis=-1).reshape(len(x), 2), 10**6 * np.eye(2, dtype=int))


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_frequencies_under_guidance_are_those_of_the_guided_ode(scale):
    """Starts at the quantiles 1e-8 below and above the ODE's frequency end on the two sides of zero."""
    process = VP(sampling_eps=1e-7)
    truth = of_guided_ode(process, scale)
    starts = process.prior_std * stats.norm.ppf(truth + np.array([-1e-8, 1e-8]))
    with jax.enable_x64(True):
        below, above = guided_samples(process, scale, jnp.asarray(starts.reshape(2, *ONE)), num_steps=600).ravel()
    assert below < 0 < above
    assert scale == 1 or abs(truth - of_tilted_law(scale)) > 5e-3


def test_rows_by_guidance_have_intervals_with_the_odes_frequencies():
    process, scales = VP(), [1.0, 3.0]
    x = process.prior_sample(jax.random.split(jax.random.key(1), 2000), ONE)
    pixels = [np.where(guided_samples(process, scale, x) < 0, 0, 255).astype(np.uint8) for scale in scales]
    by_pixel = SIGN._replace(of=lambda x: SIGN.of(x.astype(float) - 127))
    rows = balance_by_guidance(scales, pixels, by_pixel, np.array([7, 3]))
    for scale in scales:
        of, truth = rows[scale].corrected, of_guided_ode(process, scale)
        assert of.low[0] < truth < of.high[0]
    assert rows[1.0].amplification.low[0] < 0 < 0.1 < rows[3.0].amplification.low[0]


# Figures by class.


def test_a_class_that_samples_lack_has_no_recall_and_others_have():
    x = RNG.normal(size=(400, 2)) + 8 * (np.arange(400) % 2)[:, None]
    labels = np.arange(400) % 2
    narrow = np.where(labels[:, None] == 1, 8.0 + 0.01 * x, x)
    zero, one = per_class(narrow, labels, x, labels)
    assert zero.recall == 1 and zero.frechet < 1e-6
    assert one.recall < 0.1 and one.frechet > 1 and not one.lacks


def test_too_few_images_of_a_class_are_one_sentence():
    x = RNG.normal(size=(40, 6))
    few, none = per_class(x, np.repeat([0, 1], [5, 35]), x, np.repeat([0, 2], [20, 20]))[::2]
    assert few.recall is None and few.frechet is None
    needs = "precision and recall need 20 and the Frechet distance needs 7."
    assert few.lacks == f"Class 0 has 5 samples and 20 real images; {needs}"
    assert none.lacks == f"Class 2 has 0 samples and 20 real images; {needs}"


# Mistakes.

EVEN = np.array([50, 50])


@pytest.mark.parametrize(
    ("judged", "confusion", "of_data", "sentence"),
    [
        (EVEN[:1], [[5]], EVEN[:1], "Balance needs labels of two classes or more; give the judge an attribute"),
        (0 * EVEN, np.diag(EVEN), EVEN, "Balance needs one of the samples or more"),
        (EVEN, np.diag(EVEN), 0 * EVEN, "Balance needs one of the training images or more"),
        (
            EVEN,
            [[5, 0], [0, 0]],
            EVEN,
            "No held-out image is of class 1, so how it is judged is unknown; hold out",
        ),
        (EVEN, [[51, 49], [49, 51]], EVEN, r"hardly tells some classes apart \(condition number 50, above 20\)"),
        (EVEN, [[5, 3], [3, 5]], EVEN, "is not known well enough to correct it; count its errors on more held-out"),
    ],
)
def test_what_balance_cannot_correct_is_refused(judged, confusion, of_data, sentence):
    with pytest.raises(UsageError, match=sentence):
        balance(judged, np.array(confusion), of_data)


# The judge.

SHADES = np.arange(64) % 2
IMAGES = np.broadcast_to(255 * SHADES[:, None, None, None], (64, 8, 8, 1)).astype(np.uint8)
SOURCE = data.InMemory(IMAGES, labels=SHADES)
QUICK = Options(nf=8, dimension=8, n_iters=50, batch_size=16, lr=1e-2, seed=1)


def test_a_judge_learns_an_attribute_and_counts_its_errors_and_is_kept(tmp_path):
    darkness = Attribute("darkness", 1 - SHADES, np.where(np.arange(64) < 8, SHADES, 1 - SHADES))  # 8 errors
    for _ in range(2):
        of_darkness = judge(SOURCE, SOURCE, tmp_path, options=QUICK, attribute=darkness)
        assert np.array_equal(of_darkness.confusion, [[28, 4], [4, 28]]) and of_darkness.accuracy == 0.875
        assert np.array_equal(of_darkness.counts(IMAGES[:3]), [1, 2])
    assert len(list(tmp_path.glob("*.npz"))) == 1


@pytest.mark.parametrize(
    ("source", "attribute", "sentence"),
    [
        (
            data.InMemory(IMAGES),
            None,
            "A judge needs labels of two classes or more, and the data have 0; give it",
        ),
        (SOURCE, Attribute("shade", SHADES[:9], SHADES), "shade has 9 values for 64 training images; give each image"),
        (SOURCE, Attribute("shade", 0 * SHADES, SHADES), "A judge needs attribute shade of two classes or more"),
        (
            SOURCE,
            Attribute("shade", SHADES, 2 * SHADES),
            "training images have 2 classes, and those of held-out",
        ),
    ],
)
def test_labels_that_a_judge_cannot_learn_are_refused(source, attribute, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        judge(source, SOURCE, tmp_path, options=QUICK, attribute=attribute)
