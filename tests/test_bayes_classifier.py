"""The likelihood Bayes classifier equals Bayes' rule where the classes' densities are known."""

import jax
import numpy as np
import pytest
from test_conditional_likelihood import KEY, NAMES, PIXELS, D, captioned, exact, of_classes

from score_sde.errors import UsageError
from score_sde.randomness import batch_keys, stream

N = len(PIXELS)
PRIOR = np.array([0.7, 0.2, 0.1])


def bayes(log_likelihoods, prior=1 / 3):
    joint = log_likelihoods + np.log(prior)
    return np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))


def in_nats(bits):
    return -np.log(2) * D * np.asarray(bits, np.float64)


@pytest.mark.parametrize("prior", [None, PRIOR, np.roll(np.tile(PRIOR, (N, 1)), 1)])
def test_by_the_ode_it_is_bayes_rule(prior):
    model = of_classes()
    expected = exact(model, batch_keys(stream(KEY, 0), N), PIXELS)
    found = model.classify(KEY, PIXELS, prior=prior)
    np.testing.assert_allclose(found.log_likelihoods, expected, atol=3e-3)
    np.testing.assert_allclose(found.probabilities, bayes(expected, 1 / 3 if prior is None else prior), atol=1e-3)
    np.testing.assert_array_equal(found.choice, found.probabilities.argmax(axis=1))
    assert np.any(np.abs(found.probabilities - 0.5) < 0.45)  # some images are between classes


def test_by_the_bound_it_is_bayes_rule_on_average_and_shared_noise_cancels():
    """On copies of one image with noise of their own, whose differences from the truth have mean 0."""
    model, copies = of_classes(), np.repeat(PIXELS[:1], 600, axis=0)
    truth = exact(model, batch_keys(stream(KEY, 0), 600), copies)
    found = model.classify(KEY, copies, method="bound")
    away = found.log_likelihoods - truth
    assert np.all(np.abs(away.mean(0)) < 4 * away.std(0) / np.sqrt(600))
    shared, independent = (away[:, 1] - away[:, 2]).std(), np.hypot(*away[:, 1:].std(0))
    assert shared < 0.7 * independent


@pytest.mark.parametrize("method", ["ode", "bound"])
def test_log_likelihoods_are_those_of_the_model_averaged_over_passes(method):
    model = of_classes()
    function = {"ode": model.bits_per_dim, "bound": model.bound}[method]
    passes = [[in_nats(function(stream(KEY, r), PIXELS, label)) for label in (2, 0)] for r in range(2)]
    found = model.classify(KEY, PIXELS, [2, 0], method=method, repeats=2)
    np.testing.assert_allclose(found.log_likelihoods, np.mean(passes, axis=0).T, rtol=1e-5, atol=1e-4)


def test_candidates_are_for_all_images_or_for_each_in_any_order_and_batch():
    model, few = of_classes(), of_classes(eval__batch_size=4)
    whole = model.classify(KEY, PIXELS, method="bound").log_likelihoods
    each = np.stack([np.roll(np.arange(3), i)[:2] for i in range(N)])
    for labels in (each, [[NAMES[c] for c in row] for row in each]):
        found = model.classify(KEY, PIXELS, labels, method="bound").log_likelihoods
        np.testing.assert_allclose(found, np.take_along_axis(whole, each, 1), rtol=1e-6)
    np.testing.assert_allclose(few.classify(KEY, PIXELS, method="bound").log_likelihoods, whole, rtol=1e-6)
    by_cond = model.classify(KEY, PIXELS, cond={"labels": each}, method="bound")
    np.testing.assert_array_equal(by_cond.log_likelihoods, found)


def test_captions_are_candidates():
    model, captions = captioned(), ["all dark", "all bright"]
    expected = model.classify(KEY, PIXELS, ["dark", "bright"], method="bound")
    for text in (captions, [captions] * N):
        found = model.classify(KEY, PIXELS, text=text, method="bound")
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_a_prior_of_zero_excludes_a_candidate():
    found = of_classes().classify(KEY, PIXELS, prior=[0, 1, 3], method="bound")
    assert np.all(found.probabilities[:, 0] == 0) and np.all(found.choice > 0)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(labels=[0, 3]), "labels 0 to 2, not"),
        (dict(labels=[]), "one candidate or more"),
        (dict(labels=[[0, 1], [0]]), "a row of k for each of the 6 images"),
        (dict(labels=["dark", "red"]), "Unknown class 'red'"),
        (dict(labels=[0, 1], cond={"labels": [0, 1, 2]}), "2 of labels, 3 of cond"),
        (dict(cond={"labels": np.zeros((2, 2), int)}), r"its shape here is \(2, 2\)"),
        (dict(cond={"tokens": [0]}), "no condition entry 'tokens'"),
        (dict(text=["dark"]), "takes no text"),
        (dict(prior=[0.5, 0.5]), r"shape \(2,\); give \(3,\) or \(6, 3\)"),
        (dict(prior=[0, 0, 0]), "not all 0"),
        (dict(method="guess"), "Unknown method 'guess'"),
        (dict(repeats=0), "repeats must"),
    ],
)
def test_candidates_that_do_not_fit_are_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        of_classes().classify(KEY, PIXELS, **options)


def test_it_is_no_part_of_another_program():
    with pytest.raises(UsageError, match="call it outside jit"):
        jax.jit(lambda x: of_classes().classify(KEY, x).choice)(PIXELS)
