"""The audit of a denoiser against closed forms on the line, the exact memoriser, and exact sets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from score_sde.audit.denoiser import audit_denoiser
from score_sde.errors import UsageError
from score_sde.oracles import Empirical, Gaussian
from score_sde.process import Prediction
from score_sde.sde import EDM, VE, VP

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPE = (4, 4, 1)
TRAIN, HELD_OUT = RNG.normal(size=(2, 60, *SHAPE))
POPULATION = Gaussian(np.zeros(SHAPE), 1.0)
LEVELS = np.array([0.2, 1.0, 4.0])
Z = np.linspace(-9, 9, 20_001)[:, None]  # quadrature over noise
DENSITY = stats.norm.pdf(Z) * (Z[1] - Z[0])


@functools.cache
def audited():
    """The population's denoiser and the memoriser's, on Gaussian data of 16 dimensions."""
    times = EDM().time(LEVELS)
    models = POPULATION.model(EDM()), Empirical(TRAIN).model(EDM())
    options = dict(draws=20, batch_size=600)
    return [audit_denoiser(jax.jit(model), EDM(), TRAIN, HELD_OUT, KEY, times, **options) for model in models]


def on_the_line(points, alpha, sigma):
    """Exact means and variances over noise, for each point: |D - D_S|^2 and |D - x_0|^2 of the standard normal's D."""
    x = alpha * points + sigma * Z
    logits = -((x[:, :, None] - alpha * points) ** 2) / (2 * sigma**2)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    memoriser = (weights * points).sum(axis=2) / weights.sum(axis=2)
    denoised = alpha / (alpha**2 + sigma**2) * x
    squares = np.stack([(denoised - memoriser) ** 2, (denoised - points) ** 2])
    means = (squares * DENSITY).sum(axis=1)
    return means, (squares**2 * DENSITY).sum(axis=1) - means**2


@pytest.mark.parametrize(("process", "t"), [(VP(), 0.3), (EDM(), 0.5), (VE(), 0.4)], ids=["vp", "edm", "ve"])
def test_on_gaussian_data_distances_and_errors_are_their_closed_forms(process, t):
    sets, draws = RNG.normal(size=(2, 12, 1, 1, 1)), 500
    model = jax.jit(Gaussian(np.zeros((1, 1, 1)), 1.0).model(process))
    (at,) = audit_denoiser(model, process, *sets, KEY, np.array([t]), draws=draws, batch_size=2000)
    alpha, sigma = float(process.alpha(np.array([t]))[0]), float(process.sigma(np.array([t]))[0])
    for points, *of in zip(sets, (at.to_train, at.to_held_out), (at.error_train, at.error_held_out), strict=True):
        means, variances = on_the_line(points.ravel(), alpha, sigma)
        errors = np.sqrt(variances.sum(axis=1) / draws) / len(points)
        assert np.all(np.abs([each.value for each in of] - means.mean(axis=1)) < 4 * errors)


def test_the_memoriser_has_distance_zero_to_itself_at_every_noise_level():
    for at in audited()[1]:
        assert at.to_train.value < 1e-11 < 0.05 < at.to_held_out.low
        assert at.ratio.value < 1e-10 and at.gap.low > 0


def test_the_populations_denoiser_is_as_near_to_both_sets():
    assert all(at.ratio.low < 1 < at.ratio.high and at.gap.low < 0 < at.gap.high for at in audited()[0])


def test_at_low_noise_the_distance_to_either_memoriser_is_the_posterior_variance():
    at = audited()[0][0]
    variance = LEVELS[0] ** 2 / (1 + LEVELS[0] ** 2)  # of x_0 given x_t
    assert at.to_train.low < variance < at.to_train.high and at.to_held_out.low < variance < at.to_held_out.high
    assert at.images < 1.001


def test_the_distance_is_the_excess_of_the_training_error_over_the_least_one():
    for population, memoriser in zip(*audited(), strict=True):
        excess = population.error_train.value - memoriser.error_train.value
        np.testing.assert_allclose(population.to_train.value, excess, rtol=0.05)  # up to the noise of 1,200 draws


def test_the_images_of_the_average_go_from_one_to_all():
    one, *_, all_of_them = audit_denoiser(POPULATION.model(VE()), VE(), TRAIN, HELD_OUT, KEY, np.array([0.1, 1.0]))
    assert one.images < 1.01 and all_of_them.images > 59


def test_no_figure_depends_on_the_split_into_batches_or_on_other_levels():
    model, process = jax.jit(POPULATION.model(EDM())), EDM()
    times = process.time(LEVELS)
    of = functools.partial(audit_denoiser, model, process, TRAIN, HELD_OUT, KEY)
    whole = of(times)
    np.testing.assert_allclose(np.hstack(of(times, batch_size=7)[1]), np.hstack(whole[1]), rtol=2e-6)
    assert np.array_equal(np.hstack(of(times[1:2])[0]), np.hstack(whole[1]))


def test_of_more_training_images_as_many_are_used_as_are_held_out():
    process, all_of_them = EDM(), np.concatenate([TRAIN, RNG.normal(size=(140, *SHAPE))])
    (at,) = audit_denoiser(POPULATION.model(process), process, all_of_them, HELD_OUT, KEY, process.time(LEVELS[2:]))
    (equal,) = audit_denoiser(POPULATION.model(process), process, TRAIN, HELD_OUT, KEY, process.time(LEVELS[2:]))
    assert at.images < 60 and at.ratio.low < 1 < at.ratio.high
    assert at.to_held_out == equal.to_held_out


def test_the_interval_of_the_ratio_covers_one_where_errors_over_images_would_not():
    process = EDM()
    model, time = jax.jit(POPULATION.model(process)), process.time(LEVELS[2:] * 2.5)  # the sets' means are what counts
    sets = RNG.normal(size=(40, 2, 40, *SHAPE))
    ratios = [audit_denoiser(model, process, *pair, KEY, time)[0].ratio for pair in sets]
    missed = sum(not ratio.low <= 1 <= ratio.high for ratio in ratios)
    assert missed <= 6  # of 40; more than 6 have a probability of 0.3 % if one in 20 misses
    assert np.std([ratio.value for ratio in ratios]) > 0.2  # though all images of a set give nearly one distance


def test_a_conditional_model_is_compared_with_the_memoriser_of_each_condition():
    process, labels = EDM(), np.arange(60) % 3
    parts = [Empirical(TRAIN[labels == label]).model(process) for label in range(3)]

    def memoriser(x, t, cond):
        of_each = jnp.stack([part(x, t).x0 for part in parts])
        return Prediction(of_each[cond["labels"], jnp.arange(len(x))], x)

    cond = {"labels": labels, "null": {"labels": np.zeros(60, bool)}}
    options = dict(train_cond=cond, held_out_cond=cond)
    audit = audit_denoiser(jax.jit(memoriser), process, TRAIN, HELD_OUT, KEY, process.time(LEVELS), **options)
    assert all(at.to_train.value < 1e-11 and at.ratio.value < 1e-10 and at.images < 20.001 for at in audit)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(held_out=HELD_OUT[:, :2]), "one size in all arguments"),
        (dict(held_out=HELD_OUT[:9]), "needs 10 of each"),
        (dict(train_cond={"labels": np.zeros(60, int)}), "give both"),
        (dict(train_cond={"labels": np.zeros(3)}, held_out_cond={"labels": np.zeros(60)}), "a row for each of 60"),
        (dict(times=np.array([0.0])), "times must"),
    ],
)
def test_a_mistake_is_one_sentence(change, words):
    arguments = dict(train=TRAIN, held_out=HELD_OUT, key=KEY, times=np.array([0.5])) | change
    with pytest.raises(UsageError, match=words):
        audit_denoiser(POPULATION.model(EDM()), EDM(), **arguments)
