"""The data set `scenes`: drawn objects with captions, whose truth can be read from the pixels. No download.

An image has one to `scene_objects` objects of five shapes, eight colours, up to three sizes and nine places, which are
drawn as they are needed: image i of a split is a function of (scene_seed, split, i).

    import numpy as np
    from score_sde import data

    source = data.load("scenes", train=True, image_size=32, num_channels=3, scene_objects=2)
    images, cond = source.take(np.arange(4))  # uint8 (4, 32, 32, 3); cond["attributes"], int32 (4, 2, 4)
    source.captions(np.arange(4))  # "a small red circle in the top left corner", ...
    source.scenes(np.arange(4))  # the truth, as `score_sde.data.scene_decoder.decode` reads it from the images

| split                      | images            | pairs of `scene_held_out`                        |
|----------------------------|-------------------|--------------------------------------------------|
| training                   | `scene_images`    | none                                             |
| evaluation, first half     | a tenth of these  | none                                             |
| evaluation, second half    | a tenth of these  | one object of each image; none in the others     |
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from score_sde.array_types import Int, Integer
from score_sde.config.arguments import check_arguments
from score_sde.data.scene_captions import PLACES, Scene, asked, caption
from score_sde.data.scene_drawing import NONE, attribute_names, draw, scenes
from score_sde.data.sources import Batch, Source, check_inside, hashed
from score_sde.errors import UsageError

HELD_OUT = ("red circle", "blue star", "green square", "white cross")
MOST = 3  # objects of an image
RAW = 16  # random numbers of an image: how many objects, an order of nine places, three objects, a caption
PAIRED = ("shape", "colour", "size")  # attributes that pairs are of
SAMPLED = 256  # images whose pixels and captions are in the digest


class Scenes(Source):
    """A split of scenes, drawn when they are asked for.

    image_size: 16 to 64 pixels. scene_objects: most objects of an image; each number is as frequent. scene_relations:
    whether captions say how objects lie. scene_held_out: pairs of shape, colour and size that no object has but for
    the second half of the evaluation split; "red circle", or any other words of captions. scene_images: of the training
    split. scene_seed: another one is another data set. The attribute `first_held_out` is the index at which that second
    half begins, or the number of images where there is none.

    Raises `UsageError` for another size, for images that are not RGB, and for a pair that is not two attributes.
    """

    digested = "scenes"
    labels = None

    @check_arguments
    def __init__(
        self,
        *,
        train: bool,
        image_size: int,
        num_channels: int = 3,
        image_width: int | None = None,
        scene_objects: Annotated[int, "[1, 3]"] = MOST,
        scene_relations: bool = True,
        scene_held_out: Sequence[str] = HELD_OUT,
        scene_images: Annotated[int, "[10, 4294967296)"] = 50_000,
        scene_seed: Annotated[int, "[0, 4294967296)"] = 0,
    ):
        _check_shape(image_size, image_width, num_channels)
        self.image_size, self.most, self.relations = image_size, scene_objects, scene_relations
        self._train, self._seed = train, scene_seed
        self._seen, self._held_out = _kinds(image_size, scene_held_out)
        tenth = scene_images // 10
        self._length = scene_images if train else tenth * (1 + bool(len(self._held_out)))
        self.first_held_out = self._length if train else tenth

    def __len__(self) -> int:
        return self._length

    @property
    def cond_entries(self) -> tuple[str, ...]:
        """The one entry: attributes, int32 (b, scene_objects, 4), see `score_sde.data.scene_drawing.numbers`."""
        return ("attributes",)

    def take(self, indices: np.ndarray) -> Batch:
        attributes = self.attributes(indices)
        return Batch(draw(attributes, self.image_size), {"attributes": attributes})

    @check_arguments
    def attributes(self, indices: Integer[np.ndarray, " b"]) -> Int[np.ndarray, "b most 4"]:
        """The numbers of shape, colour, size and place of the objects, in the order of places; -1 where none is."""
        raw = self._raw(indices)
        count = 1 + _below(raw[:, 0], self.most)
        where = np.argsort(raw[:, 1:10], axis=1)[:, : self.most]  # keys of nine places, in random order
        kinds = self._seen[_below(raw[:, 10 : 10 + self.most], len(self._seen))]
        of_held_out = np.asarray(indices) >= self.first_held_out
        kinds[of_held_out, 0] = self._held_out[_below(raw[of_held_out, 10], max(1, len(self._held_out)))]
        where[np.arange(self.most) >= count[:, None]] = len(PLACES)  # after the others
        order = np.argsort(where, axis=1)
        result = np.take_along_axis(np.concatenate([kinds, where[..., None]], axis=2), order[..., None], axis=1)
        result[result[..., 3] == len(PLACES)] = NONE
        return result.astype(np.int32)

    @check_arguments
    def scenes(self, indices: Integer[np.ndarray, " b"]) -> list[Scene]:
        """The objects of images, in the order of places."""
        return scenes(self.attributes(indices), self.image_size)

    def captions(self, indices: np.ndarray) -> list[str]:
        numbers = self._raw(indices)[:, 10 + MOST].tolist()
        return [caption(each, i, self.relations) for each, i in zip(self.scenes(indices), numbers, strict=True)]

    def digest(self) -> str:
        """The digest of the split's options, and of its first 256 images and captions."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        part = np.arange(min(SAMPLED, len(self)))
        kinds = [self._seen.tolist(), self._held_out.tolist()]
        facts = [len(self), self._train, self._seed, self.most, kinds, self.captions(part)]
        return hashed(facts, self.take(part).images)

    def _raw(self, indices: np.ndarray) -> np.ndarray:
        """Random numbers of images, uint64 (b, 16): the bits of a generator of each image's own."""
        check_inside(indices, len(self))
        generators = (np.random.PCG64([self._seed, int(not self._train), i]) for i in np.asarray(indices).tolist())
        return np.array([each.random_raw(RAW) for each in generators], np.uint64).reshape(-1, RAW)


@check_arguments
def pairs(of: Sequence[str]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Pairs of attributes from words: (("shape", "circle"), ("colour", "red")) for "red circle".

    Raises `UsageError` unless each names two of shape, colour and size.
    """
    return [_pair(each) for each in of]


def _pair(words: str) -> tuple[tuple[str, str], tuple[str, str]]:
    try:
        objects, relations = asked(words)
    except UsageError as error:
        raise UsageError(f"data.scene_held_out: {error}") from None
    named = [(kind, value) for each in objects for kind, value in each._asdict().items() if value is not None]
    if len(objects) != 1 or relations or len(named) != 2 or not {kind for kind, _ in named} <= set(PAIRED):
        raise UsageError(
            f"data.scene_held_out: '{words}' is not a pair; name two of shape, colour and size, as in 'red circle'."
        )
    return tuple(named)


def _check_shape(image_size: int, image_width: int | None, num_channels: int) -> None:
    if not 16 <= image_size <= 64:
        raise UsageError(f"data.image_size={image_size}: scenes have 16 to 64 pixels; choose one of these sizes.")
    if image_width not in (None, image_size):
        raise UsageError(f"data.image_width={image_width}: scenes are squares; leave it out.")
    if num_channels != 3:
        raise UsageError(f"data.num_channels={num_channels}: scenes are in colour; set data.num_channels=3.")


def _kinds(image_size: int, held_out: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of shape, colour and size of objects without a held-out pair, and of those with one: int (n, 3)."""
    names = {kind: attribute_names(image_size)[kind] for kind in PAIRED}
    kinds = np.array(list(itertools.product(*(range(len(each)) for each in names.values()))))
    left_out = np.zeros(len(kinds), bool)
    for pair in pairs(held_out):
        if absent := [value for kind, value in pair if value not in names[kind]]:
            raise UsageError(
                f"data.scene_held_out names the size {absent[0]}, and scenes of {image_size} pixels have "
                f"{' and '.join(names['size'])}; leave it out."
            )
        left_out |= np.all([kinds[:, PAIRED.index(kind)] == names[kind].index(value) for kind, value in pair], axis=0)
    if left_out.all():
        raise UsageError("data.scene_held_out leaves no object to train on; hold out fewer pairs.")
    return kinds[~left_out], kinds[left_out]


def _below(raw: np.ndarray, n: int) -> np.ndarray:
    """Integers 0..n-1 from 64 random bits each, with equal probabilities up to n / 2^32."""
    return ((raw >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.int64)
