"""Pairs of a teacher's ODE, what a student trains on, and how straight paths are, of velocities that are known."""

import functools
import json

import coupled
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr
from score_sde.configs.flow.digits_ddpmpp_uniform import get_config

from score_sde.config import base
from score_sde.data import batch_indices, pairs
from score_sde.data.pairs import Pairs, pair_keys
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained, load
from score_sde.inference.reflow import straightness, write_pairs
from score_sde.objective import Objective
from score_sde.oracles import Gaussian, Mixture
from score_sde.parameterization import Velocity
from score_sde.paths import PROCESSES, Linear
from score_sde.process import Prediction, velocity
from score_sde.randomness import Stream, normal, stream
from score_sde.runtime.sharding import fully_sharded
from score_sde.times import Uniform
from score_sde.training.build import Experiment
from score_sde.training.coupling import coupling_of
from score_sde.training.run import train
from score_sde.training.source_checks import check_source
from score_sde.training.start import beginning
from score_sde.weights import VelocityWeight

SHAPE = (1, 1, 1)
S = 0.5
GAUSSIAN = Gaussian(np.zeros(SHAPE), S**2)
MEANS, WEIGHTS, STD = (-0.7, 0.6), (0.4, 0.6), 0.1
MIXTURE = Mixture(WEIGHTS, [Gaussian(np.full(SHAPE, mean), STD**2) for mean in MEANS])


LINEAR = Linear()


class Exact(nn.Module):
    """A network that returns the velocity of a process and a model."""

    model: object
    process: object = LINEAR

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return velocity(self.process, self.model(x, noise_cond), noise_cond)


def pretrained(model, process=LINEAR, *, size=8, **sampling) -> Pretrained:
    config = base()
    config.data.update(image_size=1, num_channels=1, centered=True)
    config.sampling.update({"method": "ode", "rtol": 1e-6, "atol": 1e-6} | sampling)
    config.eval.batch_size = size
    objective = Objective(process, Velocity("time", 1.0), Uniform(), VelocityWeight())
    return Pretrained(objective, Exact(model, process), {}, SHAPE, config=config)


def quantile(z):
    """The monotone map from N(0, 1) to the mixture, by bisection."""
    low, high = np.full(z.shape, -4.0), np.full(z.shape, 4.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = sum(w * ndtr((middle - m) / STD) for w, m in zip(WEIGHTS, MEANS, strict=True)) < ndtr(z)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


# Straightness.


def of_gaussian() -> float:
    r"""\int (t - (1-t) s^2)^2 / ((1-t)^2 s^2 + t^2) dt - (1 - s)^2, of independent ends, with x_0 = s eps."""
    t = (np.arange(100_000) + 0.5) / 100_000
    return np.mean((t - (1 - t) * S**2) ** 2 / ((1 - t) ** 2 * S**2 + t**2)) - (1 - S) ** 2


@pytest.mark.parametrize("name", ["linear", "cosine", "trigonometric", "vp"])
def test_straightness_of_independent_gaussians_is_the_closed_form_under_any_path(name):
    process, n = PROCESSES[name](), 400
    model = pretrained(GAUSSIAN.model(process), process, method="unipc_2")
    z = normal(stream(pair_keys(0, 0, np.arange(n)), Stream.NOISE), SHAPE)
    size = float(np.mean(np.square(z)))  # each path's is proportional to z^2
    measured = straightness(model, pair_keys(0, 0, np.arange(n)), n, num_steps=200)
    assert measured == pytest.approx(size * of_gaussian(), rel=0.02)


TABLE = np.linspace(-6, 6, 20_001)


def monotone(image, x, t):
    """The prediction of a student that has learned the lines from the noise of `TABLE` to these images."""
    z, t = jnp.asarray(TABLE, jnp.float32), t[:, None, None, None]
    eps = jax.vmap(lambda x, t: jnp.interp(x, (1 - t) * image + t * z, z))(x.ravel(), t.ravel()).reshape(x.shape)
    return Prediction((x - t * eps) / jnp.maximum(1 - t, 1e-3), eps)


@pytest.mark.parametrize(("data", "image"), [(GAUSSIAN, S * TABLE), (MIXTURE, quantile(TABLE))], ids=["one", "two"])
def test_one_reflow_makes_paths_straight_in_one_dimension(data, image):
    """The teacher's map is monotone, so the lines of its pairs never cross, and their velocity is the lines' own."""
    teacher = pretrained(data.model(Linear()))
    student = pretrained(functools.partial(monotone, jnp.asarray(image, jnp.float32)))
    before, after = (straightness(model, jax.random.key(0), 64, num_steps=30) for model in (teacher, student))
    assert before > 0.02 and after < 1e-3 * before


# Pairs.


@pytest.fixture(scope="module")
def teacher():
    return pretrained(MIXTURE.model(Linear()))


@pytest.fixture(scope="module")
def folder(teacher, tmp_path_factory):
    """20 pairs in shards of 8."""
    path = tmp_path_factory.mktemp("pairs") / "of_mixture"
    write_pairs(teacher, 20, path)
    return path


def test_pairs_are_the_noise_of_their_index_and_the_image_at_the_end_of_the_ode(folder, teacher):
    source = Pairs(folder)
    images = source.take(np.arange(20)).images
    assert images.dtype == np.float32 and len(source) == 20 and source.labels is None
    z = normal(stream(pair_keys(source.seed, source.number, np.arange(20)), Stream.NOISE), SHAPE)
    np.testing.assert_allclose(2 * images - 1, quantile(np.asarray(z, np.float64)), atol=3e-3)
    np.testing.assert_array_equal(np.argsort(images.ravel()), np.argsort(np.asarray(z).ravel()))
    back = np.array([19, 0, 8, 7])  # of several shards, in any order
    np.testing.assert_array_equal(source.take(back).images, images[back])


def test_pairs_go_on_after_a_kill_with_the_same_images(folder, teacher, tmp_path, monkeypatch):
    write, whole = pairs.write_shard, Pairs(folder)

    def killed(folder, description, arrays):
        if description["shards"]:
            raise KeyboardInterrupt
        write(folder, description, arrays)

    monkeypatch.setattr(pairs, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        write_pairs(teacher, 20, tmp_path)
    monkeypatch.setattr(pairs, "write_shard", write)
    for n, expected in ((12, 12), (20, 20), (9, 20)):  # more are added, and none is taken away
        write_pairs(teacher, n, tmp_path)
        assert len(Pairs(tmp_path)) == expected
    assert Pairs(tmp_path).digest() == whole.digest()


def test_pairs_of_another_teacher_or_sampler_are_not_mixed(folder, teacher):
    for other in (pretrained(GAUSSIAN.model(Linear()), method="heun"), pretrained(MIXTURE.model(Linear()), size=16)):
        with pytest.raises(UsageError, match=r"holds other pairs: their (size|teacher) is"):
            write_pairs(other, 24, folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(method="dpmpp_2m_sde"), "draws noise on its way"),
        (dict(method="ddim", eta=1.0), "draws noise on its way"),
        (dict(temperature=0.9), "sampling.temperature=1"),
    ],
)
def test_pairs_are_of_samplers_that_are_functions_of_noise(options, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        write_pairs(pretrained(GAUSSIAN.model(Linear()), **options), 4, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_a_damaged_shard_is_refused_by_name(teacher, tmp_path):
    write_pairs(teacher, 8, tmp_path)
    path = tmp_path / "images-00000.npy"
    content = path.read_bytes()
    for damage, words in ((content[:-1] + b"x", "has changed"), (content[:-9], "Cannot read"), (b"", "Cannot read")):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match=rf"{words}.*images-00000|images-00000.*{words}"):
            Pairs(tmp_path)
    (tmp_path / "pairs.json").write_text(json.dumps({"n": 3}))
    with pytest.raises(UsageError, match="is not a file of this package"):
        Pairs(tmp_path)
    with pytest.raises(UsageError, match="holds no pairs"):
        Pairs(tmp_path / "nowhere")


# A student.


@pytest.fixture(scope="module")
def of_digits(tmp_path_factory):
    """24 pairs whose images are those of the digits' test, with labels."""
    folder = tmp_path_factory.mktemp("pairs") / "of_digits"
    facts = dict(seed=3, number=5, shape=[8, 8, 1], size=16, teacher={}, shards=[])
    for first, n in ((0, 16), (16, 8)):
        shown = coupled.DIGITS[first : first + n].astype(np.float32) / 250
        pairs.write_shard(folder, facts, {"images": shown, "labels": np.arange(first, first + n) % coupled.CLASSES})
    return folder


def test_a_student_sees_the_pairs_and_nothing_else(of_digits):
    parts = coupled.experiment(coupling="pairs", pairs=str(of_digits))
    coupling = coupling_of(parts)
    losses = coupled.losses(parts, 3, coupling.source)
    for step, loss in enumerate(losses):
        indices = batch_indices(24, coupled.ROWS, seed=42, step=step)
        z = normal(stream(pair_keys(3, 5, indices), Stream.NOISE), (8, 8, 1))
        x0 = 2 * coupled.DIGITS[indices].astype(np.float32) / 250 - 1  # neither mirrored nor dequantized
        assert loss == pytest.approx(np.mean(np.sum(np.square(x0 - z), axis=(1, 2, 3))), rel=1e-5)


def test_a_students_labels_are_those_of_the_pairs(of_digits):
    parts = coupled.experiment(coupled.CLASSES, coupling="pairs", pairs=str(of_digits))
    source = coupling_of(parts).source
    check_source(parts, source, all_of_them=True)
    indices = batch_indices(24, coupled.ROWS, seed=42, step=1)
    _, cond, numbers = coupled.batches(parts, source)(1)
    np.testing.assert_array_equal(cond["labels"], indices % coupled.CLASSES)
    np.testing.assert_array_equal(numbers, indices)


@pytest.mark.parametrize(
    ("place", "classes", "size", "words"),
    [
        ("", 0, 8, "set training.pairs=FOLDER"),
        ("of_mixture", 0, 8, "holds images of shape"),
        ("of_mixture", 10, 1, "holds no labels"),
    ],
)
def test_pairs_that_do_not_fit_the_student_are_refused(folder, place, classes, size, words):
    parts = coupled.experiment(classes, coupling="pairs", pairs=str(folder) if place else "")
    parts.image_shape = (size, size, 1)
    with pytest.raises(UsageError, match=words):
        coupling_of(parts)


# The weights that a student begins with.


@pytest.fixture(scope="module")
def trained(one_block, tmp_path_factory, data_dir):
    """A workdir after an update, and a config of such a run."""

    def config_of(**training):
        config = get_config()
        config.model.update(nf=8, num_res_blocks=1, ch_mult=(1,))
        config.data.data_dir = data_dir
        config.optim.update(warmup=0, ema_rate=0.5)
        config.training.update(dict(batch_size=16, n_iters=1, snapshot_sampling=False) | training)
        return config

    path = tmp_path_factory.mktemp("trained")
    train(config_of(), path)
    return path, config_of


def test_a_student_begins_with_the_averaged_weights_of_its_teacher(trained, tmp_path):
    path, config_of = trained
    parts = Experiment(config_of(start_from=str(path)))
    placement = fully_sharded(parts.state_shapes, 1)
    state = beginning(parts, tmp_path, placement)()
    expected = load(path).params
    for tree in (state.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, tree, expected)
    assert int(state.step) == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))
    fresh = beginning(parts, path, placement)()  # a training that goes on does not begin anew
    jax.tree.map(np.testing.assert_array_equal, fresh.params, parts.init_params())


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(trained, tmp_path):
    path, config_of = trained
    other = config_of(start_from=str(path))
    other.model.nf = 16
    for config, words in ((other, "do not fit this network"), (config_of(start_from="nowhere"), "No checkpoint in")):
        with pytest.raises(UsageError, match=words):
            train(config, tmp_path / "student")
        assert not (tmp_path / "student").exists()
