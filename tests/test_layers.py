import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from score_sde.errors import UsageError
from score_sde.models import Compute, resampling
from score_sde.models.layers import (
    Downsample,
    GaussianFourierProjection,
    GroupNorm,
    Upsample,
    attention,
    conv1x1,
    conv3x3,
    default_init,
    sinusoidal_embedding,
)

TAPS = (1, 3, 3, 1)
RAMP = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
SQUARE = jnp.array([[1.0, 2.0], [5.0, 6.0]]).reshape(1, 2, 2, 1)
WEIGHT = (jnp.arange(1.0, 10.0) / 10).reshape(3, 3, 1, 1)


def test_sinusoidal_embeddings_equal_those_of_the_papers_code():
    expected = [-0.8796958, 0.4683009, 0.02261963, 0.00105, -0.4755369, 0.88356906, 0.9997441, 0.99999946]
    np.testing.assert_allclose(sinusoidal_embedding(jnp.array([10.5]), 8)[0], expected, rtol=2e-5)
    odd = [0.14112, 0.0299955, 3.0e-4, -0.9899925, 0.99955004, 0.9999999, 0]
    np.testing.assert_allclose(sinusoidal_embedding(jnp.array([3.0]), 7)[0], odd, rtol=1e-5)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, h):
        return attention(h, 1.0, Compute())


def test_attention_is_that_of_queries_keys_and_values_with_their_biases():
    rng, c = np.random.default_rng(0), 6
    h = rng.standard_normal((2, 3, 4, c))
    maps = [(rng.standard_normal((c, c)), rng.standard_normal(c)) for _ in range(4)]
    q, k, v = (h.reshape(2, 12, c) @ w + b for w, b in maps[:3])
    weights = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(c))
    expected = weights / weights.sum(-1, keepdims=True) @ v @ maps[3][0] + maps[3][1]
    params = {f"NIN_{i}": {"W": np.float32(w), "b": np.float32(b)} for i, (w, b) in enumerate(maps)}
    found = jax.jit(Attention().apply)({"params": params}, np.float32(h))
    np.testing.assert_allclose(found.reshape(2, 12, c), expected, rtol=1e-4, atol=1e-5)


def test_fourier_embeddings_are_of_the_labels_logarithm_and_never_train():
    module, label = GaussianFourierProjection(4, 16.0), jnp.array([0.5, 50.0])
    params = module.init(jax.random.key(0), label)
    w = np.asarray(params["params"]["W"], np.float64)
    angles = 2 * np.pi * np.log(np.asarray(label, np.float64))[:, None] * w
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(module.apply(params, label), expected, atol=1e-4)
    gradient = jax.grad(lambda p: module.apply(p, label).sum())(params)
    np.testing.assert_array_equal(gradient["params"]["W"], 0)


def test_fir_filters_equal_those_of_the_papers_code():
    np.testing.assert_allclose(
        jax.jit(resampling.fir_downsample, static_argnums=1)(RAMP, TAPS)[0, ..., 0],
        [[3.5, 4.703125], [8.3125, 9.515625]],
        rtol=1e-6,
    )
    up = [[0.5625, 0.9375, 1.3125, 1.125], [1.5, 2.25, 2.75, 2.25], [3, 4.25, 4.75, 3.75]]
    up.append([2.8125, 3.9375, 4.3125, 3.375])
    np.testing.assert_allclose(
        jax.jit(resampling.fir_upsample, static_argnums=1)(SQUARE, TAPS)[0, ..., 0], up, rtol=1e-6
    )


def test_fused_fir_convolutions_equal_those_of_the_papers_code():
    down = [[21.6875, 23.704689], [29.018751, 29.198439]]
    np.testing.assert_allclose(
        jax.jit(resampling.fir_conv_downsample, static_argnums=2)(RAMP, WEIGHT, TAPS)[0, ..., 0], down, rtol=1e-6
    )
    up = [[4.63125, 7.01875, 7.7375, 5.86875], [9.6375, 13.7875, 14.46875, 10.59375]]
    up += [[11.925, 16.6, 17.01875, 12.20625], [8.26875, 11.25625, 11.3375, 7.93125]]
    np.testing.assert_allclose(
        jax.jit(resampling.fir_conv_upsample, static_argnums=2)(SQUARE, WEIGHT, TAPS)[0, ..., 0], up, rtol=1e-6
    )


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1, 2, 3, 5, 7, 1)])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1)])
def test_filters_equal_a_dilated_depthwise_convolution(taps, up, down):
    """Zero insertion, padding, true convolution with the normalised outer product, decimation."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    pad = (3, 2) if len(taps) % 2 == 0 else (3, 3) if up == 1 else (3, 2 + len(taps) % 2)
    h = np.asarray(taps, np.float32)
    kernel = np.outer(h, h)[::-1, ::-1] / h.sum() ** 2 * 4
    # `lhs_dilation` puts no zero after the last value; the padding above it is one wider for that.
    padding = [(pad[0], pad[1] + up - 1)] * 2
    expected = lax.conv_general_dilated(
        x,
        np.tile(kernel[:, :, None, None], (1, 1, 1, 3)).astype(np.float32),
        (down, down),
        padding,
        lhs_dilation=(up, up),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    actual = jax.jit(functools.partial(resampling.filter2d, taps=taps, gain=2, up=up, down=down, pad=pad))(x)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [4, 32, 96, 256])
def test_group_norm_equals_flaxs_and_so_does_its_derivative_by_hand(channels):
    rng = np.random.default_rng(channels)
    x, weights = 3 + 2 * rng.standard_normal((2, 5, 4, channels), np.float32), rng.standard_normal((2, 5, 4, channels))
    reference = nn.GroupNorm(num_groups=min(channels // 4, 32), epsilon=1e-6, use_fast_variance=False)
    shapes = jax.eval_shape(reference.init, jax.random.key(2), x)
    params = jax.tree.map(lambda p: 1 + rng.standard_normal(p.shape, np.float32), shapes)
    fused, plain = (GroupNorm(Compute(fused=fused), nn.swish) for fused in (True, False))

    def value_and_gradients(norm):
        return jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(weights * norm(params, x)), argnums=(0, 1)))(
            params, x
        )

    values = (jax.jit(norm.apply)(params, x) for norm in (GroupNorm(Compute()), reference))
    np.testing.assert_allclose(*values, atol=2e-5)
    expected = value_and_gradients(lambda params, x: nn.swish(reference.apply(params, x)))
    for norm in (fused, plain):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * np.max(np.abs(b))),
            value_and_gradients(norm.apply),
            expected,
        )


def test_strided_convolutions_pad_below_and_on_the_right():
    params = {"params": {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.zeros(1)}}
    y = conv3x3(1, stride=2).apply(params, RAMP)
    window_sums = [[RAMP[0, :3, :3].sum(), RAMP[0, :3, 2:].sum()], [RAMP[0, 2:, :3].sum(), RAMP[0, 2:, 2:].sum()]]
    np.testing.assert_allclose(y[0, ..., 0], window_sums)


@pytest.mark.parametrize("fir", [False, True])
@pytest.mark.parametrize("with_conv", [False, True])
def test_resampling_modules_change_the_size_by_two(fir, with_conv):
    x = jnp.ones((2, 8, 8, 4))
    modules = (module(6 if with_conv else None, with_conv, fir) for module in (Upsample, Downsample))
    up, down = (jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0] for module in modules)
    channels = 6 if with_conv else 4
    assert up.shape == (2, 16, 16, channels)
    assert down.shape == (2, 4, 4, channels)


def test_a_zero_init_scale_is_tiny_but_not_zero():
    kernel = default_init(0.0)(jax.random.key(0), (3, 3, 64, 64))
    bound = np.sqrt(3e-10 / (9 * 64))
    assert 0.9 * bound < float(jnp.abs(kernel).max()) <= bound


def test_a_convolution_of_an_upsampled_image_and_its_derivatives_need_no_upsampling():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    weight = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))

    def plain(x, weight):
        return jax.lax.conv_general_dilated(
            resampling.nearest_upsample(x), weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    y, pull = jax.vjp(plain, x, weight)
    out, pull_out = jax.vjp(resampling.nearest_upsample_conv, x, weight)
    np.testing.assert_allclose(out, y, atol=2e-5)
    for a, b in zip(pull_out(y), pull(y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_a_1x1_convolution_before_the_upsampling_is_one_after_it():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    for upsample in (resampling.nearest_upsample, lambda h: resampling.fir_upsample(h, (1, 3, 3, 1))):
        before, after = conv1x1(5, upsample), conv1x1(5)
        params = after.init(jax.random.key(1), x)
        params["params"]["bias"] = jnp.arange(5.0)
        np.testing.assert_allclose(before.apply(params, x), after.apply(params, upsample(x)), atol=1e-5)


def test_a_parameter_of_another_shape_is_refused_by_its_place():
    x = jnp.zeros((1, 4, 4, 2))
    params = conv3x3(3).init(jax.random.key(0), x)["params"]
    with pytest.raises(UsageError, match=r"kernel is \(3, 3, 2, 3\), and should be \(3, 3, 2, 4\)"):
        conv3x3(4).apply({"params": params}, x)
