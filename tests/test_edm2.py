"""EDM2: its network against the published one's numbers, and its closed forms (Karras et al., 2024)."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from golden_weights import GOLDEN, names, relative, seeded
from score_sde.configs.edm2_presets import CHANNELS, UPDATES_64, UPDATES_512, compose, imagenet64, imagenet512
from test_configs import config_of

import score_sde
from score_sde.ema import Constant
from score_sde.errors import UsageError
from score_sde.inference import edm2_layout
from score_sde.inference.snapshots import restore_state
from score_sde.models import EDM2UNet, is_trainable, magnitude
from score_sde.objective import Objective
from score_sde.parameterization import KarrasF
from score_sde.randomness import batch_keys
from score_sde.sde import EDM
from score_sde.times import LogNormal
from score_sde.training.build import Experiment, parameter_counts
from score_sde.training.run import train, train_step
from score_sde.training.state import TrainState, apply_gradients
from score_sde.weights import Uncertainty

TINY = EDM2UNet(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,), head_channels=4, num_classes=3)

ONE = EDM2UNet(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), head_channels=8, num_classes=3, dropout=0.5)


@functools.cache
def shapes_of(network, shape):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))["params"]


def random_params(network, shape):
    return jax.tree.map(jnp.asarray, seeded(shapes_of(network, shape)))


# The published network's outputs, and its denoised images, from the weights of golden_weights.py.
PUBLISHED = {
    "small": (TINY, (8, 8, 1)),
    "classes": (EDM2UNet(nf=16, head_channels=16, num_classes=10), (32, 32, 3)),
    "no_classes": (EDM2UNet(nf=16, head_channels=16), (32, 32, 3)),
    "latents": (EDM2UNet(nf=8, head_channels=8, num_classes=10), (64, 64, 4)),
}
SIGMA = np.array([0.002, 0.5, 80.0], np.float32)


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_network_and_its_preconditioning_compute_what_the_published_ones_do(case):
    (network, shape), golden = PUBLISHED[case], np.load(GOLDEN / "edm2.npz")
    x = np.random.default_rng(1).standard_normal((3, *shape)) * np.sqrt(SIGMA**2 + 0.25)[:, None, None, None]
    labels = {"labels": jnp.array([2, 0, 0]), "null": {"labels": jnp.array([False, False, True])}}
    process, params = EDM(), random_params(network, shape)
    kept = slice(None, None, 1 if case == "small" else 5)

    @jax.jit
    def both(x, t):
        outputs = []

        def recorded(x, noise_cond):
            outputs.append(network.apply({"params": params}, x, noise_cond, labels if network.num_classes else None))
            return outputs[0]

        denoised = KarrasF(sigma_data=0.5).model(recorded, process)(x, t).x0
        return outputs[0], denoised

    with jax.default_matmul_precision("highest"):
        computed = both(x.astype(np.float32), process.time(SIGMA))
    for key, of_batch in zip("FD", computed, strict=True):
        for image, expected in zip(of_batch[:, kept, kept], golden[f"{case}/{key}"], strict=True):
            assert relative(image, expected) < 1e-5


@pytest.mark.parametrize("axes", [(3,), (0, 1, 2)])
def test_numbers_are_divided_by_their_magnitude_and_a_ten_thousandth(axes):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = x / (1e-4 + np.sqrt(np.mean(x**2, axis=axes, keepdims=True)))
    np.testing.assert_allclose(magnitude.normalize(x, axes), expected, rtol=1e-6)


def test_the_derivative_of_a_normalisation_is_zero_at_zeros():
    gradient = jax.grad(lambda x: jnp.sum(magnitude.normalize(x, (1,))))(jnp.zeros((2, 3)))
    assert np.all(np.isfinite(gradient))


# Mean squares of outputs from independent standard normal inputs: 1, up to the noise of a mean of n numbers.
N = 2**16


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def mean_square(y):
    return float(jnp.mean(jnp.square(y)))


def layer(features, window, x):
    return magnitude.MPLinear(features, window).init_with_output(jax.random.key(0), x)[0]


def waves(n):
    return magnitude.MPFourier(n).init_with_output(jax.random.key(0), jnp.full(1, 0.3))[0]


@pytest.mark.parametrize(
    ("outputs", "spread"),
    [
        # Standard deviations of the square: sqrt(2) of a normal number, sqrt(1/2) of a wave, 2.31 of a SiLU.
        (lambda: magnitude.silu(normal(N)), 2.31),
        (lambda: magnitude.add(normal(N), normal(N, seed=1), 0.3), math.sqrt(2)),
        (lambda: magnitude.concatenate(normal(1, 64, 64, 12), normal(1, 64, 64, 4, seed=1), 0.3), math.sqrt(3)),
        (lambda: layer(64, (), normal(1024, 300)), math.sqrt(2)),
        (lambda: layer(16, (1, 1), normal(1, 64, 64, 40)), math.sqrt(2)),
        # Neighbours of a 3x3 convolution share inputs; the border sees zeros.
        (lambda: layer(64, (3, 3), normal(64, 6, 6, 40))[:, 2:-2, 2:-2], math.sqrt(2) * 4),
        (lambda: waves(N), math.sqrt(0.5)),
    ],
    ids=["silu", "add", "concatenate", "linear", "conv1x1", "conv3x3", "fourier"],
)
def test_a_layer_keeps_the_magnitude_of_its_input(outputs, spread):
    y = outputs()
    assert abs(mean_square(y) - 1) < 4 * spread / math.sqrt(y.size) + 5e-4  # 2e-4 is the epsilon of normalisations


def test_a_concatenation_has_the_shares_of_its_balance():
    a, b = jnp.ones((1, 1, 1, 12)), jnp.ones((1, 1, 1, 4))
    y = magnitude.concatenate(a, b, 0.3)
    np.testing.assert_allclose(jnp.sum(y[..., :12] ** 2) / jnp.sum(y[..., 12:] ** 2), 0.7**2 / 0.3**2, rtol=1e-6)


def test_weights_of_the_encoder_are_scale_free_and_activations_stay_at_their_size():
    """Twice the weights give the same output, up to the epsilon of normalisations; a fresh network's blocks give 1."""
    network = EDM2UNet(nf=32, ch_mult=(1, 2), num_res_blocks=2, attn_resolutions=(8,), head_channels=16)
    x, noise_cond = normal(4, 8, 8, 3), jnp.zeros(4)
    params = jax.jit(network.init)(jax.random.key(0), x, noise_cond)["params"] | {"out_gain": jnp.float32(1)}
    doubled = traverse_util.path_aware_map(lambda path, leaf: 2 * leaf if path[-1] == "weight" else leaf, params)

    @jax.jit
    def run(params):
        y, kept = network.apply({"params": params}, x, noise_cond, capture_intermediates=True)
        return y, kept["intermediates"]

    y, kept = run(params)
    np.testing.assert_allclose(run(doubled)[0], y, atol=5e-3)
    for name, outputs in kept.items():
        if name.startswith(("enc", "dec")):
            (block,) = outputs["__call__"]
            assert 0.7 < mean_square(block) ** 0.5 < 1.4, name


OBJECTIVE = Objective(EDM(), KarrasF(sigma_data=0.25), LogNormal(), Uncertainty(sigma_data=0.25))


def test_a_network_of_zeros_has_an_expected_loss_of_one_on_gaussian_data_at_every_noise_level():
    """For N(0, s^2) the optimal F is 0, and its weighted error is 1 (P4); sums of independent squares have no noise."""
    t = OBJECTIVE.process.time(np.geomspace(0.002, 80, 20, dtype=np.float32))
    zero, one = jnp.zeros((20, 2, 2, 1)), jnp.ones((20, 2, 2, 1))
    of_data, of_noise = OBJECTIVE.loss(zero, 0.25 * one, t, zero), OBJECTIVE.loss(zero, zero, t, one)
    np.testing.assert_allclose(of_data + of_noise, 1, rtol=1e-5)


def test_zero_is_the_optimal_uncertainty_of_a_network_of_zeros_on_gaussian_data():
    weight, process, t = OBJECTIVE.weight, OBJECTIVE.process, OBJECTIVE.process.time(np.geomspace(0.002, 80, 20))

    def total(params):
        expected = jnp.full(20, 4.0)  # of 4 pixels
        return weight.with_params(params).balanced(expected, process, jnp.asarray(t, jnp.float32), expected).mean()

    zeros = weight.init_params()
    assert all(np.max(np.abs(leaf)) < 1e-5 for leaf in jax.tree.leaves(jax.grad(total)(zeros)))
    for leaf, value in (("bias", 0.1), ("bias", -0.1), ("kernel", jnp.full(128, 0.01))):
        assert total(zeros | {leaf: value}) > total(zeros)


def test_inputs_and_targets_have_unit_variance_and_the_loss_weight_one():
    """P5, at data of the standard deviation that the parameterization is told."""
    f, process, t = OBJECTIVE.parameterization, OBJECTIVE.process, OBJECTIVE.process.time(np.geomspace(0.002, 80, 20))
    t = jnp.asarray(t, jnp.float32)
    zero, one = jnp.zeros((20, 1, 1, 1)), jnp.ones((20, 1, 1, 1))
    targets = f.target(process, 0.25 * one, zero, t) ** 2 + f.target(process, zero, one, t) ** 2
    inputs = []
    for x0, eps in ((0.25 * one, zero), (zero, one)):
        f.outputs(lambda x, _: inputs.append(x) or x, process)(OBJECTIVE.perturb(x0, t, eps), t)
    np.testing.assert_allclose(targets, 1, rtol=1e-5)
    np.testing.assert_allclose(inputs[0] ** 2 + inputs[1] ** 2, 1, rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVE.weight.on_noise(process, t) * f.noise_error(process, t) ** 2, 1, rtol=1e-5)


def rows_norms(params):
    """The norm of each weight row over the square root of its length."""
    leaves = traverse_util.flatten_dict(params)
    weights = [np.asarray(leaf, np.float64) for path, leaf in leaves.items() if path[-1] == "weight"]
    return np.concatenate([np.sqrt(np.mean(leaf**2, tuple(range(leaf.ndim - 1)))) for leaf in weights])


def test_every_weight_row_has_the_norm_of_its_length_at_first_and_after_an_update(tiny_config):
    config = tiny_config("edm2/digits")
    config.model.update(ch_mult=(1,), attn_resolutions=(), head_channels=8)
    config.optim.update(lr=0.1, warmup=0)
    experiment = Experiment(config)
    state = jax.jit(experiment.init_state)()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), dtype=np.uint8)
    after, loss = jax.jit(train_step(experiment))(state, pixels)
    assert np.isfinite(loss)
    for params in (state.params, after.params, after.ema_params["power:0.05"]):  # the first average is the new weights
        np.testing.assert_allclose(rows_norms(params), 1, rtol=1e-6)
    moved = jax.tree.map(lambda a, b: np.any(a != b), state.params, after.params)
    assert moved["out_gain"] and not any(moved["emb_fourier"].values())
    assert set(state.params["weight"]) == {"bias", "kernel"}  # of the uncertainty, which is not normalised


def test_rows_of_many_inputs_keep_their_norm_too():
    params = magnitude.forced({"weight": 3 * normal(3, 3, 896, 8)})
    np.testing.assert_allclose(rows_norms(params), 1, rtol=1e-6)


def test_weights_are_normalised_after_the_update_and_before_the_average():
    doubled = optax.stateless(lambda grads, params: params)  # the update is as large as the parameter
    state = TrainState(jnp.int32(0), {"w": jnp.array([3.0])}, doubled.init(()), {"w": jnp.array([10.0])})

    def halved(params):
        return jax.tree.map(lambda leaf: leaf / 2, params)

    grads = {"w": jnp.zeros(1)}
    after, _ = apply_gradients(state, jnp.float32(0), grads, doubled, (Constant(0.5),), halved)
    assert after.params == {"w": 3.0} and after.ema_params == {"w": 0.5 * 10 + 0.5 * 3}
    skipped, loss = apply_gradients(state, jnp.float32(np.nan), grads, doubled, (Constant(0.5),), halved)
    assert skipped.params == {"w": 3.0} and np.isnan(loss)


class Shrinking(nn.Module):
    """A network whose `normalized` loses a parameter."""

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return x * self.param("a", nn.initializers.ones, ()) * self.param("b", nn.initializers.ones, ())

    def normalized(self, params):
        return {"a": params["a"]}


def test_a_network_of_ones_own_is_told_when_its_normalisation_loses_parameters(tiny_config):
    with pytest.raises(UsageError, match=r"Shrinking\.normalized returns parameters of other names"):
        jax.eval_shape(Experiment(tiny_config(), network=Shrinking()).init_params)


def test_every_parameter_gets_a_gradient_but_the_fixed_frequencies_and_phases():
    x, noise_cond = normal(2, 4, 4, 1), jnp.zeros(2)
    labels = {"labels": jnp.array([1, 2])}

    def loss(params):
        return jnp.sum(jnp.square(ONE.apply({"params": params}, x, noise_cond, labels) - 1))

    gradients = jax.jit(jax.grad(loss))(random_params(ONE, (4, 4, 1)))
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert np.all(np.isfinite(gradient)), path
        assert np.any(gradient) == is_trainable(path), path


def test_a_fresh_network_gives_zeros_and_learns_its_output_gain_first():
    x = normal(1, 4, 4, 1)
    params = jax.jit(ONE.init)(jax.random.key(0), x, jnp.zeros(1))["params"]
    y, gradients = jax.jit(jax.value_and_grad(lambda p: jnp.sum(ONE.apply({"params": p}, x, jnp.zeros(1)))))(params)
    assert y == 0
    assert {path for path, g in traverse_util.flatten_dict(gradients).items() if np.any(g)} == {("out_gain",)}


def test_dropout_is_drawn_from_each_images_own_key_and_in_training_only():
    x, params = normal(2, 4, 4, 1), {"params": random_params(ONE, (4, 4, 1))}
    apply = jax.jit(lambda x, keys: ONE.apply(params, x, jnp.zeros(2), dropout_keys=keys))
    keys = batch_keys(jax.random.key(0), 3)
    first = apply(x, keys[:2])
    assert not np.array_equal(first, apply(x, keys[1:])) and not np.array_equal(first, apply(x, None))
    np.testing.assert_allclose(apply(x[::-1], keys[1::-1])[::-1], first, rtol=1e-5, atol=1e-6)


def test_the_null_label_is_the_vector_of_zeros_and_no_condition_is_null():
    x, noise_cond = normal(2, 4, 4, 1), jnp.zeros(2)
    params = random_params(ONE, (4, 4, 1))
    apply = jax.jit(lambda params, cond: ONE.apply({"params": params}, x, noise_cond, cond))
    labels = {"labels": jnp.array([1, 2])}
    null = apply(params, labels | {"null": {"labels": jnp.array([True, True])}})
    np.testing.assert_array_equal(null, apply(params, None))
    without = params | {"emb_label": jax.tree.map(jnp.zeros_like, params["emb_label"])}
    np.testing.assert_allclose(null, apply(without, labels), rtol=1e-5, atol=1e-6)
    assert not np.array_equal(null, apply(params, labels))


def test_the_forward_derivative_is_the_transpose_of_the_backward_one():
    x, v, u = (normal(2, 4, 4, 1, seed=seed) for seed in range(3))
    params = {"params": random_params(ONE, (4, 4, 1))}

    @jax.jit
    def products(x):
        def run(x):
            return ONE.apply(params, x, jnp.zeros(2))

        return jnp.sum(u * jax.jvp(run, (x,), (v,))[1]), jnp.sum(v * jax.vjp(run, x)[1](u)[0])

    forward, backward = products(x)
    assert abs(forward - backward) < 1e-5 * abs(forward)


def test_a_run_of_edm2_goes_on_bit_for_bit_and_samples(compiled_once, tiny_config, tmp_path):
    config = tiny_config("edm2/digits")
    config.model.update(ch_mult=(1,), attn_resolutions=(), head_channels=8)
    config.optim.update(lr=0.1, warmup=0)
    config.ema.snapshot_freq = 2
    train(config, tmp_path / "whole")
    config.training.n_iters = 2
    train(config, tmp_path / "stopped")
    config.training.n_iters = 4
    train(config, tmp_path / "stopped")
    experiment = Experiment(config)
    states = [restore_state(experiment, tmp_path / name / "checkpoints", 4)[0] for name in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    model = score_sde.load(tmp_path / "stopped")
    np.testing.assert_allclose(rows_norms(states[0].params), 1, rtol=1e-6)
    images = model.sample(jax.random.key(0), 2, "ddim", num_steps=2)
    assert images.shape == (2, 8, 8, 1) and np.all(np.isfinite(images))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(nf=32), "32 channels of level 0 do not split"),
        (dict(nf=100, head_channels=30), "100 channels"),
        (dict(ch_mult=()), "one positive integer a level"),
        (dict(ch_mult=(1, 1, 1, 1, 1)), "data.image_size=8 is not divisible by 16"),
    ],
)
def test_an_impossible_network_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        EDM2UNet(**{"nf": 64, "ch_mult": (1, 1), "attn_resolutions": (8,)} | options).check(8)


# Parameters of the published networks (logvar_linear's 128 left out), as their own code counts them.
IN_PIXELS = {"xs": 124_710_821, "s": 280_209_253, "m": 497_803_045, "l": 777_492_197, "xl": 1_119_276_709}
IN_LATENTS = {
    "xxs": 31_308_901,
    "xs": 124_713_125,
    "s": 280_212_709,
    "m": 497_807_653,
    "l": 777_497_957,
    "xl": 1_119_283_621,
    "xxl": 1_523_164_645,
}


@pytest.mark.parametrize(
    ("piece", "size", "count"),
    [
        *((imagenet64, size, count) for size, count in IN_PIXELS.items()),
        *((imagenet512, size, count) for size, count in IN_LATENTS.items()),
    ],
    ids=[*(f"64-{size}" for size in IN_PIXELS), *(f"512-{size}" for size in IN_LATENTS)],
)
def test_networks_have_the_published_numbers_of_parameters(piece, size, count):
    config = compose(piece(size))
    experiment = Experiment(config)
    shapes = {name: leaf for name, leaf in experiment.param_shapes.items() if name != "weight"}
    assert experiment.image_shape == (64, 64, 3 if piece is imagenet64 else 4)
    assert parameter_counts(shapes) == (count, count + 2 * CHANNELS[size])  # the fixed frequencies and phases


def test_the_files_of_edm2_name_their_sizes_and_the_published_numbers_of_images():
    assert {size: updates * 2048 for size, updates in UPDATES_64.items()} == {
        size: millions * 2**20 for size, millions in dict(xs=1024, s=1024, m=2048, l=1024, xl=640).items()
    }
    assert UPDATES_512["xxl"] * 2048 == 896 * 2**20 and UPDATES_512["l"] * 2048 == 1792 * 2**20
    for size in UPDATES_64:
        config = config_of(f"edm2/imagenet64_{size}")
        assert config.to_dict() == compose(imagenet64(size)).to_dict()
        assert (config.model.nf, config.times.P_mean, config.optim.beta2) == (CHANNELS[size], -0.8, 0.99)


def published_tensors(network, shape):
    """Tensors under the published names, from seeded weights."""
    leaves = names(shapes_of(network, shape))
    seeds = traverse_util.flatten_dict(random_params(network, shape), sep="/")
    values = {path: np.asarray(value) for path, value in seeds.items()}
    tensors = {"logvar_linear.weight": np.ones((1, 128)), "logvar_fourier.freqs": np.ones(128)}
    for path in leaves:
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(values[path].ndim, ())
        name = edm2_layout.published_name(path, shape[0])
        tensors[f"unet.{name}"] = values[path].transpose(axes) if axes else values[path]
    return tensors


def test_published_tensors_become_our_parameters_and_their_uncertainty_is_left_out():
    tensors = published_tensors(TINY, (8, 8, 1))
    assert tensors["unet.enc.4x4_block0.conv_res0.weight"].shape == (16, 16, 3, 3)
    assert tensors["unet.dec.8x8_up.emb_gain"].shape == ()
    params, expected = edm2_layout.params_of(tensors, TINY, (8, 8, 1)), random_params(TINY, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    halves = {name.removeprefix("unet."): value.astype(np.float16) for name, value in tensors.items()}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        edm2_layout.params_of(halves, TINY, (8, 8, 1)),
        expected,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("unet.emb_noise.weight"), "has no emb_noise.weight"),
        (lambda tensors: tensors.update({"unet.emb_augment.weight": np.ones((2, 2))}), "has emb_augment.weight"),
        (lambda tensors: tensors.update({"unet.out_gain": np.ones(2)}), r"out_gain has shape \(2,\)"),
        (lambda tensors: tensors.update({"unet.out_gain": np.float32(np.nan)}), "out_gain is no floating-point array"),
        (lambda tensors: tensors.update({"unet.out_gain": np.array(np.nan, np.float32)}), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, words):
    tensors = published_tensors(TINY, (8, 8, 1))
    change(tensors)
    with pytest.raises(UsageError, match=words):
        edm2_layout.params_of(tensors, TINY, (8, 8, 1))


def test_arguments_of_the_published_network_are_values_of_a_config():
    kwargs = dict(img_resolution=64, img_channels=3, label_dim=1000, use_fp16=True, model_channels=128, dropout=0.1)
    values = edm2_layout.values_of(kwargs | dict(channel_mult=[1, 2], sigma_data=0.5, clip_act=256))
    config = compose(imagenet64("m"))
    config.update_from_flattened_dict(values)
    assert (config.model.nf, config.model.ch_mult, config.model.dropout) == (128, (1, 2), 0.1)
    assert values["data.image_size"] == 64 and values["model.num_classes"] == 1000
    for wrong, words in ((dict(res_balance=0.5), "res_balance=0.5"), (dict(nonsense=1), "nonsense")):
        with pytest.raises(UsageError, match=words):
            edm2_layout.values_of(kwargs | wrong)
