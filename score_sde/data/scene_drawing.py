"""Drawing of scenes: shapes on a grid of 3x3 places, anti-aliased, in the corners of the RGB cube on its middle.

Each place is a rectangle of whole pixels, and an object stays inside its own, so that no pixel belongs to two objects.
A colour is 128 +- 127 in each channel, so that every colour differs as much from the grey of the background.

    import numpy as np

    from score_sde.data.scene_captions import Object
    from score_sde.data.scene_drawing import draw, numbers

    scene = (Object("circle", "red", "small", "top left"), Object("star", "blue", "large", "right"))
    images = draw(numbers([scene], 32, most=2), 32)  # uint8 (1, 32, 32, 3)
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np

from score_sde.array_types import Int, UInt8
from score_sde.config.arguments import check_arguments
from score_sde.data.scene_captions import PLACES, Object, Scene
from score_sde.errors import UsageError, one_of

Size = Annotated[int, "[16, 64]"]
Coverage = np.ndarray
GREY, CONTRAST = 128, 127
SUBPIXELS = 8  # along a pixel's side, by which its coverage is counted
NONE = -1  # attributes of an object that is not there
# Two objects in one place differ by this distance at least, for black 0 and white 1. An error of standard deviation
# 0.05 in each number then leads from one past the middle to the other with a probability of 3e-7 (5 deviations).
APART = 0.5

COLOURS = {
    "black": (-1, -1, -1),
    "white": (1, 1, 1),
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "magenta": (1, -1, 1),
    "cyan": (-1, 1, 1),
}
# Half an object's width, where half a place's is 1. An image has the first of these sets that `APART` allows.
SCALES = ({"small": 0.5, "medium": 0.75, "large": 1.0}, {"small": 0.7, "large": 1.0})


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A star of five points, whose inner corners are at 0.4 of its radius: as many edges as are crossed, odd inside."""
    angles, radius = np.pi * (0.5 + np.arange(10) / 5), np.where(np.arange(10) % 2, 0.4, 1.0)
    x, y, inside = radius * np.cos(angles), -radius * np.sin(angles), np.zeros(u.shape, bool)
    for i in range(10):  # no edge is horizontal
        crossing = x[i] + (v - y[i]) * (x[i - 1] - x[i]) / (y[i - 1] - y[i])
        inside ^= ((y[i] > v) != (y[i - 1] > v)) & (u < crossing)
    return inside


# Whether a point is inside, where u goes to the right, v down, and the object is in [-1, 1] x [-1, 1].
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: u**2 + v**2 <= 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 1,
    "triangle": lambda u, v: (abs(v) <= 1) & (2 * abs(u) <= v + 1),
    "star": _star,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.25) & (np.maximum(abs(u), abs(v)) <= 1),
}


@check_arguments
def edges(image_size: Size) -> tuple[int, ...]:
    """The rows, and columns, at which the three places along a side begin, and the last one's end."""
    return tuple(round(i * image_size / 3) for i in range(4))


@functools.cache
def sizes(image_size: int) -> dict[str, float]:
    """The sizes of objects that images of so many pixels tell apart, and their scale: two below 21 pixels, then three.

    Raises `UsageError` unless image_size is 16 to 64.
    """
    return next(scales for scales in SCALES if distance(image_size, tuple(scales.values())) >= APART)


@check_arguments
def distance(image_size: Size, scales: tuple[float, ...]) -> float:
    """The smallest Euclidean distance of two objects of one colour in one place, for black 0 and white 1.

    Objects of two colours, and an object and none, differ by more.
    """
    return min(
        np.linalg.norm(first - second) * 3**0.5 * CONTRAST / 255
        for height, width in set(itertools.product(np.diff(edges(image_size)).tolist(), repeat=2))
        for first, second in itertools.combinations(
            [cover for each in _coverage(height, width, image_size // 3, scales) for cover in each], 2
        )
    )


@functools.cache
def covered(image_size: int) -> tuple[np.ndarray, ...]:
    """The levels by which an object changes each pixel of a place, 0 to 127: int16 (shapes, sizes, h, w) by place."""
    sides, scales = np.diff(edges(image_size)).tolist(), tuple(sizes(image_size).values())
    return tuple(
        np.rint(CONTRAST * _coverage(height, width, image_size // 3, scales)).astype(np.int16)
        for height, width in itertools.product(sides, repeat=2)
    )


@functools.cache
def _coverage(height: int, width: int, diameter: int, scales: tuple[float, ...]) -> np.ndarray:
    """The part of each pixel that an object in the middle covers, (shapes, sizes, h, w)."""
    v, u = (2 * ((np.arange(n * SUBPIXELS) + 0.5) / SUBPIXELS - n / 2) / diameter for n in (height, width))
    grid = np.meshgrid(u, v)
    inside = np.array([[shape(grid[0] / scale, grid[1] / scale) for scale in scales] for shape in SHAPES.values()])
    return inside.reshape(*inside.shape[:2], height, SUBPIXELS, width, SUBPIXELS).mean((3, 5))


@check_arguments
def draw(attributes: Int[np.ndarray, "n most 4"], image_size: Size) -> UInt8[np.ndarray, "n image_size image_size 3"]:
    """The images of scenes, uint8 (n, image_size, image_size, 3).

    attributes: numbers of shape, colour, size and place, see `numbers`.
    """
    images = np.full((len(attributes), image_size, image_size, 3), GREY, np.uint8)
    ends, colours = edges(image_size), np.array(list(COLOURS.values()), np.int16)
    for place, covers in enumerate(covered(image_size)):
        row, column = divmod(place, 3)
        which, slot = np.nonzero(attributes[..., 3] == place)
        shape, colour, size, _ = attributes[which, slot].T
        pixels = GREY + covers[shape, size][..., None] * colours[colour][:, None, None]
        images[which, ends[row] : ends[row + 1], ends[column] : ends[column + 1]] = pixels
    return images


@check_arguments
def numbers(
    scenes: Sequence[Scene], image_size: Size, most: Annotated[int, "[1, 9]"] = 3
) -> Int[np.ndarray, "n most 4"]:
    """Scenes as arrays: shape, colour, size and place of up to `most` objects, int32 (n, most, 4); -1 where none is.

    They count from 0 in the order of `attribute_names`. Raises `UsageError` for an
    attribute that is not among them, and for too many objects.
    """
    names, result = attribute_names(image_size), np.full((len(scenes), most, 4), NONE, np.int32)
    for i, scene in enumerate(scenes):
        if len(scene) > most:
            raise UsageError(f"A scene has {len(scene)} objects, and most={most}; set most={len(scene)}.")
        for j, each in enumerate(scene):
            result[i, j] = [
                of_kind.index(one_of(f"{kind} at {image_size} pixels", getattr(each, kind), of_kind))
                for kind, of_kind in names.items()
            ]
    return result


@check_arguments
def scenes(attributes: Int[np.ndarray, "n most 4"], image_size: Size) -> list[Scene]:
    """The scenes of arrays as `numbers` makes them, in the order of their objects."""
    names = list(attribute_names(image_size).values())
    return [
        tuple(Object(*(of_kind[i] for of_kind, i in zip(names, each, strict=True))) for each in rows if each[0] != NONE)
        for rows in attributes.tolist()
    ]


@check_arguments
def attribute_names(image_size: Size) -> dict[str, tuple[str, ...]]:
    """The values of each attribute at an image size, in the order of their numbers."""
    return {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "size": tuple(sizes(image_size)), "place": PLACES}
