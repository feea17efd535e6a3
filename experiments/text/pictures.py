"""The judge of pictures that no decoder can read: whether a sample is nearest to its caption's own picture.

| figure  | right: samples to which their caption's own picture is nearest, in mean square, of                        |
|---------|-----------------------------------------------------------------------------------------------------------|
| `found` | all pictures whose captions were asked for                                                                |
| `tone`  | the pictures that have the same name but for the tone of skin, if a caption names one                     |
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from score_sde.experiments.text.judge import share
from score_sde.experiments.text.prompts import HALVES, asked_pictures
from score_sde.experiments.transformers.measure import nearest, nearness

from score_sde.array_types import Pixels
from score_sde.config import AnyConfig
from score_sde.training.run import load_data

TONE = re.compile(r"(?:medium-)?(?:light|dark) skin tone|medium skin tone")
NEIGHBOURS = 12  # samples beside which the page shows their nearest training picture


class Album(NamedTuple):
    """The pictures of the training and the evaluation split with their captions.

    asked: of each half, the pictures whose captions were asked for.
    """

    train: Pixels
    test: Pixels
    captions: tuple[Sequence[str], Sequence[str]]
    asked: dict[str, Pixels]


def album(config: AnyConfig, n: int) -> Album:
    """The pictures of a config's data set. n: captions of each half."""
    splits = [load_data(config, train=train) for train in (True, False)]
    every = [np.arange(len(source)) for source in splits]
    captions = tuple(list(source.captions(indices)) for source, indices in zip(splits, every, strict=True))
    asked = {half: source.take(indices).images for half, (source, indices) in asked_pictures(config, n).items()}
    return Album(*(source.take(indices).images for source, indices in zip(splits, every, strict=True)), captions, asked)


def judged(captions: Sequence[str], pixels: Pixels, of: Album, half: str) -> dict[str, Any]:
    """The figures of samples of the first captions of a half, in the form of `judge.judged`."""
    n, own = len(pixels), of.asked[half][: len(pixels)]
    found = int((nearest(pixels, own)[0] == np.arange(n)).sum())
    figures = {"found": share(found, n) | {"chance": 1 / n, "uniform": None}}
    if of_tones := _tones(captions, pixels, own, of):
        right, chance = zip(*of_tones, strict=True)
        figures["tone"] = share(sum(right), len(right)) | {"chance": float(np.mean(chance)), "uniform": None}
    return {"figures": figures, "unreadable": None}


def _tones(captions: Sequence[str], pixels: Pixels, own: Pixels, of: Album) -> list[tuple[bool, float]]:
    """A verdict on each sample of a caption with one tone of skin: whether it has it, and the chance of it."""
    named: dict[str, list[Pixels]] = {}
    for all_captions, all_pixels in zip(of.captions, (of.train, of.test), strict=True):
        for caption, picture in zip(all_captions, all_pixels, strict=True):
            if len(TONE.findall(caption)) == 1:
                named.setdefault(TONE.sub("", caption), []).append(picture)
    result = []
    for caption, sample, picture in zip(captions, pixels, own, strict=True):
        siblings = named.get(TONE.sub("", caption), []) if len(TONE.findall(caption)) == 1 else []
        if len(siblings) > 1:
            among = np.stack(siblings)
            index, _ = nearest(sample[None], among)
            result.append((bool((among[index[0]] == picture).all()), 1 / len(among)))
    return result


def copies(of: Album, samples: dict[str, Pixels]) -> dict[str, float]:
    """The nearness of the samples of each half to training pictures, 0 for copies and about 1 for new ones."""
    return {half: nearness(samples[half], of.train, of.test) for half in HALVES}


def shown(n: int) -> np.ndarray:
    """The numbers of the samples that the page shows, of n: evenly spaced, since captions come by kind of picture."""
    return np.arange(NEIGHBOURS) * n // NEIGHBOURS if n > NEIGHBOURS else np.arange(n)


def neighbours(of: Album, samples: dict[str, Pixels]) -> dict[str, Pixels]:
    """The nearest training pictures of the `shown` samples of each half, and under `own_HALF` their captions' own."""
    at = {half: shown(len(samples[half])) for half in HALVES}
    nearby = {half: of.train[nearest(samples[half][at[half]], of.train)[0]] for half in HALVES}
    return nearby | {f"own_{half}": of.asked[half][at[half]] for half in HALVES}
