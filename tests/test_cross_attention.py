"""Networks that attend to captions: the layer by hand, null captions, padding, batches, devices, and derivatives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import captioned
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from captioned import NETWORKS, UNETS, compiled, output, params_of, rows, without_cross
from flax import traverse_util
from golden_weights import relative, seeded

from score_sde.errors import UsageError
from score_sde.models import ADM, DDPM, ENCODERS, Compute, EDM2UNet, NCSNpp
from score_sde.models.cross_attention import CrossAttention, MPCrossAttention

each = pytest.mark.parametrize("name", NETWORKS)
each_unet = pytest.mark.parametrize("name", UNETS)
X, T, COND = rows(3)
SEEN = np.asarray(COND["tokens_mask"])
NULL = COND | {"null": {"tokens": jnp.ones(3, bool)}}
PLACES = {"adm": 7, "edm2": 7, "ncsnpp": 5, "ddpm": 5}  # of cross-attention, on two levels and between


def of_cross(path) -> bool:
    return any(part.startswith("CrossAttention") or part == "cross" for part in path)


# The layer, by NumPy, sample by sample, over the tokens that are seen.


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


FEATURES, TOKENS = normal(2, 3, 2, 8), normal(2, 5, 6, seed=1)
MASK = np.array([[True, True, False, True, False], [True, False, False, False, False]])


def both(layer):
    """Parameters of a layer, and what it computes."""
    arguments = tuple(map(jnp.asarray, (FEATURES, TOKENS, MASK)))
    params = seeded(jax.eval_shape(layer.init, jax.random.key(0), *arguments)["params"])
    return params, layer.apply({"params": jax.tree.map(jnp.asarray, params)}, *arguments)


def standard(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-6)


def unit(x):
    return x / (1e-4 + np.sqrt(np.mean(x**2, -1, keepdims=True)))


def read(q, k, v):
    """Attention of heads (h, n, d) by its definition."""
    logits = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


def split(x, heads):
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def test_cross_attention_is_its_formula():
    params, found = both(CrossAttention(4, 2, Compute()))
    for x, tokens, mask, y in zip(FEATURES, TOKENS, MASK, found, strict=True):
        h = standard(x.reshape(6, 2, 4), (0, 2)).reshape(6, 8) * params["norm"]["scale"] + params["norm"]["bias"]
        seen = standard(tokens[mask], 1)
        q, k, v = (split(a @ params[name]["kernel"], 4) for a, name in ((h, "q"), (seen, "k"), (seen, "v")))
        h = read(q, k, v).swapaxes(0, 1).reshape(6, 8) @ params["out"]["kernel"] + params["out"]["bias"]
        np.testing.assert_allclose(y, x + h.reshape(x.shape), atol=1e-5)


def test_magnitude_preserving_cross_attention_is_its_formula():
    params, found = both(MPCrossAttention(2))
    weights = {name: unit(params[name]["weight"].T).T / np.sqrt(len(params[name]["weight"])) for name in "qkv"}
    out, gain = unit(params["out"]["weight"].T).T / np.sqrt(8), params["gain"]
    for x, tokens, mask, y in zip(FEATURES, TOKENS, MASK, found, strict=True):
        seen = unit(tokens[mask])
        q, k, v = (unit(split(a @ weights[name], 2)) for a, name in ((x.reshape(6, 8), "q"), (seen, "k"), (seen, "v")))
        h = read(q, k, v).swapaxes(0, 1).reshape(6, 8) @ out
        np.testing.assert_allclose(y, (x + gain * h.reshape(x.shape)) / np.sqrt(1 + gain**2), atol=1e-5)


@pytest.mark.parametrize("layer", [CrossAttention(4, 2, Compute()), MPCrossAttention(2)], ids=["plain", "magnitude"])
def test_a_fresh_layer_changes_no_bit(layer):
    y, _ = layer.init_with_output(jax.random.key(0), *map(jnp.asarray, (FEATURES, TOKENS, MASK)))
    np.testing.assert_array_equal(y, FEATURES)


# Whole networks.


@each_unet
def test_a_network_has_all_parameters_of_the_one_without_cross_attention_and_at_first_its_output(name):
    network = UNETS[name]
    flat, plain = (traverse_util.flatten_dict(params_of(of)) for of in (network, without_cross(network)))
    assert {path for path in flat if not of_cross(path)} == set(plain)
    assert len([path for path in flat if "q" in path]) == PLACES[name]
    start = "gain" if name == "edm2" else "out"
    fresh = {path: leaf * 0 if of_cross(path) and start in path else leaf for path, leaf in flat.items()}
    shared = {path: leaf for path, leaf in flat.items() if path in plain}
    found, expected = (
        compiled(of)(traverse_util.unflatten_dict(params), X, T, COND)
        for of, params in ((network, fresh), (without_cross(network), shared))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert relative(output(network, X, T, COND), expected) > 1e-3


@each
def test_no_caption_is_the_null_caption_to_the_last_bit(name):
    without = output(NETWORKS[name], X, T)
    np.testing.assert_array_equal(output(NETWORKS[name], X, T, NULL), without)
    some = output(NETWORKS[name], X, T, COND | {"null": {"tokens": jnp.array([False, True, False])}})
    np.testing.assert_array_equal(some[1], without[1])
    np.testing.assert_array_equal(some[0], output(NETWORKS[name], X, T, COND)[0])
    assert relative(some[0], without[0]) > 1e-3


@each
def test_padding_changes_no_bit(name):
    expected = output(NETWORKS[name], X, T, COND)
    for filling in (0, 8, -1, 10**6):
        tokens = jnp.where(SEEN, COND["tokens"], filling)
        np.testing.assert_array_equal(output(NETWORKS[name], X, T, COND | {"tokens": tokens}), expected)


@each
def test_permuted_rows_give_permuted_outputs(name):
    order = np.array([2, 0, 1])
    moved = jax.tree.map(lambda each: each[order], (X, T, COND))
    np.testing.assert_allclose(
        output(NETWORKS[name], *moved), output(NETWORKS[name], X, T, COND)[order], rtol=2e-6, atol=2e-6
    )


@each
def test_two_tokens_that_change_places_change_the_output(name):
    swapped = COND | {"tokens": COND["tokens"][:, np.array([1, 0, 2, 3])]}
    found, expected = (output(NETWORKS[name], X, T, cond)[np.array([0, 2])] for cond in (swapped, COND))
    assert relative(found, expected) > 1e-4


@each
def test_the_size_of_the_batch_changes_nothing(name):
    whole = output(NETWORKS[name], *rows(8))
    assert relative(output(NETWORKS[name], X, T, COND), whole[:3]) < 2e-6


def test_eight_devices_change_nothing():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    program = [sys.executable, str(Path(captioned.__file__))]
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    count, eight = json.loads(subprocess.run(program, env=env, capture_output=True, check=True).stdout.splitlines()[-1])
    assert count == 8
    for name, network in NETWORKS.items():
        assert relative(np.array(eight[name]), output(network, *rows(8))) < 2e-6, name


@each
def test_derivatives_agree_and_reach_the_encoder(name):
    network = NETWORKS[name]
    params, tangent = params_of(network), normal(*X.shape, seed=2)

    @jax.jit
    def derivatives(params, x):
        def run(params, x):
            return network.apply({"params": params}, x, T, COND | {"null": {"tokens": jnp.array([False, True, False])}})

        _, pushed = jax.jvp(lambda x: run(params, x), (x,), (tangent,))
        of_params, of_x = jax.vjp(run, params, x)[1](tangent)
        return jnp.vdot(tangent, pushed), jnp.vdot(of_x, tangent), of_params

    forward, backward, gradients = derivatives(params, X)
    np.testing.assert_allclose(forward, backward, rtol=1e-4)
    found = traverse_util.flatten_dict(gradients)
    moved = {path for path, leaf in found.items() if np.any(leaf)}
    fixed = {path for path in found if path[0] == "emb_fourier"}
    assert all(np.all(np.isfinite(leaf)) for leaf in found.values())
    assert {path for path in found if path[0] == "encoder" or of_cross(path)} <= moved and not fixed & moved


@each
def test_blocks_computed_again_give_the_same_and_bfloat16_nearly_the_same(name):
    network, variables = NETWORKS[name], {"params": params_of(NETWORKS[name])}
    expected = output(network, X, T, COND)

    def gradient(compute):
        def loss(x):
            return jnp.sum(jnp.square(compute.apply(network, variables, x, T, COND)))

        return jax.jit(jax.grad(loss))(X)

    assert relative(gradient(Compute(remat=True)), gradient(Compute())) < 1e-5
    y = jax.jit(lambda x: Compute(jnp.bfloat16).apply(network, variables, x, T, COND))(X)
    assert y.dtype == jnp.float32 and 1e-4 < relative(y, expected) < 5e-2


# Mistakes.

FOUR = dict(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
OWN = {NCSNpp: {}, ADM: dict(num_heads=1), EDM2UNet: dict(head_channels=8), DDPM: dict(nf=32)}


@pytest.mark.parametrize("network", OWN)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(cross_resolutions=(8,), encoder=None), r"cross_resolutions=\(8,\) .* set encoder.name=text"),
        (dict(cross_resolutions=(8, 16)), "has 16, and no feature map .* choose from 8, 4"),
        (dict(cross_resolutions=(4,), cross_heads=5), "model.cross_heads=5 does not divide the .* at height 4"),
    ],
)
def test_attention_to_captions_that_cannot_be_is_one_sentence(network, options, words):
    with pytest.raises(UsageError, match=words):
        network(**FOUR | OWN[network] | {"encoder": captioned.TEXT} | options).check(8)


@pytest.mark.parametrize("network", [NCSNpp, DDPM])
def test_a_network_without_the_noise_level_takes_no_captions(network):
    with pytest.raises(UsageError, match=r"set model\.conditional=True"):
        network(**FOUR | OWN[network], conditional=False, encoder=captioned.TEXT).check(8)


@each_unet
def test_an_encoder_without_tokens_has_nothing_to_attend_to(name):
    with pytest.raises(UsageError, match="VectorEncoder has no tokens to attend to"):
        params_of(UNETS[name].clone(encoder=ENCODERS["vector"](size=2)))
