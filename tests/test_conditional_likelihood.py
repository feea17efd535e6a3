"""Likelihoods given a condition, against the closed form of Gaussian classes and of their mixture."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.cond import Entry, read
from score_sde.config import Config
from score_sde.data import InMemory
from score_sde.errors import UsageError
from score_sde.evaluation import identities, over_split, report
from score_sde.inference.pretrained import Pretrained
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.process import LEAST_TIME
from score_sde.randomness import Stream, batch_keys, expand, sample_keys, stream
from score_sde.sampling import slerp
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

SHAPE, D, KEY = (2, 2, 1), 4, jax.random.key(0)
MEANS, STDS = np.array([-0.5, 0.1, 0.4]), np.array([0.2, 0.4, 0.3])  # of classes of independent pixels in [-1, 1]
PROCESS = VP(beta_max=40.0)  # alpha(1) is 5e-5, so that the classes are the prior there
PIXELS = np.random.default_rng(0).integers(40, 220, (6, *SHAPE)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 2, 1, 0])
NAMES = ("dark", "grey", "bright")


class Classes(nn.Module):
    """E[eps | x_t, c] for the classes, and for their mixture in equal parts where the class is null; told 999 t."""

    process: Any = PROCESS

    @property
    def cond_entries(self):
        return {"labels": Entry(jnp.int32, (), below=len(MEANS))}

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        labels, null = read(cond, self.cond_entries, "labels", len(x))
        alpha, sigma = (expand(scale(noise_cond / 999), x) for scale in (self.process.alpha, self.process.sigma))
        means = self.param("means", nn.initializers.zeros, (len(MEANS),))
        away = [x - alpha * mean for mean in means]
        variances = [jnp.square(alpha * std) + jnp.square(sigma) for std in STDS]
        joint = [
            -jnp.sum(jnp.square(d) / (2 * var) + jnp.log(var) / 2, axis=(1, 2, 3))
            for d, var in zip(away, variances, strict=True)
        ]
        of_class = jnp.where(null[:, None], jax.nn.softmax(jnp.stack(joint, 1)), jax.nn.one_hot(labels, len(MEANS)))
        of_each = [sigma * d / var for d, var in zip(away, variances, strict=True)]
        return sum(expand(of_class[:, i], x) * eps for i, eps in enumerate(of_each))


@functools.cache
def of_classes(**options) -> Pretrained:
    """The model of the classes; options: flattened values of its config."""
    objective = Objective(PROCESS, Noise(), Uniform(), NoiseWeight())
    fields = dict(network=Classes(), params={"means": np.float32(MEANS)}, image_shape=SHAPE, class_names=NAMES)
    config = Config(Pretrained(objective, **fields).config).copy_and_resolve_references()
    exact = {"eval.hutchinson_type": "exact", "eval.batch_size": 64}
    config.update_from_flattened_dict(exact | {name.replace("__", "."): value for name, value in options.items()})
    return Pretrained(objective, **fields, config=config)


def nats(y):
    """log p(y | c) of points in model range, in float64, (n, classes)."""
    y = np.asarray(y, np.float64).reshape(len(y), -1, 1)
    return np.sum(-np.square((y - MEANS) / STDS) / 2 - np.log(STDS) - np.log(2 * np.pi) / 2, axis=1)


def exact(model, keys, pixels):
    """Log-likelihoods of dequantized images in nats, (n, classes), by the closed form."""
    y, log_q = model.dequantize(keys, jnp.asarray(pixels / 255, jnp.float32))
    return nats(y) - np.log(2) * D * np.asarray(log_q, np.float64)[:, None]


def in_bits(log_likelihoods):
    return -log_likelihoods / (np.log(2) * D)


def test_bits_given_a_class_are_those_of_the_class():
    model = of_classes()
    expected = in_bits(exact(model, batch_keys(KEY, 6), PIXELS))[np.arange(6), LABELS]
    np.testing.assert_allclose(model.bits_per_dim(KEY, PIXELS, LABELS), expected, atol=1e-3)


def test_without_a_class_the_likelihood_is_the_classes_average():
    """The law of total probability, p(x) = sum_c p(c) p(x | c), of four ODEs."""
    model = of_classes()
    each = [-np.log(2) * D * np.asarray(model.bits_per_dim(KEY, PIXELS, c), np.float64) for c in range(3)]
    total = np.logaddexp.reduce(each) - np.log(3)
    np.testing.assert_allclose(model.bits_per_dim(KEY, PIXELS), in_bits(total), atol=1e-3)


def test_the_bound_given_a_class_is_met_by_exact_scores():
    model, copies = of_classes(), np.repeat(PIXELS[:1], 600, axis=0)
    keys = batch_keys(KEY, 600)
    for label in (0, 2):
        away = np.asarray(model.bound(keys, copies, label), np.float64) - in_bits(exact(model, keys, copies))[:, label]
        assert abs(away.mean()) < 4 * away.std() / np.sqrt(600) < 0.5  # the two classes are 6 bits/dim apart


def test_labels_their_names_and_the_condition_are_one():
    model, cond = of_classes(), {"labels": np.full(6, 2)}
    expected = np.asarray(model.bound(KEY, PIXELS, cond=cond))
    for labels in (2, "bright", ["bright"] * 6, [2] * 6):
        np.testing.assert_array_equal(model.bound(KEY, PIXELS, labels), expected)
    np.testing.assert_allclose(jax.jit(model.bound)(KEY, PIXELS, cond=cond), expected, rtol=1e-4)


class Caption:
    """A text condition whose entry is the class that the caption names."""

    def cond(self, texts):
        return {"labels": np.array([NAMES.index(text.split()[-1]) for text in texts])}


def captioned() -> Pretrained:
    """The model of the classes, asked for by captions."""
    model = of_classes.__wrapped__()
    object.__setattr__(model, "text", Caption())
    return model


def test_captions_are_entries_of_the_condition():
    model = captioned()
    expected = model.bound(KEY, PIXELS[:2], [0, 2])
    np.testing.assert_array_equal(model.bound(KEY, PIXELS[:2], text=["all dark", "all bright"]), expected)
    np.testing.assert_array_equal(
        model.bound(KEY, PIXELS[:2], text="all grey"), of_classes().bound(KEY, PIXELS[:2], "grey")
    )
    twice = r"labels are cond\['labels'\]"
    for text, labels, words in ((["dark"], None, "1 captions for 2 images"), ("dark", 1, twice)):
        with pytest.raises(UsageError, match=words):
            model.bits_per_dim(KEY, PIXELS[:2], labels, text=text)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (dict(labels=3), "labels 0 to 2, not"),
        (dict(labels=[1, 2]), "one row for each image"),
        (dict(labels="red"), "Unknown class 'red'"),
        (dict(labels=1, cond={"labels": LABELS}), "give one of the two"),
        (dict(cond={"tokens": LABELS}), "takes no condition entry 'tokens'"),
        (dict(text="dark"), "takes no text"),
    ],
)
def test_a_condition_that_does_not_fit_is_one_sentence(condition, words):
    for function in (of_classes().bits_per_dim, of_classes().bound):
        with pytest.raises(UsageError, match=words):
            function(KEY, PIXELS, **condition)


def test_a_network_that_was_never_without_a_class_has_likelihoods_given_one():
    model = of_classes(training__label_dropout=0.0)
    np.testing.assert_array_equal(model.bound(KEY, PIXELS, LABELS), of_classes().bound(KEY, PIXELS, LABELS))
    with pytest.raises(UsageError, match=r"take likelihoods given a condition \(eval.bpd_with_cond=True\)"):
        model.bits_per_dim(KEY, PIXELS)


# Of a split.


def keys_of_split(model, n):
    root = stream(jax.random.key(model.config.seed + 1), Stream.BITS_PER_DIM)
    return sample_keys(stream(root, 0), jnp.arange(n))


def test_a_split_is_evaluated_given_its_own_conditions_where_the_config_says_so():
    source, plain = InMemory(PIXELS, LABELS), of_classes()
    model = of_classes(eval__bpd_with_cond=True)
    expected = in_bits(exact(model, keys_of_split(model, 6), PIXELS))[np.arange(6), LABELS]
    figure = over_split.bits_per_dim(model, source, 1)
    np.testing.assert_allclose(figure["mean"], expected.mean(), atol=1e-3)
    assert figure["given"] == ["labels"] and "given" not in over_split.bits_per_dim_bound(plain, source, 1)
    assert report.parts({"bits_per_dim": figure}) == ["bits/dim: of each image given its labels (eval.bpd_with_cond)."]
    keys = keys_of_split(model, 6)
    bound = over_split.bits_per_dim_bound(model, source, 1)
    np.testing.assert_allclose(bound["mean"], np.mean(model.bound(keys, PIXELS, LABELS)), rtol=1e-5)
    assert identities.of_likelihood(model, source, 1) != identities.of_likelihood(plain, source, 1)


def test_images_without_the_condition_are_refused():
    with pytest.raises(UsageError, match="has no labels"):
        over_split.check_own_cond(of_classes(eval__bpd_with_cond=True), InMemory(PIXELS))
    assert over_split.check_own_cond(of_classes(), InMemory(PIXELS)) is None


def latents(y, labels):
    """Solutions of the probability-flow ODE, which moves a Gaussian's quantiles to quantiles."""
    t = np.array([LEAST_TIME, 1.0], np.float32)
    alpha, sigma = (
        np.asarray(scale(t), np.float64)[:, None, None, None, None] for scale in (PROCESS.alpha, PROCESS.sigma)
    )
    mean, std = (column[labels][:, None, None, None] for column in (MEANS, STDS))
    (start, end), (narrow, wide) = alpha * mean, np.sqrt(np.square(alpha * std) + np.square(sigma))
    return end + wide / narrow * (y - start)


def test_latents_given_a_class_are_those_of_the_class():
    model, y = of_classes(), np.asarray(PIXELS, np.float64) / 127.5 - 1
    z = model.encode(PIXELS, LABELS)
    np.testing.assert_allclose(z, latents(y, LABELS), atol=2e-3)
    np.testing.assert_array_equal(model.encode(PIXELS, [NAMES[label] for label in LABELS]), z)
    np.testing.assert_allclose(model.decode(z, LABELS), PIXELS / 255, atol=1e-3)
    assert np.abs(model.encode(PIXELS) - z).max() > 0.1  # those of the mixture


def test_an_image_decoded_as_another_class_has_the_same_place_in_it():
    model, y = of_classes(), np.asarray(PIXELS, np.float64) / 127.5 - 1
    others = (LABELS + 1) % 3
    mean, std, mean_of_other, std_of_other = (
        column[labels][:, None, None, None] for labels in (LABELS, others) for column in (MEANS, STDS)
    )
    expected = np.clip((mean_of_other + std_of_other / std * (y - mean) + 1) / 2, 0, 1)
    np.testing.assert_allclose(model.decode(model.encode(PIXELS, LABELS), others), expected, atol=2e-3)


def test_interpolation_given_a_class_has_the_ends_it_was_given():
    model, of_pair = of_classes(), dict(labels=LABELS[:3])
    path = model.interpolate(PIXELS[:3], PIXELS[3:], 3, **of_pair)
    np.testing.assert_allclose(path[::2], np.stack([PIXELS[:3], PIXELS[3:]]) / 255, atol=1e-3)
    middle = slerp(model.encode(PIXELS[:3], **of_pair), model.encode(PIXELS[3:], **of_pair), 0.5)
    np.testing.assert_allclose(path[1], model.decode(middle, **of_pair), atol=1e-6)
