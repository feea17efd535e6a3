"""The captions that samples are asked for, and those between which a classifier chooses."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from score_sde import data
from score_sde.config import AnyConfig
from score_sde.data.scene_captions import WORDS, Object, asked
from score_sde.data.scene_drawing import COLOURS, attribute_names
from score_sde.data.scenes import pairs
from score_sde.errors import UsageError
from score_sde.training.run import load_data

HALVES = ("seen", "held_out")
OF_HALVES = {"seen": "seen", "held_out": "held-out"}


class Shown(NamedTuple):
    """Captions of the pictures on the page. swaps: pairs under one noise. negative: a caption and a negative one.

    between: two captions from the first of which pictures go to the second.
    """

    swaps: tuple[tuple[str, str], ...] = ()
    negative: tuple[tuple[str, str], ...] = ()
    between: tuple[tuple[str, str], ...] = ()


# Swaps name shape and colour alone, so that place and size are the noise's choice. None of these pairs is held out.
OF_SCENES = Shown(
    swaps=(
        ("a red square", "a red triangle"),
        ("a blue circle", "a blue square"),
        ("a yellow star", "a yellow cross"),
        ("a red square", "a yellow square"),
        ("a green circle", "a cyan circle"),
        ("a black triangle", "a blue triangle"),
        ("a red square", "a cyan square"),
        ("a green circle", "a magenta circle"),
        ("a black triangle", "a white triangle"),
    ),
    negative=(("a star", "a small star"), ("a red object", "a red star")),
    between=(
        ("a large red square in the centre", "a large blue square in the centre"),
        ("a small cyan star on the left", "a small cyan star on the right"),
        ("a large green circle", "a large yellow cross"),
    ),
)
SHOWN = {
    "scenes": OF_SCENES,
    "scenes_three": OF_SCENES._replace(
        between=(
            *OF_SCENES.between[:2],
            ("a red square left of a blue circle", "a blue circle left of a red square"),
        )
    ),
    "openmoji": Shown(
        negative=(("red heart", "blue heart"), ("cat face", "dog face")),
        between=(("red apple", "green apple"), ("sun", "full moon"), ("cat face", "dog face")),
    ),
}


def is_scenes(config: AnyConfig) -> bool:
    """Whether the pictures of a config are scenes, which can be read exactly."""
    return config.data.dataset == "scenes"


def of_halves(config: AnyConfig, n: int) -> dict[str, list[str]]:
    """The captions of each half, "seen" and "held_out", at most n.

    Those of scenes are of the evaluation split, and each held-out caption names a held-out pair of attributes. Those of
    other data sets are of the training split and of the evaluation split.
    """
    if not is_scenes(config):
        return {half: list(source.captions(indices)) for half, (source, indices) in asked_pictures(config, n).items()}
    source = load_data(config, train=False)
    first, held_out = source.first_held_out, held_out_pairs(config)
    captions = source.captions(np.arange(first, len(source)))
    naming = [caption for caption in captions if held_out & set(named_pairs(caption))]
    return {"seen": source.captions(np.arange(min(n, first))), "held_out": naming[:n]}


def asked_pictures(config: AnyConfig, n: int) -> dict[str, tuple[data.Source, np.ndarray]]:
    """The split of each half, and the numbers of the pictures whose captions `of_halves` gives; not for scenes."""
    splits = {half: load_data(config, train=half == "seen") for half in HALVES}
    return {half: (source, data.part_of(len(source), n)) for half, source in splits.items()}


def held_out_pairs(config: AnyConfig) -> set[tuple[str, str]]:
    """The pairs of shape and colour that no training image has."""
    of = [dict(pair) for pair in pairs(config.data.scene_held_out)]
    return {(each["shape"], each["colour"]) for each in of if each.keys() == {"shape", "colour"}}


def named_pairs(caption: str) -> list[tuple[str, str]]:
    """The shape and the colour of each object of which a caption names both.

    from score_sde.experiments.text.prompts import named_pairs

    assert named_pairs("a small red circle and a star") == [("circle", "red")]
    """
    objects, _ = asked(caption)
    return [(each.shape, each.colour) for each in objects if each.shape and each.colour]


def changed(first: str, second: str) -> str:
    """The difference of two captions of one object: its shape, or so many of the three channels of its colour.

    from score_sde.experiments.text.prompts import changed

    assert changed("a red star", "a cyan star") == "the colour, in 3 of 3 channels"
    """
    (before,), (after,) = (asked(caption).objects for caption in (first, second))
    if before.shape != after.shape:
        return "the shape"
    channels = zip(COLOURS[before.colour], COLOURS[after.colour], strict=True)
    return f"the colour, in {sum(a != b for a, b in channels)} of 3 channels"


def described(of: Object) -> str:
    """The caption that names all attributes of an object, by the first words of each.

    from score_sde.data.scene_captions import Object
    from score_sde.experiments.text.prompts import described

    assert described(Object("star", "red", "small", "top")) == "a small red star at the top"
    """
    if None in of:
        raise UsageError(f"{of} lacks an attribute, and a caption that names all of them needs it; name each.")
    size, colour, shape, place = (WORDS[kind][getattr(of, kind)][0] for kind in ("size", "colour", "shape", "place"))
    return f"a {size} {colour} {shape} {place}"


def candidates(of: Object, attribute: str, image_size: int) -> tuple[list[str], int]:
    """Captions with every value of one attribute, the others being the object's own; and the number of the true one."""
    values = attribute_names(image_size)[attribute]
    return [described(of._replace(**{attribute: value})) for value in values], values.index(getattr(of, attribute))


def in_turn(options: Sequence[tuple[str, str]], n: int) -> tuple[list[str], list[str]]:
    """The first and the second captions of n pairs: the options in turn."""
    chosen = [options[i % len(options)] for i in range(n)]
    return [first for first, _ in chosen], [second for _, second in chosen]
