"""Images that are not square: data, networks, likelihoods, and a run from training to its report."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden_weights import names, relative, seeded
from PIL import Image

import score_sde
from score_sde import data, images
from score_sde.cli.main import main
from score_sde.conditioning import Inpaint
from score_sde.conditioning.grammar import observation_of
from score_sde.data.decoding import Form, cropped, resize
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.io import workdir
from score_sde.likelihood import bits_per_dim
from score_sde.metrics import small
from score_sde.models import MODELS, NCSN, NCSNpp, WideResnet
from score_sde.oracles import Gaussian
from score_sde.randomness import sample_keys
from score_sde.sampling import solve
from score_sde.sde import VP
from score_sde.training.build import Experiment, trainable
from score_sde.training.run import train

HEIGHT, WIDTH = 8, 16


def transposed(params):
    """Weights of the network that sees images with rows and columns exchanged."""

    def swap(leaf):
        return leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf

    return jax.tree.map(swap, params)


FIR = NCSNpp(
    nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), progressive="residual", progressive_input="residual"
)
NEAREST = dataclasses.replace(FIR, fir=False, resblock_type="ddpm", progressive="none", progressive_input="none")
NETWORKS = {
    "ncsnpp": FIR,
    "ddpmpp": dataclasses.replace(NEAREST, embedding_type="positional"),
    "ddpm": MODELS["ddpm"](nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,)),
    "adm": MODELS["adm"](nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), num_heads=2),
    "ncsnv2_64": MODELS["ncsnv2_64"](nf=8),
    "ncsnv2_128": MODELS["ncsnv2_128"](nf=8),
    "ncsn": NCSN(nf=8, num_levels=10),
    "wideresnet": WideResnet(1, 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_transposed_weights_gives_the_transposed_image(name):
    """The strided and FIR convolutions, the pyramids, the attention and the pooling treat rows and columns alike.

    The attention of a config is at heights, which are the widths of transposed images.
    """
    network = NETWORKS[name]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, HEIGHT, WIDTH, 3)), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, jnp.ones(1))["params"]
    square = jax.eval_shape(network.init, jax.random.key(0), x[:, :, :HEIGHT], jnp.ones(1))["params"]
    assert names(shapes) == names(square)
    params, level = seeded(shapes), jnp.array([3.0])
    output = jax.jit(network.apply)({"params": params}, x, level)
    other = dataclasses.replace(network, attn_resolutions=(8,)) if hasattr(network, "attn_resolutions") else network
    expected = jax.jit(other.apply)({"params": transposed(params)}, x.swapaxes(1, 2), level)
    if output.ndim == 4:
        assert output.shape == (1, HEIGHT, WIDTH, 3)
        expected = expected.swapaxes(1, 2)
    assert relative(output, expected) < 1e-4


@pytest.mark.parametrize(
    ("network", "sides", "words"),
    [
        (FIR, (9, 16), "data.image_size=9 is not divisible by 2: .* set data.image_size to 8 or 10"),
        (FIR, (8, 15), "data.image_width=15 is not divisible by 2: .* set data.image_width to 14 or 16"),
        (
            dataclasses.replace(FIR, ch_mult=(1, 1, 1, 1)),
            (20, 5),
            "data.image_size=20 and data.image_width=5 are not divisible by 8: .* set data.image_size to 16 or 24 and "
            "data.image_width to 8",
        ),
        (NETWORKS["ncsnv2_128"], (8, 18), "data.image_width=18 is not divisible by 4"),
        (NETWORKS["wideresnet"], (8, 18), "data.image_width=18 is not divisible by 4"),
    ],
)
def test_both_sides_are_halved_and_the_nearest_sides_that_can_be_are_named(network, sides, words):
    with pytest.raises(UsageError, match=words.replace(".", r"\.").replace(r" \.*", " .*")):
        network.check(*sides)


class Checked(nn.Module):
    """A user's own network from before there was a width."""

    checked: list = dataclasses.field(default_factory=list, hash=False)

    def check(self, image_size):
        if image_size % 4:
            raise UsageError(f"{image_size} is no side.")

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return nn.Conv(x.shape[-1], (3, 3))(x)


def test_a_network_of_ones_own_that_checks_one_side_is_asked_for_both(tiny_config):
    config = tiny_config()
    config.data.update(image_size=8, image_width=12)
    assert Experiment(config, network=Checked()).image_shape == (8, 12, 1)
    config.data.image_width = 6
    with pytest.raises(UsageError, match="6 is no side"):
        Experiment(config, network=Checked())


def test_the_mistake_is_one_sentence_before_anything_is_written(tmp_path, capsys):
    command = ["score_sde", "--mode=train", "--config=vp/digits_ddpmpp_continuous", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, "--config.data.image_width=9"]) == 2
    assert "data.image_width=9 is not divisible by 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_are_cropped_to_the_proportions_and_not_to_a_square(tmp_path):
    rng = np.random.default_rng(0)
    wide, tall = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((40, 100, 3), (90, 40, 3)))
    for name, picture in (("a", wide), ("b", tall)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    for gib in (8, 0):
        source = data.load(
            "folder",
            train=True,
            image_size=8,
            image_width=16,
            num_channels=3,
            path=str(tmp_path),
            held_out=0,
            in_memory_gib=gib,
        )
        x = source.take(np.arange(2)).images
        np.testing.assert_array_equal(x[0], resize(wide[:, 10:90], (8, 16)))
        np.testing.assert_array_equal(x[1], resize(tall[35:55], (8, 16)))
    assert cropped(wide, (2, 3), side=20).shape == (20, 30, 3)  # CelebA's crop is the shorter side
    assert cropped(tall, (8, 8), side=140).shape == (40, 40, 3)


def test_the_digest_of_a_square_on_disk_is_that_of_earlier_versions(tmp_path):
    pixels = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    for i in range(2):
        Image.fromarray(pixels + np.uint8(i)).save(tmp_path / f"{i}.bmp")
    options = dict(train=True, path=str(tmp_path), image_size=4, num_channels=3, held_out=0)
    squares = [data.load("folder", **options, in_memory_gib=gib).digest() for gib in (0, 8)]
    assert squares == ["777a2b284fe77e887fe17a9caf6b96aa", "10ac4e5491fa943435547b095cb23b85"]
    assert [data.load("folder", **options, image_width=6, in_memory_gib=gib).digest() for gib in (0, 8)] != squares
    assert str(Form(4, 3)) == repr(Form(4, 3, image_width=6)) != str(Form(4, 3, image_width=6))


def test_a_square_run_has_the_identity_of_before_there_was_a_width(tiny_config):
    config = tiny_config()
    before = workdir.identity(config.to_dict())
    assert "data.image_width" not in before and "data.image_size" in before
    config.data.image_width = 16
    assert workdir.identity(config.to_dict()) == before | {"data.image_width": 16}


def test_bits_per_dim_of_a_rectangle_equal_the_closed_form():
    oracle = Gaussian(np.linspace(-0.5, 0.5, 2 * 5).reshape(2, 5, 1), 0.25)
    x = jax.jit(oracle.sample)(sample_keys(jax.random.key(0), jnp.arange(4)))
    bits, *_ = solve(bits_per_dim(VP(), oracle.model(VP()), offset_bits=0), jax.random.key(1), x)
    exact = oracle.bits_per_dim(VP(), x)
    np.testing.assert_allclose(bits, exact, atol=2e-4)


def test_halves_of_a_rectangle_are_its_own():
    mask = observation_of("inpaint=right_half", (2, 6, 1))(1)
    np.testing.assert_array_equal(mask.mask[0, ..., 0], np.tile([True] * 3 + [False] * 3, (2, 1)))
    assert isinstance(mask, Inpaint)
    centre = observation_of("inpaint=center", (4, 8, 1))(1).mask[0, ..., 0]
    assert np.argwhere(~np.asarray(centre)).min(0).tolist() == [1, 2] and (~np.asarray(centre)).sum() == 2 * 4
    assert observation_of("superresolve=2", (4, 6, 1))(1).forward(jnp.ones((1, 4, 6, 1))).shape == (1, 2, 3, 1)
    with pytest.raises(UsageError, match="divides the images' 4x6 pixels"):
        observation_of("superresolve=4", (4, 6, 1))


def test_features_of_rectangles_are_trained_on_half_turns():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 6, 1)).astype(np.uint8)
    task = small.task_of(data.InMemory(pixels))
    assert task == small.Task((4, 6, 1), 2, False) and small.task_of(data.InMemory(pixels[:, :, :4])).num_classes == 4
    turned, turns, kinds = small._examples(task, data.Batch(pixels, None), 0, 0)
    assert turned.shape == pixels.shape and set(turns) == {0, 1}
    for i in np.flatnonzero(kinds == 0):
        np.testing.assert_array_equal(turned[i], pixels[i][::-1, ::-1] if turns[i] else pixels[i])


@pytest.mark.usefixtures("one_block")
def test_a_run_of_rectangles_trains_samples_evaluates_and_observes(tiny_config, tmp_path):
    config = tiny_config()
    config.data.update(image_size=4, image_width=8)
    config.training.update(n_iters=2, snapshot_sampling=True)
    config.eval.update(enable_bound=False, begin_ckpt=-1, enable_sampling=False)
    config.sampling.update(method="ddim", num_steps=2, num_samples=4)
    train(config, tmp_path)
    with np.load(next((tmp_path / "samples/snapshots").glob("*.npz"))) as stored:
        assert stored["images"].shape == (16, 4, 8, 1)
    sample(config, tmp_path)
    with Image.open(next((tmp_path / "samples").glob("*.png"))) as picture:
        assert picture.size == (8 * (2 * 10 + 2), 8 * (2 * 6 + 2))
    evaluate(config, tmp_path)
    (entry,) = json.loads((tmp_path / "eval/report.json").read_text())["checkpoints"]
    assert 5 < entry["bits_per_dim"]["mean"] < 20

    model = score_sde.load(tmp_path)
    assert model.image_shape == (4, 8, 1) and "4x8x1" in repr(model)
    keep = observation_of("inpaint=right_half", model.image_shape)(3)
    y = keep.forward(jnp.full((3, 4, 8, 1), 0.25))
    x = model.posterior(jax.random.key(0), keep, y)
    assert x.shape == (3, 4, 8, 1)
    np.testing.assert_allclose(x[:, :, :4], 0.25, atol=0.05)
    assert model.encode(np.zeros((2, 4, 8, 1), np.uint8)).shape == (2, 4, 8, 1)


@pytest.mark.parametrize(("sides", "factor"), [((8, 8), 8), ((8, 16), 4), ((16, 8), 4), ((128, 8), 1)])
def test_sheets_are_enlarged_by_the_longer_side(sides, factor):
    assert images.magnification(np.zeros((1, *sides, 1), np.uint8)) == factor


def test_every_network_of_a_config_can_be_rectangular(tiny_config):
    config = tiny_config()
    config.data.image_width = 24
    assert trainable(config, traced=False).image_shape == (8, 24, 1)
    shapes = traverse_util.flatten_dict(trainable(config).param_shapes)
    config.data.image_width = None
    assert shapes == traverse_util.flatten_dict(trainable(config).param_shapes)
