"""EDM's augmentation pipe against the publisher's own outputs, scipy, and closed forms; and its place in training."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN
from scipy import ndimage

from score_sde.errors import UsageError
from score_sde.randomness import sample_keys
from score_sde.training import augmentation
from score_sde.training.augmentation import SYM6, TRANSFORMS, Drawn, draw, labels, transformed
from score_sde.training.build import Experiment, trainable
from score_sde.training.run import train_step

KEYS = sample_keys(jax.random.key(5), jnp.arange(400))
OF_MEANFLOW = ("xflip", "scale", "aniso", "translate")
apply = jax.jit(transformed)


def drawn(n: int = 1, **values):
    """Parameters of n images, zero but for these."""
    zeros = {name: np.zeros(n, np.float32) for name in Drawn._fields}
    return Drawn(**zeros | {name: np.full(n, value, np.float32) for name, value in values.items()})


def waves(size, cycles=1.0):
    """An image of smooth waves, (size, size), of one period in size / cycles pixels."""
    rows, columns = np.mgrid[:size, :size]
    u = 2 * np.pi * cycles / size
    return (np.sin(u * rows + 0.4) * np.cos(u * columns + 1.1)).astype(np.float32)


@pytest.mark.parametrize("name", ["rgb", "grey"])
def test_the_pipe_does_what_the_publishers_does(name):
    """golden/README.md: EDM's own pipe in float64, given these parameters."""
    golden = np.load(GOLDEN / "augmentation.npz")
    of = Drawn(**{field: golden[f"drawn_{field}"] for field in Drawn._fields})
    normal = np.random.default_rng([27, zlib.crc32(name.encode())]).standard_normal(golden[name].shape)
    result = apply(of, np.clip(normal / 2, -1, 1).astype(np.float32))
    assert np.abs(result - golden[name]).max() <= 1e-5 * np.abs(golden[name]).max()
    np.testing.assert_allclose(labels(of), golden["labels"], atol=2e-7)


def test_the_filter_is_orthonormal_with_six_vanishing_moments():
    h = np.array(SYM6)
    np.testing.assert_allclose(h.sum(), np.sqrt(2), atol=1e-12)
    for shift in range(0, 12, 2):
        np.testing.assert_allclose(h[shift:] @ h[: len(h) - shift], shift == 0, atol=1e-12)
    k = np.arange(12)
    for power in range(6):
        assert abs(((-1.0) ** k * (k - 5.5) ** power * h).sum()) < 1e-8 * 6.0**power


def test_labels_are_zero_exactly_where_nothing_was_changed():
    x = jax.random.uniform(jax.random.key(0), (400, 8, 8, 3), minval=-1.0)
    for p, transforms in ((0.12, None), (0.5, ("yflip", "rotate")), (0.3, OF_MEANFLOW), (0.0, None)):
        of = draw(KEYS, p, transforms)
        labelled = np.any(np.asarray(labels(of, transforms)) != 0, axis=1)
        changed = np.any(np.asarray(apply(of, x) != x), axis=(1, 2, 3))
        np.testing.assert_array_equal(labelled, changed)
        assert labelled.any() == (p > 0) and not labelled.all()


def test_flips_and_whole_pixels_are_exact():
    x = jax.random.uniform(jax.random.key(1), (1, 8, 12, 3), minval=-1.0)
    np.testing.assert_array_equal(apply(drawn(xflip=1), x), x[:, :, ::-1])
    np.testing.assert_array_equal(apply(drawn(yflip=1), x), x[:, ::-1])
    right, down = 3, 2  # pixels; what comes in at the other side is the reflection
    moved = apply(drawn(translate_x=8 * right / 12, translate_y=8 * down / 8), x)
    reflected = np.pad(x, ((0, 0), (down, 0), (right, 0), (0, 0)), mode="reflect")[:, :8, :12]
    np.testing.assert_allclose(moved, reflected, atol=1e-5)


@pytest.mark.parametrize(
    "of",
    [
        dict(scale=1.0),
        dict(scale=-1.5),
        dict(rotate=0.6),
        dict(rotate=-2.0),
        dict(aniso=1.2),
        dict(aniso=1.2, aniso_angle=0.7),
        dict(translate_x=0.37, translate_y=-0.81),
        dict(scale=0.7, rotate=0.5, aniso=-0.9, aniso_angle=1.0, translate_x=0.4),
    ],
    ids=lambda of: "-".join(of),
)
def test_each_transform_is_scipys_of_the_same_map(of):
    """Bilinear reading of twice the pixels errs by max |f''| / 32 an axis: 4 times as much at twice the frequency."""
    errors, size = [], 64
    for cycles in (1, 2):
        x = waves(size, cycles)
        theirs = ndimage.affine_transform(np.float64(x), *inverse(size, **of), order=5, mode="mirror")
        ours = np.asarray(apply(drawn(**of), x[None, ..., None]))[0, ..., 0]
        inner = slice(16, 48)  # scipy's reflection at an edge is not smooth, and a spline of order 5 rings there
        errors.append(np.abs(ours - theirs)[inner, inner].max())
        assert errors[-1] < 2 * 1.5 * (2 * np.pi * cycles / size) ** 2 / 32  # half as much again for the reduction
    assert errors[1] > 2 * errors[0]


def inverse(size, *, scale=0.0, rotate=0.0, aniso=0.0, aniso_angle=0.0, translate_x=0.0, translate_y=0.0):
    """scipy's matrix and offset (row, column): the place in the image of each place in the result."""
    axes = counter_clockwise(aniso_angle)
    stretch = axes @ np.diag([2 ** (0.2 * aniso), 2 ** (-0.2 * aniso)]) @ axes.T
    forward = 2 ** (0.2 * scale) * stretch @ counter_clockwise(rotate)  # of (column, row); the shift comes last
    matrix = np.linalg.inv(forward)[::-1, ::-1]
    # The middle that the maps leave in place is 0.05 pixels off the image's: the filter's centre is no whole tap.
    off = (np.arange(12) @ np.array(SYM6) / np.sqrt(2) - 5) / 2
    center, shift = np.full(2, (size - 1) / 2 - off), np.array([translate_y, translate_x]) * size / 8
    return matrix, center - matrix @ (center + shift)


def counter_clockwise(angle):
    """The rotation of (column, row), where rows go down."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def test_an_image_depends_on_its_own_key_alone():
    x = jax.random.uniform(jax.random.key(2), (400, 8, 8, 3), minval=-1.0)
    of = draw(KEYS, 0.5)
    others = jnp.where((jnp.arange(400) % 2 == 0)[:, None, None, None], x, 0)
    np.testing.assert_allclose(apply(of, x)[::2], apply(of, others)[::2], atol=1e-6)
    np.testing.assert_array_equal(labels(of)[300:], labels(draw(KEYS[300:], 0.5)))


def test_parameters_have_their_laws():
    keys, p = sample_keys(jax.random.key(9), jnp.arange(20_000)), 0.12
    of = jax.tree.map(np.asarray, jax.jit(draw, static_argnums=1)(keys, p))
    n, few = len(keys), 4 / np.sqrt(len(keys))  # four standard errors of a frequency are at most half of that
    assert abs(of.xflip.mean() - 0.5) < few and abs(of.yflip.mean() - p / 2) < few
    for name in ("scale", "rotate", "aniso", "translate_x"):
        values = getattr(of, name)
        assert abs((values != 0).mean() - p) < few
        spread = np.pi / np.sqrt(3) if name == "rotate" else 1.0
        assert abs(values[values != 0].std() / spread - 1) < few / np.sqrt(p)
    stretched = of.aniso != 0
    assert abs((of.aniso_angle[stretched] != 0).mean() - 0.5) < few / np.sqrt(p)
    assert not of.aniso_angle[~stretched].any() and np.array_equal(of.translate_x != 0, of.translate_y != 0)
    both = (of.scale != 0) & (of.rotate != 0)
    assert abs(both.mean() - p**2) < few and n == 20_000


def test_a_choice_of_transforms_leaves_the_others_as_they_were():
    every, some = draw(KEYS, 0.5), draw(KEYS, 0.5, OF_MEANFLOW)
    assert not some.yflip.any() and not some.rotate.any() and every.yflip.any()
    np.testing.assert_array_equal(some._replace(yflip=every.yflip, rotate=every.rotate), every)
    assert labels(some, OF_MEANFLOW).shape == (400, 6) and labels(every).shape == (400, 9)
    shuffled = labels(some, OF_MEANFLOW[::-1])
    np.testing.assert_array_equal(shuffled, labels(some, OF_MEANFLOW))
    with pytest.raises(UsageError, match=r"Unknown transform 'rotat' \(did you mean 'rotate'\?\)"):
        draw(KEYS, 0.5, ("rotat",))


def config_with_pipe(tiny_config, **of_data):
    config = tiny_config("edm/digits_augmented")
    config.data.update(sigma_images=0, **{"augment_p": 0.5} | of_data)
    return config


class Told(nn.Module):
    """Not a network: its output is a weighted image and the first label of each image, in every pixel."""

    augment_dim: int = 1

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None, augment=None):
        labels = jnp.zeros((len(x), self.augment_dim)) if augment is None else augment
        weights = self.param("w", nn.initializers.ones, (self.augment_dim,))
        return 0.5 * x + (labels @ weights)[:, None, None, None]


def test_training_tells_the_network_what_evaluation_never_has(tiny_config):
    config = config_with_pipe(tiny_config, augment_transforms=("yflip",), uniform_dequantization=False)
    config.model.augment_dim = 1
    experiment = Experiment(config, network=Told())
    keys, x = KEYS[:64], jax.random.uniform(jax.random.key(3), (64, 8, 8, 1))
    seen, of = experiment.augment(keys, x), experiment.augment_labels(keys)["augment"][:, 0]
    np.testing.assert_array_equal(seen, np.where(of[:, None, None, None] == 1, x[:, ::-1], x))
    params = experiment.init_params()
    with_labels = experiment.loss(params, keys, seen, training=True, augment=of[:, None])
    without = experiment.loss(params, keys, seen, training=True)
    assert np.array_equal(with_labels != without, of == 1) and 0 < of.sum() < 64
    off = config_with_pipe(tiny_config, augment_p=0.0, uniform_dequantization=False)
    plain = Experiment(off, network=Told())
    np.testing.assert_array_equal(plain.augment(keys, x), x)
    assert plain.augment_labels(keys) == {}
    pixels = jnp.uint8(255 * x)
    of_both = (each.evaluation(params, pixels, 0, jnp.arange(64))["loss"] for each in (experiment, plain))
    np.testing.assert_array_equal(*of_both)


def test_an_update_does_not_depend_on_the_parts_of_a_batch(tiny_config):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    states, losses = [], []
    for accumulate in (1, 2):
        config = config_with_pipe(tiny_config)
        config.training.accumulate = accumulate
        experiment = Experiment(config, network=Told(9))
        state, loss = jax.jit(train_step(experiment))(experiment.init_state(), pixels)
        states.append(state.opt_state[1][0].mu["w"])
        losses.append(loss)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    np.testing.assert_allclose(*states, rtol=1e-4, atol=1e-6)
    assert np.abs(states[0]).min() > 0


@pytest.mark.parametrize(
    ("of_data", "of_model", "words"),
    [
        ({}, dict(augment_dim=0), "has 9 labels, and this network takes 0.*set model.augment_dim=9"),
        (dict(augment_transforms=OF_MEANFLOW), {}, "has 6 labels, and this network takes 9"),
        (dict(augment_transforms=()), {}, "is of no transform"),
        (dict(random_flip=True), {}, "set data.random_flip=False, as EDM does"),
        (dict(augment_p=1.5), {}, r"augment_p=1.5 must be in \[0, 1\]"),
        (dict(augment_transforms=("turn",)), {}, "Unknown data.augment_transforms 'turn'"),
    ],
)
def test_a_leak_and_other_mistakes_are_refused(tiny_config, of_data, of_model, words):
    config = config_with_pipe(tiny_config, **of_data)
    config.model.update(of_model)
    with pytest.raises(UsageError, match=words):
        trainable(config)


def test_networks_without_such_labels_are_refused(tiny_config):
    config = tiny_config("vp/digits_wideresnet")
    config.data.augment_p = 0.1
    with pytest.raises(UsageError, match=r"ncsnpp and adm take them, or set data.augment_p=0"):
        trainable(config)
    augmentation.check(object(), 0.0, tuple(TRANSFORMS))
