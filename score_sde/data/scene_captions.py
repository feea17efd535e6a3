"""Captions of scenes: one table of words, from which captions are written and by which they are read.

A caption names objects, joined by commas and "and", or by a relation; an object is [article] [size] [colour] shape
[place], and each part may be left out:

    a small red circle in the top left corner
    one tiny crimson disc and a star
    a red circle left of a blue star, and an object at the bottom

    from score_sde.data.scene_captions import Object, asked, caption

    scene = (Object("circle", "red", "small", "top left"), Object("star", "blue", "large", "right"))
    text = caption(scene, 7)  # a function of the scene and the number
    objects, relations = asked("a red circle left of a blue star")
    objects[0]  # Object(shape='circle', colour='red', size=None, place=None)
    relations  # ((0, 'left of', 1),)
"""

import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError, nearest


class Object(NamedTuple):
    """An object of a scene by its attributes, or the part of them that a caption names: the others are None."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    place: str | None = None


Scene = tuple[Object, ...]
Relation = tuple[int, str, int]


class Asked(NamedTuple):
    """The content of a caption.

    objects: in the order in which it mentions them. relations: (0, "left of", 1) for the first object left of the
    second; each is one of `ORDERS`.
    """

    objects: Scene
    relations: tuple[Relation, ...] = ()


# The phrases of each value, by attribute. The keys are the names in `Object`; captions may also have them as they are.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle", "pyramid"),
        "star": ("star", "five-pointed star"),
        "cross": ("cross", "plus sign"),
    },
    "colour": {
        "black": ("black", "jet-black"),
        "white": ("white", "snow-white"),
        "red": ("red", "crimson"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "yellow": ("yellow", "golden"),
        "magenta": ("magenta", "pink"),
        "cyan": ("cyan", "turquoise"),
    },
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium", "medium-sized", "middling"),
        "large": ("large", "big", "huge"),
    },
    # By rows, as the places are numbered.
    "place": {
        "top left": ("in the top left corner", "at the top left", "in the upper left corner"),
        "top": ("at the top", "in the top middle", "at the upper edge"),
        "top right": ("in the top right corner", "at the top right", "in the upper right corner"),
        "left": ("on the left", "on the left side", "at the left edge"),
        "centre": ("in the centre", "in the middle", "in the center"),
        "right": ("on the right", "on the right side", "at the right edge"),
        "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left corner"),
        "bottom": ("at the bottom", "in the bottom middle", "at the lower edge"),
        "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right corner"),
    },
}
ANY_SHAPE = ("object", "shape", "thing")  # nouns of an object whose shape is not named
ARTICLES = ("a", "one")  # "a" is written "an" before a vowel
JOINS = (",", "and", ", and", "with")
INVERSE = {"left of": "right of", "above": "below"}
ORDERS = tuple(INVERSE)
SAID = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
PLACES = tuple(WORDS["place"])

# Phrases that are read -> (kind, value).
_READ: dict[str, tuple[str, Any]] = {
    **{word: (kind, value) for kind, values in WORDS.items() for value in values for word in (value, *values[value])},
    **{word: ("relation", relation) for relation, words in SAID.items() for word in words},
    **dict.fromkeys((*ARTICLES, "an", "the"), ("article", None)),
    **dict.fromkeys(ANY_SHAPE, ("noun", None)),
    **dict.fromkeys(JOINS, ("join", None)),
}
_PHRASE = re.compile(rf"\s*({'|'.join(map(re.escape, sorted(_READ, key=len, reverse=True)))})(?![\w-])")
Number = Annotated[int, "[0, 18446744073709551616)"]


class _Choices:
    """Choices that a number makes, each by the remainder of a division, so that a number stands for all of them."""

    def __init__(self, number: int):
        self.number = number

    def of(self, options: Sequence[Any]) -> Any:
        self.number, i = divmod(self.number, len(options))
        return options[i]


@check_arguments
def caption(scene: Scene, number: Number, relations: bool = True) -> str:
    """The caption of a scene that has this number: it mentions every object, and what it says of them is true.

    number: makes all choices; uniform in 64 bits, half of the captions name all attributes, and the others any part of
    them. relations: whether half of the captions of two or more objects say how two of them lie, in place of the places
    of these two.
    """
    choices = _Choices(number)
    return _written(_named(scene, choices, relations), choices)


@check_arguments
def asked(caption: str) -> Asked:
    """The objects, attributes and relations that a caption names; upper case and a full stop make no difference.

    Raises `UsageError` for a word that is not in `WORDS`, an object with two colours, say, and a caption with nothing
    on one side of "and" or of a relation.
    """
    mentions: list[dict[str, str | None]] = [{}]
    relations: list[Relation] = []
    for kind, value in _phrases(caption):
        if kind == "relation":
            relations.append(_ordered(len(mentions) - 1, value, len(mentions)))
        if kind in ("join", "relation"):
            mentions.append({})
        elif kind in mentions[-1]:
            raise UsageError(f"'{caption}' names two {kind}s for one object; put 'and' between two objects.")
        else:
            mentions[-1][kind] = value
    if not all(mentions) and mentions != [{}]:
        raise UsageError(f"'{caption}' lacks an object before or after 'and', a comma or a relation; name one there.")
    objects = [Object(*(mention.get(name) for name in Object._fields)) for mention in mentions if mention]
    return Asked(tuple(objects), tuple(relations))


@check_arguments
def agreement(of: Asked, scene: Scene | None) -> dict[str, tuple[int, int]]:
    """The attributes that a caption names and that a scene has: (right, named) for each attribute.

    Also "relation", and "count": whether the scene has as many objects as the caption. Objects are assigned to those of
    the caption so that as much as possible is right. scene: what `score_sde.data.scene_decoder.decode` read; None has
    nothing right.
    """
    present = list(scene or ()) + [Object()] * max(0, len(of.objects) - len(scene or ()))
    best = max((_right(of, each) for each in itertools.permutations(present, len(of.objects))), key=_total)
    return best | {"count": (int(scene is not None and len(scene) == len(of.objects)), 1)}


@check_arguments
def lies(first: Object, relation: str, second: Object) -> bool:
    """Whether a relation of `ORDERS` holds between two objects; False where the place of one is None."""
    return _lies(first, relation, second)


def _lies(first: Object, relation: str, second: Object) -> bool:  # of millions of captions, unchecked
    if first.place is None or second.place is None:
        return False
    (row, column), (other_row, other_column) = (divmod(PLACES.index(each.place), 3) for each in (first, second))
    return column < other_column if relation == "left of" else row < other_row


def _right(of: Asked, present: Scene) -> dict[str, tuple[int, int]]:
    counts = {}
    for name in Object._fields:
        pairs = [(getattr(want, name), getattr(have, name)) for want, have in zip(of.objects, present, strict=True)]
        counts[name] = (sum(a is not None and a == b for a, b in pairs), sum(a is not None for a, _ in pairs))
    holding = [_lies(present[i], relation, present[j]) for i, relation, j in of.relations]
    return counts | {"relation": (sum(holding), len(holding))}


def _total(counts: dict[str, tuple[int, int]]) -> int:
    return sum(right for right, _ in counts.values())


def _named(scene: Scene, choices: _Choices, relations: bool) -> Asked:
    """The part of a scene that a caption names."""
    objects = list(choices.of(list(itertools.permutations(scene))))
    everything, related = choices.of((True, False)), relations and len(objects) > 1 and choices.of((True, False))
    said = ()
    if related:
        true = [(i, order, 1 - i) for i in (0, 1) for order in ORDERS if _lies(objects[i], order, objects[1 - i])]
        said = (choices.of(true),)
        objects[:2] = [each._replace(place=None) for each in objects[:2]]
    if not everything:
        objects = [Object(*(choices.of((value, None)) for value in each)) for each in objects]
    return Asked(tuple(objects), said)


def _written(of: Asked, choices: _Choices) -> str:
    """A caption that says so."""
    mentions = [_mention(each, choices) for each in of.objects]
    if of.relations:
        ((i, relation, _),) = of.relations
        said = choices.of(SAID[relation if i == 0 else INVERSE[relation]])
        mentions[:2] = [f"{mentions[0]} {said} {mentions[1]}"]
    *others, last = mentions or ("",)
    return f"{', '.join(others)} and {last}" if others else last


def _mention(each: Object, choices: _Choices) -> str:
    noun = choices.of(ANY_SHAPE if each.shape is None else WORDS["shape"][each.shape])
    before = [choices.of(WORDS[kind][value]) for kind in ("size", "colour") if (value := getattr(each, kind))]
    after = [choices.of(WORDS["place"][each.place])] if each.place else []
    article, words = choices.of(ARTICLES), " ".join([*before, noun, *after])
    return f"{'an' if article == 'a' and words[0] in 'aeiou' else article} {words}"


def _phrases(caption: str) -> list[tuple[str, Any]]:
    """The phrases of a caption, the longest first where several fit."""
    text, at, phrases = caption.lower().strip(" \n\t."), 0, []
    while at < len(text):
        match = _PHRASE.match(text, at)
        if not match:
            word = text[at:].split()[0].strip(",")
            words = sorted({*_READ, *(word for phrase in _READ for word in phrase.split())})
            raise UsageError(
                f"'{word}' is no word of a scene's caption{nearest(word, words)}; "
                "score_sde.data.scene_captions.WORDS has them."
            )
        phrases.append(_READ[match[1]])
        at = match.end()
    return phrases


def _ordered(i: int, relation: str, j: int) -> Relation:
    """A relation as one of `ORDERS`."""
    inverse = {second: first for first, second in INVERSE.items()}
    return (j, inverse[relation], i) if relation in inverse else (i, relation, j)
