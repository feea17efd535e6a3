"""The judge of scenes: what a caption asks for, against what the exact decoder reads from the picture.

Figures of a picture are counts (right, named), by attribute, and so are those of many pictures:

| figure                                   | right                                                                   |
|------------------------------------------|-------------------------------------------------------------------------|
| `shape`, `colour`, `size`, `place`       | attributes that the caption names and the objects have                  |
| `relation`                               | relations that hold, as "left of"                                       |
| `count`                                  | pictures with as many objects as the caption mentions                   |
| `pair`                                   | objects that are there, of those named by shape and colour              |
| `together`                               | pictures that have all that the caption says                            |

In a caption with a held-out pair, `pair` counts held-out pairs alone.
"""

import itertools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from score_sde.experiments.text.prompts import named_pairs

from score_sde.array_types import Float, Integer, Pixels
from score_sde.audit import intervals
from score_sde.data.scene_captions import Asked, Object, Scene, agreement, asked, lies
from score_sde.data.scene_decoder import decode
from score_sde.data.scene_drawing import attribute_names

FIGURES = ("shape", "colour", "size", "place", "relation", "count", "pair", "together")
SHIFTS = 8  # by how many captions the pictures are moved, for the chance of each figure
PERMUTATIONS = 9999
Counts = dict[str, tuple[int, int]]
Pairs = Collection[tuple[str, str]]


def counts(caption: str, scene: Scene | None, held_out: Pairs = ()) -> Counts:
    """The figures of one picture. scene: as the decoder read it, None if it is no scene.

    from score_sde.data.scene_captions import Object
    from score_sde.experiments.text.judge import counts

    of = counts("a small red circle", (Object("circle", "red", "large", "top"),))
    assert of["colour"] == (1, 1) and of["size"] == (0, 1) and of["place"] == (0, 0)
    assert of["pair"] == (1, 1) and of["together"] == (0, 1)
    """
    return _counts(asked(caption), _pairs(caption, held_out), scene)


def _counts(of: Asked, wanted: Sequence[tuple[str, str]], scene: Scene | None) -> Counts:
    result = agreement(of, scene)
    everything = all(right == named for right, named in result.values())
    there = {(each.shape, each.colour) for each in scene or ()}
    result["pair"] = sum(each in there for each in wanted), len(wanted)
    return result | {"together": (int(everything), 1)}


def _pairs(caption: str, held_out: Pairs) -> list[tuple[str, str]]:
    named = named_pairs(caption)
    return [each for each in named if each in held_out] or named


def assigned(of: Asked, scene: Scene) -> Scene:
    """The object of a scene for each one of a caption, so that as much as possible is right; empty if it lacks some.

    from score_sde.data.scene_captions import Object, asked
    from score_sde.experiments.text.judge import assigned

    scene = (Object("circle", "red", "small", "left"), Object("star", "blue", "small", "right"))
    assert assigned(asked("a star and a red object"), scene) == scene[::-1]
    """
    present = [*scene, *[Object()] * max(0, len(of.objects) - len(scene))]

    def right(objects: Scene) -> int:
        attributes = (a == b for pair in zip(of.objects, objects, strict=True) for a, b in zip(*pair, strict=True) if a)
        return sum(attributes) + sum(lies(objects[i], relation, objects[j]) for i, relation, j in of.relations)

    return max(itertools.permutations(present, len(of.objects)), key=right)


def total(of: Sequence[Counts]) -> Counts:
    """The figures of many pictures, added up."""
    return {name: tuple(sum(each[name][i] for each in of) for i in (0, 1)) for name in FIGURES}


def judged(captions: Sequence[str], pixels: Pixels, held_out: Pairs = ()) -> dict[str, Any]:
    """The figures of pictures as shares with intervals and chances, and the share of pictures that are no scenes.

    "chance": the share if each picture had the caption of another one. "uniform": one over the number of values.
    """
    scenes = decode(pixels)
    questions = [(asked(caption), _pairs(caption, held_out)) for caption in captions]
    own = total([_counts(*question, scene) for question, scene in zip(questions, scenes, strict=True)])
    shuffled = [
        _counts(*question, scene)
        for shift in range(1, min(SHIFTS, len(captions) - 1) + 1)
        for question, scene in zip(questions, scenes[shift:] + scenes[:shift], strict=True)
    ]
    chance, values = total(shuffled), attribute_names(pixels.shape[1])
    figures = {
        name: share(*own[name])
        | {"chance": share(*chance[name])["share"], "uniform": 1 / len(values[name]) if name in values else None}
        for name in FIGURES
    }
    return {"figures": figures, "unreadable": share(sum(scene is None for scene in scenes), len(scenes))}


def share(right: int, n: int) -> dict[str, Any]:
    """The share of n that is right, and its 95 % interval by Wilson (1927); None for n = 0.

    from score_sde.experiments.text.judge import share

    of = share(9, 10)
    assert of["share"] == 0.9 and round(of["low"], 3) == 0.596 and round(of["high"], 3) == 0.982
    """
    if not n:
        return {"right": 0, "n": 0, "share": None, "low": None, "high": None}
    return {"right": right, "n": n} | dict(zip(("share", "low", "high"), intervals.share(right, n), strict=True))


class Same(NamedTuple):
    """The share of n pairs with equal values, the share by chance, and the probability p of so many by chance."""

    n: int
    share: float | None
    chance: float | None
    p: float | None


def same(
    first: Integer[np.ndarray, " n"], second: Integer[np.ndarray, " n"], groups: Integer[np.ndarray, " n"]
) -> Same:
    """The share of pairs with equal values, against pairs put together at random within their groups.

    The chance is the sum of the products of the shares of each value, group by group. p is that of a permutation test
    with 9,999 permutations: the share of arrangements, the real one among them, with as many equal pairs or more.

        import numpy as np
        from score_sde.experiments.text.judge import same

        x = np.arange(60) % 3
        assert same(x, x, np.zeros(60, int)).p < 1e-3
    """
    if not len(first):
        return Same(0, None, None, None)
    rng, equal, expected = np.random.default_rng(0), np.zeros(PERMUTATIONS, int), 0.0
    for group in np.unique(groups):
        a, b = first[groups == group], second[groups == group]
        expected += sum((a == value).sum() * (b == value).mean() for value in np.unique(a))
        equal += (rng.permuted(np.tile(b, (PERMUTATIONS, 1)), axis=1) == a).sum(axis=1)
    observed = int((first == second).sum())
    p = (1 + int((equal >= observed).sum())) / (1 + PERMUTATIONS)
    return Same(len(first), observed / len(first), float(expected) / len(first), p)


def swapped(first: Sequence[str], second: Sequence[str], pixels: tuple[Pixels, Pixels]) -> dict[str, Any]:
    """The figures of pairs of pictures under one noise and two captions: are place and size, which none names, equal?

    Of these, pairs count in which both pictures were read and have one object. "right": pictures with all that their
    caption says. "same": by attribute, as of `Same`.
    """
    scenes = [decode(each) for each in pixels]
    sides = zip([*first, *second], [*scenes[0], *scenes[1]], strict=True)
    right = [counts(caption, scene)["together"][0] for caption, scene in sides]
    alone = [scene and len(scene) == 1 and other and len(other) == 1 for scene, other in zip(*scenes, strict=True)]
    objects = [(scene[0], other[0]) for scene, other, kept in zip(*scenes, alone, strict=True) if kept]
    kinds = sorted(map(list, {*zip(first, second, strict=True)}))
    groups = np.array([kinds.index(pair) for *pair, kept in zip(first, second, alone, strict=True) if kept], int)
    values = attribute_names(pixels[0].shape[1])
    equal = {}
    for attribute in ("place", "size"):
        numbers = [[values[attribute].index(getattr(each, attribute)) for each in pair] for pair in objects]
        a, b = np.array(numbers, int).reshape(-1, 2).T
        equal[attribute] = same(a, b, groups)._asdict()
    return {"pairs": len(first), "right": share(sum(right), len(right)), "same": equal}


def avoided(negative: str, pixels: Pixels) -> dict[str, Any]:
    """The share of pictures in which all is there that a negative caption names, and more objects are no obstacle."""
    of = asked(negative)
    shown = [
        all(a == b for name, (a, b) in agreement(of, scene).items() if name != "count") for scene in decode(pixels)
    ]
    return share(sum(shown), len(shown))


def chosen(log_likelihoods: Float[np.ndarray, "n k"], truth: Integer[np.ndarray, " n"]) -> dict[str, Any]:
    """The Bayes classifier's share of right choices, with its interval and its chance, 1 / k.

    import numpy as np
    from score_sde.experiments.text.judge import chosen

    assert chosen(np.array([[-1.0, -2.0], [-5.0, -4.0]]), np.array([0, 0]))["share"] == 0.5
    """
    right = int((log_likelihoods.argmax(axis=1) == truth).sum())
    return share(right, len(truth)) | {"chance": 1 / log_likelihoods.shape[1]}
