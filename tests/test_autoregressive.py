"""The transformer over pixels: its probabilities, its cache, its training, against enumeration and closed forms."""

import itertools
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_pixels
from scipy import stats
from score_sde.experiments.autoregressive.__main__ import program
from score_sde.experiments.autoregressive.config import get_config
from score_sde.experiments.autoregressive.density import Density, cumulative, quantile
from score_sde.experiments.autoregressive.model import Autoregressive, bits_per_dim, load, train
from score_sde.experiments.autoregressive.network import Logits, PixelTransformer
from score_sde.experiments.autoregressive.training import update_of
from test_loop import left_by, stopped_after_one_update

import score_sde
from score_sde.array_types import PyTree
from score_sde.data import InMemory
from score_sde.errors import UsageError
from score_sde.randomness import Stream, batch_keys, stream

LEVELS, BYTES = 4, 4  # of images of 2x2 pixels
ROUNDING = 2e-6  # of a sum over tokens in another order, relative to the largest logit


def every_image(levels: int) -> np.ndarray:
    """All images of 2x2 pixels of this many levels."""
    return np.array(list(itertools.product(range(levels), repeat=BYTES)), np.uint8).reshape(-1, 2, 2, 1)


def chain() -> np.ndarray:
    """Log-probabilities of a Markov chain: row a < 4 of the byte after byte a, row 4 of the first byte."""
    return np.log(np.random.default_rng(3).dirichlet(np.ones(LEVELS), LEVELS + 1))


def weights_of_chain(table: np.ndarray, width: int = 8) -> PyTree:
    """Parameters by which the transformer is this chain, with one unit for each row of the table.

    A block that adds nothing leaves the unit vector e_a of row a, normalised (e_a - 1 / width) / scale. The last layer
    with kernel scale * table and bias mean(table) then gives row a.
    """
    shapes = Density(tiny_pixels.config()).param_shapes
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    units, scale = np.eye(width), np.sqrt((1 - 1 / width) / width + 1e-5)
    rows = np.zeros((width, LEVELS))
    rows[: LEVELS + 1] = table
    norms = {
        name: leaf | {"scale": jnp.ones(width)} for name, leaf in params.items() if name.startswith("Normalization")
    }
    last = {"kernel": scale * rows, "bias": rows.mean(axis=0)}
    ours = {"bytes": units[:LEVELS], "starts": units[LEVELS : LEVELS + 1], "Dense_0": last}
    return params | norms | jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ours)


def log_probability(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """log p of images under the chain."""
    tokens = pixels.reshape(len(pixels), -1).astype(int)
    before = np.concatenate([np.full((len(tokens), 1), LEVELS), tokens[:, :-1]], axis=1)
    return table[before, tokens].sum(axis=1)


@pytest.fixture(scope="module")
def of_colours() -> tuple[Autoregressive, Callable[[np.ndarray], Logits]]:
    """A transformer over images of 3x3 pixels of three channels, and its logits."""
    of = tiny_pixels.model(3, channels=3, levels=256, depth=2)
    return of, jax.jit(lambda pixels: of.density.logits(of.params, pixels))


@pytest.fixture(scope="module")
def of_chain() -> Autoregressive:
    return Autoregressive(Density(tiny_pixels.config()), weights_of_chain(chain()))


def test_probabilities_of_all_images_of_two_levels_sum_to_one():
    bits = tiny_pixels.model(levels=2).bits_per_dim(every_image(2))
    assert np.ptp(bits) > 0.1
    assert np.exp2(-BYTES * bits.astype(np.float64)).sum() == pytest.approx(1, abs=1e-6)


def test_a_fresh_transformer_has_the_bits_of_the_uniform_distribution():
    density = Density(tiny_pixels.config(levels=4))
    bits = jax.jit(lambda pixels: density.bits_per_dim(density.init_params(), pixels))(every_image(4))
    np.testing.assert_allclose(bits, 2, rtol=1e-6)


def test_logits_do_not_depend_on_their_own_and_on_later_bytes_to_the_last_bit(of_colours):
    _, logits_of = of_colours
    pixels = tiny_pixels.images(2, 3, 3, 256).reshape(2, 27)
    for at in range(27):
        pixels[1, :at], pixels[1, at:] = pixels[0, :at], pixels[0, at:] + 1
        first, second = logits_of(pixels.reshape(2, 3, 3, 3))
        assert (first[: at + 1] == second[: at + 1]).all()
        assert at == 26 or (first[at + 1] != second[at + 1]).any()


def test_logits_by_the_cache_are_those_without_it(of_colours):
    of, logits_of = of_colours
    pixels, cache = tiny_pixels.images(5, 3, 3, 256), {}
    tokens, expected = of.density.tokens(pixels), logits_of(pixels)

    @jax.jit
    def step(cache, before, at):
        return of.density.network.apply({"params": of.params, **cache}, before, at=at, mutable=["cache"])

    for at in range(27):
        logits, cache = step(cache, tokens[:, max(0, at - 1)][:, None], jnp.int32(at))
        assert jnp.abs(logits[:, 0] - expected[:, at]).max() <= ROUNDING * jnp.abs(expected).max()


def test_samples_by_the_cache_are_those_without_it_but_for_ties():
    of, n = tiny_pixels.model(4, levels=16, depth=2), 1000
    u = of.density.uniforms(stream(batch_keys(jax.random.key(5), n), Stream.SAMPLE))
    tokens, boundaries = jnp.zeros((n, 16), jnp.int32), []

    @jax.jit
    def drawn(tokens, at):
        logits = of.density.logits(of.params, of.density.pixels(tokens))[:, at]
        boundary = jnp.abs(cumulative(logits) - u[:, at, None]).min(axis=1)
        return tokens.at[:, at].set(quantile(logits, u[:, at])), boundary

    for at in range(16):
        tokens, boundary = drawn(tokens, at)
        boundaries.append(boundary)
    cached = of.sample(jax.random.key(5), n).reshape(n, 16)
    differs = np.asarray(tokens) != cached
    first = differs.argmax(axis=1)
    ties = np.asarray(boundaries)[first, np.arange(n)] < ROUNDING
    print(f"{differs.any(axis=1).sum()} of {n} images differ, each from a tie on")
    assert (ties | ~differs.any(axis=1)).all()
    assert differs.any(axis=1).sum() <= n * 16 * 15 * 2 * ROUNDING + 3  # the chance of a tie, at 15 boundaries a byte


def test_bits_per_dim_of_a_chain_are_its_log_probabilities_and_their_mean_its_entropy(of_chain):
    images, table = every_image(LEVELS), chain()
    expected = -log_probability(table, images) / BYTES / np.log(2)
    bits = of_chain.bits_per_dim(images)
    np.testing.assert_allclose(bits, expected, rtol=1e-5)
    p = np.exp(log_probability(table, images))
    assert (p * bits).sum() == pytest.approx(-(p * np.log2(p)).sum() / BYTES, rel=1e-6)


def test_samples_of_a_chain_have_its_law(of_chain):
    drawn, n = of_chain.sample(jax.random.key(1), 4000), 4000
    counts = np.bincount(drawn.reshape(n, -1).astype(int) @ LEVELS ** np.arange(BYTES)[::-1], minlength=LEVELS**BYTES)
    expected = n * np.exp(log_probability(chain(), every_image(LEVELS)))
    common = expected >= 5
    observed, expected = (np.append(each[common], each[~common].sum()) for each in (counts, expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_low_temperature_draws_the_likeliest_bytes(of_chain):
    table, greedy, last = chain(), [], LEVELS
    for _ in range(BYTES):
        greedy.append(last := int(table[last].argmax()))
    drawn = of_chain.sample(jax.random.key(1), 8, temperature=1e-4)
    assert (drawn.reshape(8, -1) == greedy).all()


def test_a_sample_depends_on_its_key_and_index_alone(of_chain):
    many = of_chain.sample(jax.random.key(2), 9)
    assert (of_chain.sample(jax.random.key(2), 4) == many[:4]).all()
    assert (of_chain.sample(batch_keys(jax.random.key(2), 9)[5:], 4) == many[5:]).all()
    assert len(np.unique(many, axis=0)) > 4


def test_a_completion_keeps_the_first_pixels_and_draws_the_others_as_a_sample_does(of_colours):
    of, _ = of_colours
    key, pixels = jax.random.key(0), tiny_pixels.images(6, 3, 3, 256)
    sample = of.sample(key, 6)
    assert (of.complete(key, sample, 4) == sample).all()
    completed = of.complete(key, pixels, 4).reshape(6, 9, 3)
    assert (completed[:, :4] == pixels.reshape(6, 9, 3)[:, :4]).all()
    assert (completed[:, 4:] != pixels.reshape(6, 9, 3)[:, 4:]).any()
    assert (of.complete(key, pixels, 9) == pixels).all()


def test_classes_begin_with_tokens_of_their_own():
    of, images = tiny_pixels.model(num_classes=2), every_image(LEVELS)
    first, second = (of.bits_per_dim(images, np.full(len(images), k)).astype(np.float64) for k in (0, 1))
    assert np.abs(first - second).max() > 0.01
    for bits in (first, second):
        assert np.exp2(-BYTES * bits).sum() == pytest.approx(1, abs=1e-6)
    assert of.sample(jax.random.key(0), 2, labels=np.array([0, 1])).shape == (2, 2, 2, 1)


def test_bits_per_dim_of_a_split_do_not_depend_on_the_batch(of_chain):
    images = every_image(LEVELS)[:13]
    of_chain.density.config.eval.batch_size = 5
    figure, bits = bits_per_dim(of_chain, InMemory(images)), of_chain.bits_per_dim(images)
    assert figure["images"] == 13 and figure["mean"] == pytest.approx(bits.mean(), rel=1e-6)
    assert figure["standard_error"] == pytest.approx(bits.std(ddof=1) / np.sqrt(13), rel=1e-5)


def test_the_operations_are_those_of_the_products():
    of = tiny_pixels.model(8, levels=256, width=64, depth=1, num_heads=4)
    products = 2 * 64 * (12 * 64**2 + 64 * 256) + 4 * 64**2 * 64  # linear maps, then attention
    assert products < of.flops_per_image() < 1.1 * products


def test_images_of_cifar10s_size_train_in_bfloat16_with_blocks_computed_twice():
    config = get_config("cifar10")
    config.model.update(depth=1, width=64)
    density = Density(config)
    assert density.network.length == 3072
    pixels = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    text = str(jax.make_jaxpr(update_of(density))(density.state_shapes, pixels))
    assert "bf16" in text and "remat" in text


def test_an_update_in_bfloat16_is_that_in_float32_but_for_its_digits():
    losses, pixels = {}, tiny_pixels.images(8, 4)
    for precision in ("float32", "bfloat16"):
        config = tiny_pixels.config(4)
        config.training.update(precision=precision, remat=precision == "bfloat16")
        density = Density(config)
        state = jax.jit(lambda density=density: density.init_state())()
        state = state._replace(params=tiny_pixels.moved(state.params))
        losses[precision] = float(jax.jit(update_of(density))(state, pixels)[1])
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of 64 images of 2x2 pixels, of four levels and seven kinds."""
    path = tmp_path_factory.mktemp("images") / "few.npz"
    kinds = np.repeat(every_image(LEVELS)[::40], [20, 16, 12, 8, 4, 2, 2], axis=0)
    np.savez(path, images=kinds)
    return path


@pytest.fixture
def config(images):
    """A training of seconds on these images, all of them in each batch."""
    made = tiny_pixels.config(width=32)
    made.data.update(dataset="array", path=str(images), held_out=0)
    made.training.update(batch_size=64, n_iters=4, snapshot_freq=100, snapshot_freq_for_preemption=100, eval_freq=2)
    made.optim.update(lr=1e-2, ema_rate=0.0, weight_decay=0.0)
    return made


def test_a_training_reaches_the_entropy_of_the_data(config, tmp_path):
    config.training.update(n_iters=200, log_freq=100, eval_freq=100)
    train(config, tmp_path)
    p = np.array([20, 16, 12, 8, 4, 2, 2]) / 64
    entropy = -(p * np.log2(p)).sum() / BYTES
    model = load(tmp_path)
    mean = (p * model.bits_per_dim(every_image(LEVELS)[::40])).sum()
    # The difference is the relative entropy KL(data || model) / 4, so that it is positive, and 0 at the minimum.
    assert 0 <= mean - entropy + 1e-6 < 5e-3
    assert model.step == 200 and model.num_params == sum(leaf.size for leaf in jax.tree.leaves(model.params))


def test_a_training_that_is_stopped_goes_on_to_the_same_bits(config, tmp_path):
    config.model.dropout = 0.1
    train(config, tmp_path / "undisturbed")
    with stopped_after_one_update(tmp_path / "stopped"):
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert left_by(tmp_path / "stopped") == left_by(tmp_path / "undisturbed")
    model = load(tmp_path / "stopped")
    assert (model.density.config.seed, model.step) == (config.seed, 4)

    with pytest.raises(UsageError, match="PixelTransformer is no Network"):
        score_sde.load(tmp_path / "stopped")
    config.model.depth = 2
    with pytest.raises(UsageError, match=r"was trained with model\.depth=1, not 2"):
        train(config, tmp_path / "stopped")


def test_the_command_trains_measures_and_samples(config, images, tmp_path, capsys):
    (tmp_path / "file.py").write_text("import tiny_pixels\n\ndef get_config():\n    return tiny_pixels.config()\n")
    values = ["dataset=array", f"path={images}", "held_out=0"]
    flags = [f"--config={tmp_path / 'file.py'}", *(f"--config.data.{value}" for value in values)]
    flags += ["--config.training.n_iters=2", "--config.sampling.num_samples=12", "--config.training.batch_size=64"]
    workdir = tmp_path / "run"
    program(["autoregressive", f"--workdir={workdir}", *flags])
    results = json.loads((workdir / "results.json").read_text())
    assert results["bits_per_dim"]["images"] == 64 and results["samples"]["evaluations_each"] == results["evaluations"]
    assert {"samples.png", "samples.npz", "completed.png"} <= {path.name for path in workdir.iterdir()}
    program(["autoregressive", f"--workdir={workdir}", "--steps=bits"])  # the config is the workdir's
    assert json.loads((workdir / "results.json").read_text())["samples"] == results["samples"]


MISTAKES = {
    "model.num_heads=3 does not divide model.width=8": {"model.num_heads": 3},
    "set data.uniform_dequantization=False": {"data.uniform_dequantization": True},
    "set data.augment_p=0": {"data.augment_p": 0.1, "data.random_flip": False},
    "model.nf is no argument": {"model.nf": 8},
    "is no transformer over pixels": {"model.name": "ncsnpp"},
    "levels must be an integer in [2, 256]": {"model.levels": 1},
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_an_option_that_makes_no_sense_is_refused_in_a_sentence(sentence):
    config = tiny_pixels.config()
    with config.unlocked():
        config.update_from_flattened_dict(MISTAKES[sentence])
    with pytest.raises(UsageError) as error:
        Density(config)
    assert sentence in str(error.value) and len(str(error.value).splitlines()) == 1


def test_images_and_labels_that_do_not_fit_are_refused(of_chain):
    with pytest.raises(UsageError, match=r"byte 4, and model\.levels=4 are 0 to 3"):
        of_chain.bits_per_dim(np.full((1, 2, 2, 1), 4, np.uint8))
    with pytest.raises(UsageError, match="has no classes"):
        of_chain.sample(jax.random.key(0), 1, labels=np.array([0]))
    with pytest.raises(UsageError, match="this model takes"):
        of_chain.bits_per_dim(np.zeros((1, 3, 3, 1), np.uint8))
    with pytest.raises(UsageError, match=r"up to 2 do not fit 1 images of 2 classes"):
        tiny_pixels.model(num_classes=2).sample(jax.random.key(0), 1, labels=np.array([2]))
    with pytest.raises(UsageError, match="has 4 positions, and here are 5 tokens"):
        PixelTransformer(length=4).init(jax.random.key(0), jnp.zeros((1, 5), jnp.int32))
