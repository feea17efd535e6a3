"""What a trained model, operators and conditions take: types and ranges, and the sentence for the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fuzz_models import ENTRIES, KEY, LABELS, MODEL, PIXELS, SHAPE, SMALL, N, X

from score_sde import cond
from score_sde.conditioning import Average, Blur, Inpaint, Linear, Observation, Options, Sense, extrapolation, pigdm
from score_sde.errors import UsageError
from score_sde.process import from_score
from score_sde.sde import VP

COND = {"vector": np.ones((N, 2), np.float32)}
STEPS = dict(sampler="ddim", num_steps=2, inverse="pigdm")


def test_uint8_observations_are_pixels():
    y = np.full((N, 2, 2, 1), 51, np.uint8)
    of_pixels, of_unit = (MODEL.posterior(KEY, Average(2), seen, **STEPS) for seen in (y, y / np.float32(255)))
    np.testing.assert_allclose(of_pixels, of_unit, atol=1e-6)
    np.testing.assert_allclose(Average(2).forward(of_pixels), 0.2, atol=1e-6)


def test_a_seed_is_a_key_and_numbers_of_numpy_and_jax_are_numbers():
    x = MODEL.sample(jax.random.key(3), N, "ddim", num_steps=2)
    np.testing.assert_array_equal(MODEL.sample(3, np.int64(N), "ddim", num_steps=jnp.int32(2)), x)
    np.testing.assert_array_equal(MODEL.sample(jax.random.PRNGKey(3), N, "ddim", num_steps=np.int8(2)), x)


def test_labels_beyond_32_bits_are_refused_instead_of_wrapping_around():
    wide = 2**32 + 1  # which is class 1 in 32 bits
    for labels in (wide, [1, wide], np.array([0, wide]), np.uint64(wide)):
        for call in (
            lambda labels: MODEL.sample(KEY, N, "ddim", num_steps=2, labels=labels, cond=COND),
            lambda labels: MODEL.score(X, 0.5, labels, COND),
        ):
            with pytest.raises(
                UsageError, match=rf"labels.*from [01] to {wide}|from {wide} to {wide}|labels 0 to 2, not \[{wide}\]"
            ):
                call(labels)
    with pytest.raises(UsageError, match=rf"cond\['labels'\] must be int32: its numbers are from 0 to {wide}"):
        MODEL.score(X, 0.5, cond=COND | {"labels": np.array([0, wide])})


def test_whole_numbers_of_a_list_are_floats_where_the_network_takes_floats():
    vector = np.asarray(cond.fitted({"vector": [[2**40, 1], [0, 2]]}, ENTRIES, N)["vector"])
    np.testing.assert_array_equal(vector, np.array([[2**40, 1], [0, 2]], np.float32))


def test_observations_share_noise_as_samples_do():
    y = np.full((2 * N, 2, 2, 1), 0.25, np.float32)
    pairs = MODEL.posterior(KEY, Average(2), y, **STEPS, same_noise=2)
    np.testing.assert_array_equal(pairs[::2], pairs[1::2])
    np.testing.assert_array_equal(pairs[::2], MODEL.posterior(KEY, Average(2), y, **STEPS)[:N])
    assert np.abs(pairs[0] - pairs[2]).max() > 1e-3


def test_one_time_and_one_label_are_for_all_images():
    each = MODEL.score(X, np.full(N, 0.5), [1, 1], COND)
    for t, label in ((0.5, 1), (np.float64(0.5), np.uint8(1)), (jnp.float32(0.5), jnp.int32(1)), ([0.5, 0.5], [1, 1])):
        np.testing.assert_array_equal(MODEL.score(X.tolist(), t, label, COND), each)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(x=PIXELS), "image_range"),
        (dict(t=0), r"in \(0, 1\]"),
        (dict(t=[0.5, 0.0]), r"numbers are from 0 to 0\.5"),
        (dict(t=np.full(3, 0.5)), "one size in all arguments"),
        (dict(labels=3.7), "labels must be"),
        (dict(labels=[0, 3]), r"labels 0 to 2, not \[3\]"),
        (dict(labels=[0, 1, 2]), "one row for each image"),
        (dict(x=X[0]), r"shape \(b, h, w, c\)"),
        (dict(x=X[:0], t=0.5, labels=None, cond=None), "give at least one"),
        (dict(x=np.zeros((N, 1, 4, 4), np.float32)), "channels-last"),
    ],
)
def test_what_a_score_does_not_take_is_named(change, words):
    with pytest.raises(UsageError, match=words):
        MODEL.score(**dict(x=X, t=0.5, labels=LABELS, cond=COND) | change)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (255 * X, r"uint8, or floats in \[0, 1\].* from [\d.]+ to 2\d\d"),
        (2 * X - 1, "leave that range"),
        (X * np.nan, "are NaN"),
        (X[0], r"this model takes \(n, 4, 4, 1\), with n at least 1"),
        (PIXELS.transpose(0, 3, 1, 2), r"channels-last, \(n, 4, 4, 1\).*transpose\(0, 2, 3, 1\)"),
        (X[:0], "n at least 1"),
    ],
)
def test_images_in_another_range_or_order_are_refused(images, words):
    for function in (MODEL.encode, lambda pixels: MODEL.bits_per_dim(KEY, pixels), lambda x: MODEL.bound(0, x)):
        with pytest.raises(UsageError, match=words):
            function(images)


@pytest.mark.parametrize("y", [255 * SMALL, -SMALL - 0.1, SMALL * np.nan])
def test_observations_far_from_the_range_of_images_are_refused(y):
    with pytest.raises(UsageError, match=r"must be of images in \[0, 1\]"):
        MODEL.posterior(KEY, Average(2), y, **STEPS)


def test_noise_moves_observations_out_of_the_range_of_images():
    assert MODEL.posterior(KEY, Average(2), SMALL - 1.2, 0.3, **STEPS).shape == (N, *SHAPE)


def test_hidden_pixels_of_an_observation_do_not_matter():
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    y = np.where(mask[..., None], X, np.nan).astype(np.float32)
    for inverse in ("dps", "tmpd"):  # which read all of y - A x
        options = dict(STEPS, inverse=inverse)
        drawn = [MODEL.posterior(KEY, Inpaint(mask), seen, 0.1, **options) for seen in (X, y, np.nan_to_num(y))]
        np.testing.assert_array_equal(drawn[0], drawn[2])
        np.testing.assert_array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize("shape", [(4, 3), (1, 4, 3), (4, 3, 1), (2, 4, 3), (2, 4, 3, 1), (2, 4, 3, 2), (1, 4, 3, 2)])
@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, list])
def test_a_mask_has_the_shape_of_images_or_one_for_all(shape, kind):
    mask = np.random.default_rng(0).uniform(size=shape) < 0.5
    x = np.ones((2, 4, 3, 2), np.float32)
    full = mask[None, ..., None] if mask.ndim == 2 else mask if mask.ndim == 4 else mask[None]
    full = mask[..., None] if mask.ndim == 3 and shape[-1] != 1 else full
    seen = Inpaint(mask.tolist() if kind is list else mask.astype(kind)).forward(x)
    np.testing.assert_array_equal(seen, np.broadcast_to(full, x.shape))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((4, 4), 0.5), "True or 1"),
        (np.full((4, 4), 255, np.uint8), "compare them, as mask > 127"),
        (np.ones(4), r"of shape \(h, w\)"),
        (np.ones((4, 3)), r"for images of \(4, 3\) pixels"),
        (np.ones((3, 4, 4)), "for images of"),
        (np.ones((2, 4, 4, 2)), "for images of"),
        ("left", "must be an array"),
    ],
)
def test_other_masks_are_refused(mask, words):
    with pytest.raises(UsageError, match=words):
        Inpaint(mask).forward(X)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Average(0), "factor must be an integer at least 1"),
        (lambda: Average(2.5), "factor must be an integer"),
        (lambda: Average(3).forward(X), "factor 3 must divide"),
        (lambda: Average(grey=True).forward(X), r"images in colour; these have 1 channel"),
        (lambda: Average(grey=True).adjoint(np.ones((2, 4, 4, 3), np.float32)), "images of one channel"),
        (lambda: Average(2).forward(PIXELS), "to_unit"),
        (lambda: Average(2).impose(X, np.ones((2, 4, 4, 1), np.float32)), r"makes \(2, 2, 2, 1\)"),
        (lambda: Blur(0), "sigma must be a number above 0"),
        (lambda: Blur(np.inf), "sigma must be a number above 0"),
        (lambda: Sense(0), r"fraction must be a number in \(0, 1\]"),
        (lambda: Sense(1.5), r"fraction must be a number in \(0, 1\]"),
        (lambda: Sense(0.5, -1), "seed must be an integer of 0 or more"),
        (lambda: Linear(lambda x: x[:, ::2], (4, 4)), "it has 2 items"),
        (lambda: Linear(lambda x: x @ np.ones((3, 2)), SHAPE), "linear and take images"),
        (lambda: Linear(lambda x: x**2, SHAPE), "linear and take images"),
        (lambda: Linear(lambda x: x.sum(), SHAPE), "linear and take images|a row for each"),
        (lambda: Linear(lambda x: x, SHAPE, 0), "iterations must be an integer at least 1"),
        (lambda: Options(iterations=0), "iterations must be an integer at least 1"),
        (lambda: Options(reach=0), "reach must be a number"),
        (lambda: Options(step=-1), "step must be a number above 0"),
        (lambda: Options(data_variance=0), "data_variance must be a number above 0"),
        (lambda: MODEL.posterior(KEY, Average(2), SMALL, -0.1), "noise must be a number of 0 or more"),
        (lambda: MODEL.posterior(KEY, Average(2), SMALL, "ddim"), "noise must be a number of 0 or more"),
        (lambda: MODEL.sample(KEY, 2, scale=-3, labels=0), "guidance.scale=-3"),
        (lambda: MODEL.sample(KEY, 2, interval=(0.5, 0.1), labels=0), r"guidance\.interval"),
        (lambda: MODEL.sample(KEY, 0), "n must be an integer at least 1"),
        (lambda: MODEL.sample(-1, 2), "a seed is in 0"),
        (lambda: MODEL.denoise(X, 1e6), "sigma must be at most"),
        (lambda: MODEL.decode(PIXELS), "z must be a float array"),
        (lambda: MODEL.interpolate(PIXELS, PIXELS[:1], 3), "2 and 1 images"),
        (lambda: MODEL.interpolate(PIXELS, PIXELS, 1), "n must be an integer at least 2"),
        (lambda: cond.fitted({"vector": ["a"]}, ENTRIES, 1), "must be an array"),
        (lambda: cond.fitted({"null": 3}, ENTRIES, 1), "is a dictionary of arrays"),
        (lambda: cond.fitted([1, 2], ENTRIES, 2), "must be a dictionary or None"),
    ],
)
def test_values_that_mean_nothing_are_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_guides_refuse_negative_noise():
    seen = Observation(Average(2), jnp.asarray(SMALL), jnp.full(N, -0.1))
    with pytest.raises(UsageError, match="noise"):
        pigdm(VP(), from_score(VP(), lambda x, t: -x), seen, Options())


def test_a_scale_of_jax_guides():
    model = from_score(VP(), lambda x, t: -x)
    assert extrapolation(model, model, scale=jnp.float32(1)) is model


def test_whole_numbers_of_a_list_are_floats_where_an_entry_has_floats():
    fitted = cond.fitted({"vector": [[1, 2]]}, ENTRIES, 1)["vector"]
    assert fitted.dtype == jnp.float32 and fitted.tolist() == [[1.0, 2.0]]


def test_operators_pass_through_jax_as_they_are():
    mask = jnp.ones((2, 4, 4, 1), bool)
    jax.vmap(lambda operator, x: operator.mask & (x > 0))(Inpaint(mask), X)
    ((path, leaf),) = jax.tree_util.tree_leaves_with_path(Inpaint(mask))
    assert jax.tree_util.keystr(path) == ".mask" and leaf is mask
    assert jax.tree.map(lambda _: 0, Inpaint(mask)).mask == 0  # as axes are
    assert jax.tree.structure(Average(2)) == jax.tree.structure(Average(2)) != jax.tree.structure(Average(4))
