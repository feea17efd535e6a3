"""U-ViT and DiT: closed forms, symmetries, conditions of labels and tokens, and what they are computed with."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden_weights import relative, seeded
from score_sde.configs.presets import compose
from score_sde.configs.transformer_presets import DIT, UVIT, dit, uvit
from test_configs import TRANSFORMERS, config_of

import score_sde
from score_sde.cond import Entry, fitted
from score_sde.errors import UsageError
from score_sde.inference.snapshots import restore_state
from score_sde.models import ADM, ENCODERS, MODELS, Compute, DiT, UViT
from score_sde.models.dit import grid_positions
from score_sde.models.encoders import Encoded
from score_sde.models.transformer import image_of, patches_of
from score_sde.randomness import batch_keys
from score_sde.training.build import Experiment, parameter_counts
from score_sde.training.run import train

TOKENS = ENCODERS["tokens"](vocab_size=9, max_tokens=5, features=8)
SIZE = dict(patch_size=2, width=16, depth=2, num_heads=2)
NETWORKS = {
    "uvit": UViT(**SIZE, dropout=0.5, num_classes=3, encoder=TOKENS, mlp_time_embed=True),
    "dit": DiT(**SIZE, dropout=0.5, num_classes=3, encoder=TOKENS, learned_variance=True),
}
SHAPE = (4, 6, 3)
TIMES = jnp.array([3.0, 500.0])
COND = {
    "labels": jnp.array([2, 0]),
    "tokens": jnp.array([[1, 2, 3], [4, 5, 6]]),
    "tokens_mask": jnp.array([[True, True, False], [True, True, True]]),
}
each = pytest.mark.parametrize("name", NETWORKS)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


X = normal(2, *SHAPE)


def shapes_of(network, shape=SHAPE):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))["params"]


@functools.cache
def params_of(network, shape=SHAPE):
    with jax.ensure_compile_time_eval():  # kept for other tests, and asked for inside programs
        return jax.tree.map(jnp.asarray, seeded(shapes_of(network, shape)))


@functools.cache
def compiled(network):
    """A function of parameters, images and condition."""
    return jax.jit(
        lambda params, x, cond, keys=None: network.apply({"params": params}, x, TIMES, cond, dropout_keys=keys)
    )


def output(network, x=X, cond=COND):
    return compiled(network)(params_of(network), x, cond)


# Patches and positions.


@pytest.mark.parametrize(("size", "shape"), [(1, (2, 3, 1)), (2, (4, 6, 3)), (3, (6, 3, 2)), (4, (4, 8, 1))])
def test_patches_hold_an_image_and_give_it_back(size, shape):
    x = normal(2, *shape)
    patches = patches_of(x, size)
    assert patches.shape == (2, shape[0] * shape[1] // size**2, size * size * shape[2])
    np.testing.assert_array_equal(patches[:, 0], x[:, :size, :size].reshape(2, -1))
    np.testing.assert_array_equal(patches[:, -1], x[:, -size:, -size:].reshape(2, -1))
    np.testing.assert_array_equal(image_of(patches, size, shape), x)


def test_positions_are_sines_and_cosines_of_the_column_and_then_of_the_row():
    positions = grid_positions(2, 3, 8).reshape(2, 3, 8)
    angles = np.array([1.0, 0.01])  # of one step
    for row, column in np.ndindex(2, 3):
        expected = [f(place * angles) for place in (column, row) for f in (np.sin, np.cos)]
        np.testing.assert_allclose(positions[row, column], np.concatenate(expected), atol=1e-7)


# Sizes that were published. Where its publisher has no null class, ours has one row more.


@pytest.mark.parametrize(
    ("piece", "side", "channels", "classes", "published"),
    [
        (uvit("s", 2), 32, 3, 0, 44_255_328),
        (uvit("m", 4), 64, 3, 1000, 130_940_292 + 768),
        (uvit("l", 4), 64, 3, 1000, 286_827_652 + 1024),
        (uvit("l", 2), 32, 4, 1000, 286_763_172),
        (uvit("h", 2, conv=False), 32, 4, 1000, 500_832_016),
        (dit("s", 2, learned_variance=True), 32, 4, 1000, 32_963_360),
        (dit("b", 2, learned_variance=True), 32, 4, 1000, 130_512_416),
        (dit("l", 2, learned_variance=True), 32, 4, 1000, 458_102_816),
        (dit("xl", 2, learned_variance=True), 32, 4, 1000, 675_129_632),
        (dit("s", 2), 32, 3, 10, 32_573_964),
        (dit("b", 2), 32, 3, 10, 129_733_644),
    ],
    ids=["u-s", "u-m", "u-l4", "u-l2", "u-h", "d-s", "d-b", "d-l", "d-xl", "d-s-pixels", "d-b-pixels"],
)
def test_networks_have_the_published_numbers_of_parameters(piece, side, channels, classes, published):
    model = compose(piece).model.to_dict()
    arguments = {key: value for key, value in model.items() if key not in ("name", "scale_by_sigma")}
    network = MODELS[model["name"]](**arguments | {"num_classes": classes})
    network.check(side)
    positions = 256 * network.width if isinstance(network, DiT) else 0  # DiT's are fixed, and no parameters of ours
    assert parameter_counts(shapes_of(network, (side, side, channels)))[1] + positions == published


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_configs_have_their_numbers_of_parameters(name):
    assert parameter_counts(Experiment(config_of(name)).param_shapes) == (TRANSFORMERS[name],) * 2


def test_configs_have_their_publishers_sizes_and_optimizers():
    config = config_of("vp/cifar10_uvit")
    optim = config.optim
    assert tuple(config.model[key] for key in ("width", "depth", "num_heads")) == UVIT["s"]
    assert (optim.lr, optim.beta1, optim.beta2, optim.weight_decay, optim.warmup) == (2e-4, 0.99, 0.999, 0.03, 2500)
    assert (config.training.batch_size, config.training.n_iters, optim.ema_rate) == (128, 500_000, 0.9999)
    config = config_of("flow/cifar10_dit")
    optim = config.optim
    assert tuple(config.model[key] for key in ("width", "depth", "num_heads")) == DIT["s"]
    assert (optim.lr, optim.beta1, optim.beta2, optim.weight_decay, optim.warmup) == (1e-4, 0.9, 0.999, 0.0, 0)
    assert (config.training.batch_size, optim.ema_rate, optim.grad_clip) == (256, 0.9999, -1)


# Closed forms.


def test_a_fresh_dit_is_zero_and_only_its_last_layer_has_a_gradient():
    network = NETWORKS["dit"]
    params = jax.jit(network.init)(jax.random.key(0), X, TIMES, COND)["params"]

    def total(params):
        y = network.apply({"params": params}, X, TIMES, COND)
        return jnp.sum(y * (1 + X)), y

    gradients, y = jax.jit(jax.grad(total, has_aux=True))(params)
    assert not np.any(y)
    moved = {path for path, leaf in traverse_util.flatten_dict(gradients).items() if np.any(leaf)}
    assert moved == {("final_layer", "linear", "kernel"), ("final_layer", "linear", "bias")}


def test_a_fresh_uvit_has_the_publishers_spread():
    params = jax.jit(NETWORKS["uvit"].init)(jax.random.key(0), X, TIMES, COND)["params"]
    linear = params["mid_block"]["mlp"]["fc1"]["kernel"], params["pos_embed"], params["decoder_pred"]["kernel"]
    spread = np.std(np.concatenate([leaf.ravel() for leaf in linear]))
    assert 0.018 < spread < 0.022
    assert not any(np.any(leaf["bias"]) for leaf in (params["mid_block"]["mlp"]["fc1"], params["decoder_pred"]))


def test_a_uvit_whose_skip_maps_keep_the_last_block_alone_is_a_plain_vit():
    network = NETWORKS["uvit"]
    plain = dataclasses.replace(network, skip=False)
    params = dict(params_of(network))
    block = params["out_blocks_0"]
    kept = {"kernel": jnp.eye(32, 16), "bias": jnp.zeros(16)}  # features before those of the skip connection
    params["out_blocks_0"] = block | {"skip_linear": kept}
    without = params | {"out_blocks_0": {name: leaf for name, leaf in block.items() if name != "skip_linear"}}
    expected = compiled(plain)(without, X, COND)
    np.testing.assert_allclose(compiled(network)(params, X, COND), expected, rtol=1e-5, atol=1e-5)
    assert relative(output(network), expected) > 1e-2


ORDER = np.random.default_rng(0).permutation(6)


def permuted(x):
    return image_of(patches_of(x, 2)[:, ORDER], 2, SHAPE)


def test_a_uvit_of_permuted_patches_and_positions_gives_the_permuted_image():
    network = dataclasses.replace(NETWORKS["uvit"], conv=False)
    params = {name: leaf for name, leaf in params_of(NETWORKS["uvit"]).items() if name != "final_layer"}
    extras, places = jnp.split(params["pos_embed"], [3], axis=1)  # class, vector and noise level come before patches
    moved = params | {"pos_embed": jnp.concatenate([extras, places[:, ORDER]], axis=1)}
    run = compiled(network)
    assert relative(run(moved, permuted(X), COND), permuted(run(params, X, COND))) < 1e-5
    assert relative(run(params, permuted(X), COND), permuted(run(params, X, COND))) > 1e-3


def test_a_dit_of_permuted_patches_and_positions_gives_the_permuted_image(monkeypatch):
    network = NETWORKS["dit"]
    expected = permuted(output(network))
    assert relative(output(network, permuted(X)), expected) > 1e-3
    monkeypatch.setattr("score_sde.models.dit.grid_positions", lambda *sizes: grid_positions(*sizes)[ORDER])
    moved = jax.jit(lambda x: network.apply({"params": params_of(network)}, x, TIMES, COND))(permuted(X))
    assert relative(moved, expected) < 1e-5


def test_a_uvit_of_transposed_weights_gives_the_transposed_image():
    network = UViT(**SIZE)
    grid = np.arange(6).reshape(2, 3).T.ravel()  # numbers of the transposed image's patches
    inside = np.arange(12).reshape(2, 2, 3).swapaxes(0, 1).ravel()  # and of the numbers of a patch
    params = params_of(network)
    first, *_ = jnp.split(params["pos_embed"], [1], axis=1)
    other = params | {
        "pos_embed": jnp.concatenate([first, params["pos_embed"][:, 1:][:, grid]], axis=1),
        "patch_embed": params["patch_embed"] | {"kernel": params["patch_embed"]["kernel"][inside]},
        "decoder_pred": jax.tree.map(lambda leaf: leaf[..., inside], params["decoder_pred"]),
        "final_layer": params["final_layer"] | {"kernel": params["final_layer"]["kernel"].swapaxes(0, 1)},
    }
    expected = compiled(network)(params, X, None).swapaxes(1, 2)
    assert relative(compiled(network)(other, X.swapaxes(1, 2), None), expected) < 1e-5


def test_outputs_of_a_variance_are_left_out():
    network = NETWORKS["dit"]
    without = dataclasses.replace(network, learned_variance=False)
    params = params_of(network)
    first = jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-1], 4, 6)[..., :3], params["final_layer"]["linear"])
    last = params["final_layer"] | {"linear": jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-2], 12), first)}
    np.testing.assert_allclose(
        output(network), compiled(without)(params | {"final_layer": last}, X, COND), rtol=1e-5, atol=1e-5
    )


# Conditions.


@each
def test_no_condition_is_null_to_the_last_bit_and_labels_and_tokens_are_not(name):
    network = NETWORKS[name]
    null = {"null": {entry: jnp.ones(2, bool) for entry in ("labels", "tokens")}}
    without = output(network, cond=None)
    np.testing.assert_array_equal(output(network, cond=COND | null), without)
    for entry, values in (("labels", jnp.array([1, 1])), ("tokens", COND["tokens"] + 1)):
        assert relative(output(network, cond=COND | {entry: values}), output(network)) > 1e-3


@each
def test_padding_changes_no_bit(name):
    network = NETWORKS[name]
    for filling in (0, 8, -1, 10**6):
        tokens = jnp.where(COND["tokens_mask"], COND["tokens"], filling)
        np.testing.assert_array_equal(output(network, cond=COND | {"tokens": tokens}), output(network))
    padded = COND | {"tokens": jnp.where(COND["tokens_mask"], COND["tokens"], -1)}
    assert set(fitted(padded, network.cond_entries, 2)) == set(COND)
    longer = COND | {entry: jnp.pad(COND[entry], ((0, 0), (0, 2))) for entry in ("tokens", "tokens_mask")}
    np.testing.assert_array_equal(output(network, cond=longer), output(network))


def test_tokens_are_embedded_with_their_place_and_the_vector_is_their_mean():
    params = seeded(jax.eval_shape(lambda: TOKENS.init(jax.random.key(0), COND, 2))["params"])
    vector, tokens, mask = TOKENS.apply({"params": params}, COND, 2)
    rows = params["table"]["embedding"][np.array([1, 2])] + params["places"][:2]
    np.testing.assert_allclose(tokens[0], np.pad(rows, ((0, 3), (0, 0))), rtol=1e-6)
    np.testing.assert_allclose(vector[0], rows.mean(0), rtol=1e-5)
    assert mask.tolist() == [[True, True, False, False, False], [True, True, True, False, False]]
    vector, tokens, mask = TOKENS.apply({"params": params}, None, 1)
    np.testing.assert_array_equal(vector, params["null"][None])
    assert mask.tolist() == [[True] + 4 * [False]] and not np.any(tokens[0, 1:])
    empty = {"tokens": jnp.ones((1, 2), int), "tokens_mask": jnp.zeros((1, 2), bool)}
    assert not np.any(TOKENS.apply({"params": params}, empty, 1).vector)


def test_a_unet_takes_the_vector_and_has_no_tokens():
    network = ADM(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), num_heads=1, encoder=TOKENS)
    params, run = params_of(network, (4, 4, 1)), jax.jit(network.apply)
    x, cond = normal(2, 4, 4, 1), {entry: values for entry, values in COND.items() if entry != "labels"}
    first = run({"params": params}, x, TIMES, cond)
    swapped = cond | {"tokens": jnp.where(cond["tokens_mask"], cond["tokens"], 7)}
    np.testing.assert_array_equal(run({"params": params}, x, TIMES, swapped), first)
    assert relative(run({"params": params}, x, TIMES, cond | {"tokens": cond["tokens"] + 1}), first) > 1e-4


class Sequences(nn.Module):
    """An encoder of tokens without a vector."""

    @property
    def cond_entries(self):
        return {"sequence": Entry(jnp.float32, (3, 4))}

    @nn.compact
    def __call__(self, cond, n):
        return Encoded(tokens=jnp.zeros((n, 3, 4)) if cond is None else cond["sequence"])


@each
def test_a_transformer_takes_tokens_without_a_vector_and_a_unet_says_that_it_does_not(name):
    network = MODELS[name](**SIZE, encoder=Sequences())
    cond = {"sequence": normal(2, 3, 4)}
    assert relative(output(network, cond=cond), output(network, cond=None)) > 1e-3
    unet = ADM(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), num_heads=1, encoder=Sequences())
    with pytest.raises(UsageError, match="Sequences has tokens and no vector"):
        shapes_of(unet)


# Computation.


@each
def test_every_parameter_gets_a_gradient_and_blocks_computed_again_give_the_same(name):
    network = NETWORKS[name]

    def gradients(network):
        def loss(params):
            return jnp.sum(jnp.square(network.apply({"params": params}, X, TIMES, COND | NULL) - 1))

        return jax.jit(jax.grad(loss))(params_of(NETWORKS[name]))

    NULL = {"null": {"labels": jnp.zeros(2, bool), "tokens": jnp.array([True, False])}}
    found = gradients(network)
    for path, gradient in traverse_util.flatten_dict(found).items():
        assert np.all(np.isfinite(gradient)) and np.any(gradient), path
    again = gradients(network.clone(compute=Compute(remat=True)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.max(np.abs(b))), again, found)


@each
def test_bfloat16_is_near_float32_and_gives_float32(name):
    network = NETWORKS[name]
    y = compiled(network.clone(compute=Compute(jnp.bfloat16)))(params_of(network), X, COND)
    assert y.dtype == jnp.float32
    assert 1e-4 < relative(y, output(network)) < 3e-2


@each
def test_the_forward_derivative_is_the_transpose_of_the_backward_one(name):
    network, v, u = NETWORKS[name], normal(2, *SHAPE, seed=1), normal(2, *SHAPE, seed=2)

    @jax.jit
    def products(x):
        def run(x):
            return network.apply({"params": params_of(network)}, x, TIMES, COND)

        return jnp.sum(u * jax.jvp(run, (x,), (v,))[1]), jnp.sum(v * jax.vjp(run, x)[1](u)[0])

    forward, backward = products(X)
    assert abs(forward - backward) < 1e-5 * abs(forward)


@each
def test_dropout_is_drawn_from_each_images_own_key_and_in_training_only(name):
    network, keys = NETWORKS[name], batch_keys(jax.random.key(0), 3)
    run = jax.jit(lambda x, keys: network.apply({"params": params_of(network)}, x, jnp.ones(2), dropout_keys=keys))
    first = run(X, keys[:2])
    assert not np.array_equal(first, run(X, keys[1:])) and not np.array_equal(first, run(X, None))
    np.testing.assert_allclose(run(X[::-1], keys[1::-1])[::-1], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vp/digits_uvit", "flow/digits_dit"])
def test_a_run_goes_on_bit_for_bit_and_samples(name, compiled_once, tiny_config, tmp_path):
    config = tiny_config(name)
    train(config, tmp_path / "whole")
    for config.training.n_iters in (2, 4):
        train(config, tmp_path / "stopped")
    experiment = Experiment(config)
    states = [restore_state(experiment, tmp_path / run / "checkpoints", 4)[0] for run in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    images = score_sde.load(tmp_path / "stopped").sample(jax.random.key(0), 2, "ddim", num_steps=2)
    assert images.shape == (2, 8, 8, 1) and np.all(np.isfinite(images))


# Mistakes.


@pytest.mark.parametrize(
    ("name", "options", "sides", "words"),
    [
        *((name, dict(patch_size=3), (32,), "patch_size=3 do not tile data.image_size=32") for name in NETWORKS),
        *((name, dict(patch_size=4), (8, 6), "patch_size=4 do not tile data.image_width=6") for name in NETWORKS),
        *((name, dict(num_heads=3), (8,), "num_heads=3 does not divide model.width=16") for name in NETWORKS),
        *((name, dict(num_heads=0), (8,), "num_heads=0 does not divide model.width=16") for name in NETWORKS),
        ("uvit", dict(depth=3), (8,), "set model.depth=3 to an even number"),
        ("dit", dict(width=18, num_heads=2), (8,), "set model.width=18 to a multiple of 4"),
    ],
)
def test_an_impossible_network_is_one_sentence(name, options, sides, words):
    with pytest.raises(UsageError, match=words):
        MODELS[name](**SIZE | options).check(*sides)


def test_too_many_tokens_are_one_sentence():
    cond = {"tokens": jnp.zeros((1, 6), int), "tokens_mask": jnp.ones((1, 6), bool)}
    with pytest.raises(UsageError, match="has 6 tokens, and the encoder takes 5; shorten it"):
        TOKENS.init(jax.random.key(0), cond, 1)
