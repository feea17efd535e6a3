"""Optimal coupling of noise and images, and what it leaves of a score: nothing."""

import coupled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled import BLOCK, ROWS, SOURCE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from score_sde.configs.flow.digits_ddpmpp_optimal import get_config
from score_sde.configs.vp.digits_wideresnet import get_config as classifier

from score_sde.conditioning import Average
from score_sde.data import Batch, batch_indices
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained
from score_sde.paths import Linear
from score_sde.process import Prediction
from score_sde.randomness import sample_keys
from score_sde.sampling import FAST_SOLVERS, SAMPLERS, solve
from score_sde.training.build import Classification, Dequantizing, Experiment
from score_sde.training.coupling import coupling_of, optimal_assignment


def seen(step: int, indices: np.ndarray):
    """x_0 and eps of each row of an update, by numbers of one row at a time."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(42), 1), step), 3)
    rows = []
    for row, index in enumerate(indices):
        own = jax.random.fold_in(key, row)
        image = coupled.DIGITS[index].astype(np.float64) / 255
        if jax.random.uniform(jax.random.fold_in(own, 11), ()) < 0.5:
            image = image[:, ::-1]
        u = np.asarray(jax.random.uniform(jax.random.fold_in(own, 8), image.shape), np.float64)
        eps = np.asarray(jax.random.normal(jax.random.fold_in(own, 10), image.shape), np.float64)
        rows.append((2 * (u + 255 * image) / 256 - 1, eps))
    x0, eps = (np.stack(part).reshape(len(indices), -1) for part in zip(*rows, strict=True))
    return x0, eps


def test_an_update_sees_scipys_assignment_of_its_augmented_images_and_its_own_noise():
    parts, costs = coupled.experiment(), []
    for step in range(3):
        indices = batch_indices(len(SOURCE), ROWS, seed=42, step=step)
        x0, eps = seen(step, indices)
        costs.append(0.0)
        numbers = np.asarray(coupled.batches(parts)(step)[2])
        for first in range(0, ROWS, BLOCK):
            part = slice(first, first + BLOCK)
            squares = cdist(x0[part], eps[part], "sqeuclidean")
            rows, columns = linear_sum_assignment(squares)
            np.testing.assert_array_equal(numbers[part], first + columns)
            costs[-1] += squares[rows, columns].sum() / ROWS
    np.testing.assert_allclose(coupled.losses(parts, 3), costs, rtol=1e-5)
    independent = coupled.losses(coupled.experiment(coupling="independent"), 3)
    np.testing.assert_allclose(independent[2], np.square(x0 - eps).sum() / ROWS, rtol=1e-5)
    assert all(ours < other for ours, other in zip(costs, independent, strict=True))


def test_a_batch_in_parts_sees_the_same_noise():
    whole, parts = (coupled.losses(coupled.experiment(accumulate=n), 2) for n in (1, 4))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_a_training_that_is_started_anew_couples_the_same_rows():
    first, again = coupled.batches(coupled.experiment()), coupled.batches(coupled.experiment())
    for step in (7, 3):  # in any order
        np.testing.assert_array_equal(first(step)[2], again(step)[2])
    assert not np.array_equal(first(3)[2], first(7)[2])


@pytest.mark.parametrize("num_classes", [0, coupled.CLASSES])
def test_noise_is_only_exchanged_within_a_block_and_with_labels_within_a_class(num_classes):
    parts, moved, crossed = coupled.experiment(num_classes), 0, 0
    for step in range(4):
        numbers = np.asarray(coupled.batches(parts)(step)[2])
        labels = SOURCE.labels[batch_indices(len(SOURCE), ROWS, seed=42, step=step)]
        np.testing.assert_array_equal(np.sort(numbers), np.arange(ROWS))  # each noise once
        np.testing.assert_array_equal(numbers // BLOCK, np.arange(ROWS) // BLOCK)
        moved += np.sum(numbers != np.arange(ROWS))
        crossed += np.sum(labels[numbers] != labels)
    assert moved and bool(crossed) == (num_classes == 0)


def test_any_entry_of_a_condition_keeps_its_noise():
    """Rows whose conditions all differ have no other noise to choose."""
    parts = coupled.experiment()
    batch = Batch(coupled.DIGITS[:ROWS], {"size": np.arange(ROWS, dtype=np.float32)[:, None]})
    numbers = coupling_of(parts).numbers(0, np.arange(ROWS), np.arange(ROWS), batch)
    np.testing.assert_array_equal(numbers, np.arange(ROWS))


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 2**16))
def test_the_assignment_is_a_permutation_no_dearer_than_others_and_in_one_dimension_the_sort(n, d, seed):
    generator = np.random.default_rng(seed)
    x0, eps = generator.standard_normal((2, n, d)).astype(np.float32)
    order = optimal_assignment(x0, eps)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    cost = np.square(x0 - eps[order]).sum()
    for other in (np.arange(n), generator.permutation(n), np.roll(order, 1)):
        assert cost <= np.square(x0 - eps[other]).sum() * (1 + 1e-6)
    if d == 1:
        np.testing.assert_array_equal(np.argsort(x0[:, 0]), np.argsort(eps[order, 0]))


# A network that is trained so has a velocity, and no score. In one dimension, of data N(m, s^2) coupled by the sort.

M, S = 0.7, 0.3


def gaussian(x, t):
    """E[x_0 | x_t] and E[eps | x_t] where x_0 = m + s eps."""
    t = t[:, None, None, None]
    eps = (x - (1 - t) * M) / ((1 - t) * S + t)
    return Prediction(M + S * eps, eps)


DETERMINISTIC = [*sorted(set(FAST_SOLVERS) - {"dpmpp_2m_sde", "edm_stochastic"}), "ode"]
KEYS = sample_keys(jax.random.key(0), jnp.arange(2000))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_solver_of_the_ode_ends_exactly_where_the_coupling_says(name):
    x = Linear().prior_sample(KEYS[:50], (1, 1, 1))
    solver = SAMPLERS[name](Linear(), gaussian, **({} if name == "ode" else {"num_steps": 10}))
    np.testing.assert_allclose(solve(solver, KEYS[:50], x)[0], M + S * x, atol=1e-3 if name == "ode" else 1e-4)


def test_a_sampler_of_the_score_has_another_law_which_is_why_it_is_refused():
    sampler = SAMPLERS["dpmpp_2m_sde"](Linear(), gaussian, num_steps=100)
    x = solve(sampler, KEYS, Linear().prior_sample(KEYS, (1, 1, 1)))[0]
    assert abs(float(np.std(x)) / S - 1) > 0.2


def of(**values):
    config = get_config()
    config.model.update(nf=8, num_res_blocks=1, ch_mult=(1,))
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in values.items()})
    return config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(sampling__method="pc", sampling__predictor="exponential"), "The sampler pc"),
        (dict(sampling__method="dpmpp_2m_sde"), "The sampler dpmpp_2m_sde"),
        (dict(sampling__method="edm_stochastic"), "The sampler edm_stochastic"),
        (dict(sampling__method="ddim", sampling__eta=0.5), "The sampler ddim"),
        (dict(sampling__start_time=0.5), "start images"),
        (dict(process__name="vp"), "Under VP x_1 holds a part of the image"),
        (dict(process__name="edm"), "Under EDM x_1 holds a part of the image"),
        (dict(weight__name="likelihood"), "The likelihood weight"),
        (dict(training__coupling_block=96), "must be a multiple of training.coupling_block=96"),
        (dict(training__pairs="pairs"), "set training.coupling=pairs"),
        (dict(training__keep_best=1), "set training.keep_best=0"),
        (dict(data__augment_p=0.1), "set data.augment_p=0"),
        (dict(training__coupling="pairs", data__random_flip=True), "set data.random_flip=False"),
        (dict(training__coupling="optimum"), "did you mean 'optimal'"),
    ],
)
def test_what_needs_a_score_or_makes_no_sense_is_refused_when_the_config_is_read(values, words):
    with pytest.raises(UsageError) as error:
        Experiment(of(**values))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        dict(sampling__method="ode"),
        dict(sampling__method="unipc_3"),
        dict(sampling__method="ddim", sampling__eta=0.0),
        dict(sampling__method="dpmpp_2m_sde", sampling__diffusion=0.0),
        dict(
            sampling__method="pc",
            sampling__predictor="exponential",
            sampling__corrector="none",
            sampling__diffusion=0.0,
        ),
        dict(process__name="cosine", parameterization__name="v"),
    ],
)
def test_what_solves_the_ode_is_taken(values):
    Experiment(of(**values))


def test_a_classifier_has_noise_of_its_own():
    config = classifier()
    config.training.coupling = "optimal"
    with pytest.raises(UsageError, match="A classifier sees images with noise of their own"):
        Classification(config)


@pytest.fixture(scope="module")
def model(one_block):
    experiment = Experiment(of())
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), experiment.param_shapes)
    return Pretrained(
        experiment.objective, experiment.network, params, experiment.image_shape, config=experiment.config
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, x: model.score(x, 0.5), "A score needs"),
        (lambda model, x: model.denoise(x, 0.5), "A denoiser"),
        (lambda model, x: model.bound(jax.random.key(0), np.zeros(x.shape, np.uint8)), "The bound"),
        (lambda model, x: model.sample(jax.random.key(0), 2, "dpmpp_2m_sde"), "The sampler dpmpp_2m_sde"),
        (lambda model, x: model.sample(jax.random.key(0), 2, scale=2.0), "Guidance"),
        (lambda model, x: model.sample(jax.random.key(0), 2, start=x, start_time=0.5), "start images"),
        (lambda model, x: model.posterior(jax.random.key(0), Average(2), x[:, ::2, ::2]), "given an observation"),
        (lambda model, x: Dequantizing(model.experiment, dict(model.config.dequantizer)), "A variational dequantizer"),
    ],
)
def test_a_trained_model_refuses_what_needs_a_score(model, call, words):
    with pytest.raises(UsageError, match=words):
        call(model, jnp.full((2, 8, 8, 1), 0.5))


def test_a_trained_model_has_samples_predictions_and_likelihoods_of_its_ode(model):
    x0, eps = model.predict(jnp.full((2, 8, 8, 1), 0.5), 0.25)
    np.testing.assert_allclose(0.75 * x0 + 0.25 * eps, 0.5, rtol=1e-6)
    assert model.sample(jax.random.key(0), 2, num_steps=2).shape == (2, 8, 8, 1)
    bits = model.bits_per_dim(jax.random.key(0), np.zeros((1, 8, 8, 1), np.uint8))
    assert np.isfinite(bits).all()
