"""The exact decoder of scenes: from an image to the objects in it, without a network.

Each place of the image is compared with all objects that can be there, and with the background. The nearest is taken,
by least squares. Where even that is farther than `TOLERANCE`, the image is no scene.

    import numpy as np

    from score_sde.data.scene_captions import Object
    from score_sde.data.scene_decoder import decode
    from score_sde.data.scene_drawing import draw, numbers

    scene = (Object("circle", "red", "small", "top left"), Object("star", "blue", "large", "right"))
    noise = np.random.default_rng(0).uniform(size=(1, 32, 32, 3))
    decode(draw(numbers([scene], 32), 32))  # [scene]
    decode(noise)  # [None]
    decode(np.full((1, 32, 32, 3), 0.5))  # [()], a background without objects
"""

import math

import numpy as np

from score_sde.array_types import Int, Shaped
from score_sde.config.arguments import check_arguments
from score_sde.data import scene_drawing
from score_sde.data.scene_captions import PLACES, Scene
from score_sde.data.scene_drawing import COLOURS, GREY, NONE, covered, edges
from score_sde.errors import UsageError

UNREADABLE = -2
# Root of the mean squared difference from the nearest object, over the numbers of a place, for black 0 and white 1.
# Uniform noise differs from the middle grey by 1 / sqrt(12); half of that is as far from noise as from a scene.
TOLERANCE = 0.5 / 12**0.5


@check_arguments
def decode(images: Shaped[np.ndarray, "n side side 3"], strict: bool = True) -> list[Scene | None]:
    """The objects of each image, in the order of their places; None for an image that is no scene.

    images: of 16 to 64 pixels, uint8, or float with black 0 and white 1, beyond which they are clipped. strict: whether
    an image with a place that is farther than `TOLERANCE` from all objects is None; otherwise each place has its
    nearest object. Raises `UsageError` for other sizes and types.
    """
    read = places(images, strict)
    numbers = np.broadcast_to(np.arange(len(PLACES), dtype=np.int32)[:, None], (*read.shape[:2], 1))
    scenes = scene_drawing.scenes(np.concatenate([read, numbers], axis=2), images.shape[1])
    readable = (read != UNREADABLE).all(axis=(1, 2))
    return [scene if good else None for scene, good in zip(scenes, readable, strict=True)]


@check_arguments
def places(images: Shaped[np.ndarray, "n side side 3"], strict: bool = True) -> Int[np.ndarray, "n 9 3"]:
    """The shape, colour and size at each place of each image, int32 (n, 9, 3), by rows of places.

    They are numbered as by `score_sde.data.scene_drawing.numbers`; -1 where there is no object, and -2 where a strict
    decoder reads nothing. Arguments and errors are those of `decode`.
    """
    size, levels = images.shape[1], _levels(images)
    colours, ends = np.array(list(COLOURS.values()), np.float32), edges(size)
    result = np.empty((len(images), len(PLACES), 3), np.int32)
    for place, covers in enumerate(covered(size)):
        row, column = divmod(place, 3)
        pixels = levels[:, ends[row] : ends[row + 1], ends[column] : ends[column + 1]]
        covers = covers.astype(np.float32)  # (shapes, sizes, h, w)
        products = np.tensordot(pixels, covers, ((1, 2), (2, 3)))  # (n, 3, shapes, sizes)
        products = np.tensordot(products, colours, (1, 1))  # (n, shapes, sizes, colours)
        # Squared distances of the objects, less that of the background.
        gains = 3 * np.square(covers).sum(axis=(2, 3))[..., None] - 2 * products
        flat = gains.reshape(len(gains), math.prod(gains.shape[1:]))
        shape, scale, colour = np.unravel_index(flat.argmin(axis=1), gains.shape[1:])
        least = np.minimum(flat.min(axis=1), 0)
        result[:, place] = np.where(least[:, None] < 0, np.stack([shape, colour, scale], axis=1), NONE)
        if strict:
            errors = np.square(pixels).sum(axis=(1, 2, 3)) + least
            result[~(errors <= pixels[:1].size * (255 * TOLERANCE) ** 2), place] = UNREADABLE  # also NaN
    return result


def _levels(images: np.ndarray) -> np.ndarray:
    """The images as levels of 0 to 255 less the background's, float32."""
    side = images.shape[1]
    if not 16 <= side <= 64:
        raise UsageError(f"Scenes have 16 to 64 pixels, and these images are {side}x{side}; resize them.")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise UsageError(f"Scenes are read from uint8 or float images, and not from {images.dtype}; convert these.")
    levels = images if images.dtype == np.uint8 else 255 * np.clip(images, 0, 1)
    return levels.astype(np.float32) - GREY
