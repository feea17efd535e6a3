"""Resampling by two: nearest / box, and the FIR filters of StyleGAN2 that NCSN++ uses (paper, appendix H).

A FIR pass is pad, insert zeros, filter, decimate, written along one axis as shifted weighted sums: XLA fuses those,
while a depthwise convolution is slow on CPU.
"""

from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jax import lax

from score_sde.array_types import Array, FeatureMaps, Float
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

Factor = Annotated[int, "[1, inf)"]
Taps = tuple[float, ...]
Maps = Float[Array, "b _ _ c_in"]
SPATIAL = (1, 2)
LAYOUT = ("NHWC", "HWIO", "NHWC")


@check_arguments
def nearest_upsample(x: FeatureMaps) -> FeatureMaps:
    """Nearest-neighbour upsampling: every pixel becomes a 2x2 block.

    It stacks, so that its derivative is a sum of slices, which XLA fuses.
    """
    b, h, w, c = x.shape
    x = jnp.stack([x, x], axis=2).reshape(b, 2 * h, w, c)
    return jnp.stack([x, x], axis=3).reshape(b, 2 * h, 2 * w, c)


@check_arguments
def nearest_upsample_conv(x: Maps, weight: Float[Array, "3 3 c_in c_out"]) -> FeatureMaps:
    """The 3x3 convolution of `nearest_upsample(x)`, with 4/9 of its operations.

    Output pixel (2i + p, 2j + q) sees 2x2 pixels of x: rows i - 1 and i for p = 0, i and i + 1 for p = 1, the same for
    columns. Two of the three rows of the weights fall on the same row of x, and are added first.
    """
    b, h, w, _ = x.shape
    before_after = ((1, 0), (0, 1))  # zeros, by phase
    rows = []
    for row, pad_row in zip(_folded(weight, 0), before_after, strict=True):
        columns = [
            lax.conv_general_dilated(x, part, (1, 1), (pad_row, pad_column), dimension_numbers=LAYOUT)
            for part, pad_column in zip(_folded(row, 1), before_after, strict=True)
        ]
        rows.append(jnp.stack(columns, axis=3))
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, weight.shape[-1])


def _folded(weight: Array, axis: int) -> tuple[Array, Array]:
    """The two weights along one axis, for each phase of an output pixel."""
    first, middle, last = jnp.split(weight, 3, axis)
    return jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)


@check_arguments
def mean_downsample(x: FeatureMaps) -> FeatureMaps:
    """Mean over 2x2 blocks, written as sums of slices, which XLA fuses."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise UsageError(f"mean_downsample: blocks of 2x2 pixels do not fill {h}x{w} pixels; give even sizes.")
    x = x.reshape(b, h // 2, 2, w, c)
    x = (x[:, :, 0] + x[:, :, 1]).reshape(b, h // 2, w // 2, 2, c)
    return (x[:, :, :, 0] + x[:, :, :, 1]) / 4


@check_arguments
def fir_downsample(x: FeatureMaps, taps: Taps) -> FeatureMaps:
    """FIR filter, then every second pixel, so that height and width halve."""
    excess = len(taps) - 2
    return filter2d(x, taps, gain=1, down=2, pad=((excess + 1) // 2, excess // 2))


@check_arguments
def fir_upsample(x: FeatureMaps, taps: Taps) -> FeatureMaps:
    """Zero insertion, then a FIR filter of gain 4, so that height and width double."""
    excess = len(taps) - 2
    return filter2d(x, taps, gain=2, up=2, pad=((excess + 1) // 2 + 1, excess // 2))


@check_arguments
def fir_conv_downsample(x: Maps, weight: Float[Array, "k k c_in c_out"], taps: Taps) -> FeatureMaps:
    """FIR filter, then a strided convolution without padding, so that borders see no zeros but the filter's."""
    excess = (len(taps) - 2) + (weight.shape[0] - 1)
    return _conv(filter2d(x, taps, gain=1, pad=((excess + 1) // 2, excess // 2)), weight, stride=2)


@check_arguments
def fir_conv_upsample(x: Maps, weight: Float[Array, "k k c_in c_out"], taps: Taps) -> FeatureMaps:
    """Transposed convolution of stride 2, then the FIR filter of gain 4."""
    edge = weight.shape[0] - 1
    y = _conv(x, weight, dilation=2, pad=edge)
    excess = (len(taps) - 2) - (weight.shape[0] - 1)
    return filter2d(y, taps, gain=2, pad=((excess + 1) // 2 + 1, excess // 2 + 1))


@check_arguments
def filter2d(
    x: FeatureMaps,
    taps: Taps,
    *,
    gain: Annotated[float, "(-inf, inf)"],
    up: Factor = 1,
    down: Factor = 1,
    pad: tuple[Annotated[int, "[0, inf)"], Annotated[int, "[0, inf)"]],
) -> FeatureMaps:
    """The separable filter outer(taps, taps), normalised to sum 1, with `gain` along each axis.

    Raises `UsageError` for taps of sum 0, and for images that are smaller than the filter.
    """
    if not 0 < abs(np.sum(taps)) < np.inf:
        raise UsageError(f"The taps {taps} of a filter must have a sum that is finite and not 0.")
    for size in x.shape[1:3]:
        length = (size * up + sum(pad) - len(taps)) // down + 1
        if length < 1 or (up > 1 and (down > 1 or length % up)):
            raise UsageError(
                f"A filter of {len(taps)} taps, up={up}, down={down} and pad={pad} does not fit {size} pixels."
            )
    h = gain * np.asarray(taps, np.float32) / np.sum(taps)
    weights = h[::-1].tolist()  # Python's numbers leave the type of x as it is
    for axis in SPATIAL:
        x = _filter(x, weights, axis, up, down, pad)
    return x


def _filter(x: FeatureMaps, h: Sequence[float], axis: int, up: int, down: int, pad: tuple[int, int]) -> FeatureMaps:
    """Correlation with h along one axis, after zero insertion (`up`) and padding, keeping every `down`-th value."""
    length = (x.shape[axis] * up + sum(pad) - len(h)) // down + 1
    if up == 1:
        widths = [(0, 0)] * x.ndim
        widths[axis] = pad
        x = jnp.pad(x, widths)
        return sum(
            weight * lax.slice_in_dim(x, j, j + (length - 1) * down + 1, down, axis) for j, weight in enumerate(h)
        )
    # Output n = i up + r sees only the taps j for which n + j - pad is a multiple of `up`: one sum for each phase r.
    rows = length // up
    reach = len(h) // up + 1
    widths = [(0, 0)] * x.ndim
    widths[axis] = (reach, reach)
    padded = jnp.pad(x, widths)
    phases = []
    for r in range(up):
        terms = [(j, (r + j - pad[0]) // up) for j in range(len(h)) if (r + j - pad[0]) % up == 0]
        phases.append(sum(h[j] * lax.slice_in_dim(padded, s + reach, s + reach + rows, 1, axis) for j, s in terms))
    shape = list(x.shape)
    shape[axis] = length
    return jnp.stack(phases, axis=axis + 1).reshape(shape)


def _conv(
    x: FeatureMaps, weight: Float[Array, "k k c_in c_out"], *, stride: int = 1, dilation: int = 1, pad: int = 0
) -> FeatureMaps:
    return lax.conv_general_dilated(
        x,
        weight,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        lhs_dilation=(dilation, dilation),
        dimension_numbers=LAYOUT,
    )
