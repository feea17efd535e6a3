"""The augmentation pipe of EDM: geometric transforms of training images, and labels that tell the network of them.

A transform is drawn for each image with a probability p, and the network is told its parameters. Asked for images with
labels of zero, as in sampling, it returns none of the transformed ones: nothing of the augmentation leaks (Karras et
al., 2022, appendix F.2; 2020, "Training generative adversarial networks with limited data").

| transform   | drawn with w, r                             | labels           |
|-------------|---------------------------------------------|------------------|
| `xflip`     | w = 0 or 1, always                          | w                |
| `yflip`     | w = 0 or 1                                  | w                |
| `scale`     | w ~ N(0, 1): by 2^(0.2 w)                   | w                |
| `rotate`    | w ~ U(-pi, pi): by w, counter-clockwise     | cos w - 1, sin w |
| `aniso`     | w ~ N(0, 1), r ~ U(-pi, pi) or 0, each half | w cos r, w sin r |
|             | of the time: by 2^(0.2 w) along direction r |                  |
| `translate` | w ~ N(0, 1)^2: by w / 8 of width and height | w                |

All labels are zero exactly where an image is unchanged, and such an image is returned bit for bit. Others are flipped;
then they are reflected at their edges, interpolated to twice the pixels by the wavelet sym6, read bilinearly at the
places that the transforms say, and reduced by the same wavelet. Both uses of the wavelet are matrices here.

    import jax
    import jax.numpy as jnp
    from score_sde.randomness import sample_keys
    from score_sde.training import augmentation

    keys = sample_keys(jax.random.key(0), jnp.arange(4))
    drawn = augmentation.draw(keys, 0.12)
    x = augmentation.transformed(drawn, jnp.zeros((4, 8, 8, 3)))
    labels = augmentation.labels(drawn)  # (4, 9), for a network with augment_dim=9
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from score_sde.array_types import Array, Float, Keys, PerSample
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, one_of
from score_sde.randomness import expand, normal, stream, uniform

Probability = Annotated[float, "[0, 1]"]

SCALE_STD = ANISO_STD = 0.2  # of log2 of the factor
TRANSLATE_STD = 0.125  # of the shift, as a part of the width or height
# The scaling filter of the wavelet sym6, the least asymmetric of 12 taps with 6 vanishing moments (Daubechies, 1992,
# table 6.3).
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
BORDER = len(SYM6) // 4  # pixels around the result that the reducing filter reaches


class Drawn(NamedTuple):
    """Parameters of the transforms of each image, float32 (b,); zero is no change. The table above has their meaning.

    aniso_angle: r. The flips are 0 or 1; shifts are in units of an eighth of the width or height.
    """

    xflip: PerSample
    yflip: PerSample
    scale: PerSample
    rotate: PerSample
    aniso: PerSample
    aniso_angle: PerSample
    translate_x: PerSample
    translate_y: PerSample


UNCHANGED = Drawn(*np.zeros((len(Drawn._fields), 1), np.float32))


@check_arguments
def draw(keys: Keys, p: Probability, transforms: Sequence[str] | None = None) -> Drawn:
    """Draws the parameters of each image from its own key.

    p: probability of each transform but `xflip`, which is drawn for every image; 0 draws none at all. transforms: the
    names of those that are drawn; default all. The parameters of one do not depend on which others are drawn. Raises
    `UsageError` for an unknown name.
    """
    chosen = in_order(transforms)
    limits = np.array([(float(p > 0) if name == "xflip" else p) * (name in chosen) for name in TRANSFORMS], np.float32)
    u = uniform(stream(keys, 0), (len(limits), 2))
    z = dict(zip(TRANSFORMS, normal(stream(keys, 1), (len(limits), 2)).transpose(1, 2, 0), strict=True))
    is_drawn = dict(zip(TRANSFORMS, (u[..., 0] < limits).T, strict=True))
    part = dict(zip(TRANSFORMS, u[..., 1].T, strict=True))

    def drawn(name: str, values: PerSample) -> PerSample:
        return jnp.where(is_drawn[name], values, 0)

    aniso = drawn("aniso", z["aniso"][0])
    tilted = (aniso != 0) & (uniform(stream(keys, 2)) < 0.5)
    return Drawn(
        drawn("xflip", jnp.floor(2 * part["xflip"])),
        drawn("yflip", jnp.floor(2 * part["yflip"])),
        drawn("scale", z["scale"][0]),
        drawn("rotate", (2 * part["rotate"] - 1) * math.pi),
        aniso,
        jnp.where(tilted, (2 * part["aniso"] - 1) * math.pi, 0),
        drawn("translate", z["translate"][0]),
        drawn("translate", z["translate"][1]),
    )


@check_arguments
def labels(drawn: Drawn, transforms: Sequence[str] | None = None) -> Float[Array, "b n"]:
    """The labels of the transforms with these names, in the order of the table; default all, n = 9."""
    return jnp.stack([label for name in in_order(transforms) for label in TRANSFORMS[name](drawn)], axis=1)


@check_arguments
def in_order(transforms: Sequence[str] | None = None) -> tuple[str, ...]:
    """Names of transforms in the order of the table; default all. Raises `UsageError` for an unknown name."""
    chosen = TRANSFORMS if transforms is None else [one_of("transform", name, TRANSFORMS) for name in transforms]
    return tuple(name for name in TRANSFORMS if name in chosen)


@check_arguments
def transformed(
    drawn: Drawn, x: Float[Array, "b h w c"], middle: Annotated[float, "(-inf, inf)"] = 0.0
) -> Float[Array, "b h w c"]:
    """Images after their transforms.

    middle: of the range of x, 0 for [-1, 1] and 0.5 for [0, 1]: the value of what lies beyond the image's reflection.
    The wavelet rings at edges, so that a result may leave the range by some tenths.
    """
    x = jnp.where(expand(drawn.xflip == 1, x), x[:, :, ::-1], x)
    x = jnp.where(expand(drawn.yflip == 1, x), x[:, ::-1], x)
    moved = functools.reduce(jnp.logical_or, [values != 0 for values in drawn[2:]])
    return jnp.where(expand(moved, x), _moved(drawn, x - middle) + middle, x)


def check(network: object, p: Probability, transforms: Sequence[str]) -> None:
    """Raises `UsageError` for a network that cannot be told the transforms: it would draw transformed images, too."""
    names = in_order(transforms)
    n = sum(len(TRANSFORMS[name](UNCHANGED)) for name in names)
    has = getattr(network, "augment_dim", 0)
    if p == 0 or has == n > 0:
        return
    if not names:
        raise UsageError(f"data.augment_p={p:g} is of no transform; set data.augment_transforms, or data.augment_p=0.")
    advice = f"set model.augment_dim={n}" if hasattr(network, "augment_dim") else "ncsnpp and adm take them"
    raise UsageError(
        f"data.augment_p={p:g} with {', '.join(names)} has {n} labels, and this network takes {has}, so that it would "
        f"draw transformed images as well; {advice}, or set data.augment_p=0."
    )


def _moved(drawn: Drawn, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images scaled, turned and shifted."""
    height, width = x.shape[1:3]
    fine = _both(_enlarging(height), x, _enlarging(width))
    # Places on the grid of twice the pixels, with the image's centre as the origin, in pixels of the image.
    down, across = (jnp.arange(1, 2 * (size + 2 * BORDER) + 1) / 2 - size / 2 - BORDER for size in (height, width))
    shift = jnp.stack([drawn.translate_x * width, drawn.translate_y * height], axis=1) * TRANSLATE_STD
    to = jnp.stack(jnp.meshgrid(across, down), axis=-1) - shift[:, None, None]
    of = jnp.einsum("bij,bvuj->bivu", _linear(drawn), to, precision="highest")
    places = 2 * of + 3 * jnp.array([width, height])[:, None, None] - 3  # columns and rows of `fine`

    def read(image: Array, columns: Array, rows: Array) -> Array:
        return map_coordinates(image, [rows, columns], order=1, mode="constant")

    channels = jax.vmap(read, in_axes=(2, None, None), out_axes=2)
    result = jax.vmap(channels)(fine, places[:, 0], places[:, 1])
    return _both(_reducing(height), result, _reducing(width))


def _linear(drawn: Drawn) -> Float[Array, "b 2 2"]:
    """The linear maps from places in the result to places in the image: the inverses of the transforms."""
    factor = jnp.exp2(ANISO_STD * drawn.aniso)
    stretch = jnp.stack([1 / factor, factor], axis=1)[:, :, None] * jnp.eye(2)
    around = _rotation(drawn.aniso_angle)
    aniso = functools.partial(jnp.einsum, "bji,bjk,bkl->bil", precision="highest")(around, stretch, around)
    turned = jnp.einsum("bij,bjk->bik", _rotation(drawn.rotate), aniso, precision="highest")
    return turned / jnp.exp2(SCALE_STD * drawn.scale)[:, None, None]


def _rotation(angle: PerSample) -> Float[Array, "b 2 2"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin], axis=1), jnp.stack([sin, cos], axis=1)], axis=1)


def _both(rows: np.ndarray, x: Float[Array, "b h w c"], columns: np.ndarray) -> Float[Array, "b H W c"]:
    """A matrix applied to the columns of each image, and another to its rows."""
    return jnp.einsum("vh,bhwc,uw->bvuc", rows, x, columns, precision="highest")


def _synthesis(size: int) -> np.ndarray:
    """The matrix (2 size, size) that interpolates a row of pixels to twice as many by the wavelet's filter."""
    tap = np.arange(2 * size)[:, None] - 2 * np.arange(size) + len(SYM6) // 2 - 1
    inside = (tap >= 0) & (tap < len(SYM6))
    return np.where(inside, np.array(SYM6)[np.where(inside, tap, 0)], 0)


@functools.cache
def _enlarging(size: int) -> np.ndarray:
    """The matrix (6 size - 4, size) that reflects a row of pixels at both ends, and interpolates it."""
    reflected = np.pad(np.arange(size), size - 1, mode="reflect") if size > 1 else np.arange(1)
    return (_synthesis(len(reflected)) @ np.eye(size)[reflected]).astype(np.float32)


@functools.cache
def _reducing(size: int) -> np.ndarray:
    """The matrix (size, 2 size + 4 BORDER) that reduces a row to half as many pixels, without the border."""
    return _synthesis(size + 2 * BORDER).T[BORDER:-BORDER].astype(np.float32)


# Labels of each transform, in EDM's order.
TRANSFORMS: dict[str, Callable[[Drawn], tuple[PerSample, ...]]] = {
    "xflip": lambda drawn: (drawn.xflip,),
    "yflip": lambda drawn: (drawn.yflip,),
    "scale": lambda drawn: (drawn.scale,),
    "rotate": lambda drawn: (jnp.cos(drawn.rotate) - 1, jnp.sin(drawn.rotate)),
    "aniso": lambda drawn: (drawn.aniso * jnp.cos(drawn.aniso_angle), drawn.aniso * jnp.sin(drawn.aniso_angle)),
    "translate": lambda drawn: (drawn.translate_x, drawn.translate_y),
}
