"""The demo's conditional samples: of a class, judged by what has seen real digits only; of hidden halves."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from score_sde.experiments.digits.config import CLASSIFIERS, get_classifier
from score_sde.experiments.digits.config import get_config as get_score

from score_sde import images
from score_sde.conditioning.grammar import observation_of
from score_sde.data import Source
from score_sde.evaluation.inverse_problems import reconstruct, sheet
from score_sde.inference.pretrained import Pretrained, load
from score_sde.io.result_cache import Arrays
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime.progress import bar, reporter
from score_sde.training.run import train

EACH = 20  # samples of each class
SCALE = 4.0  # of the classifier's guidance
SAMPLER = dict(method="dpmpp_2m", num_steps=30)
HALVES = 8  # images whose right half is hidden
FILLED = 6  # times that each is filled in
STEPS = 250  # to fill them in by


class OfClasses(NamedTuple):
    """Samples of classes. confusion: numbers [class asked for, class recognised]. judge: accuracy on real digits."""

    pixels: np.ndarray
    confusion: np.ndarray
    judge: float
    nfe: float

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def standard_error(self) -> float:
        p = self.accuracy
        return float(np.sqrt(p * (1 - p) / self.confusion.sum()))


class Halves(NamedTuple):
    sheet: np.ndarray
    figures: dict


def train_classifier(workdir: Path, data_dir: str) -> None:
    """The noise-conditional one, in a workdir inside the demo's."""
    config = get_classifier()
    config.data.data_dir = data_dir
    train(config, workdir / "classifier", overrides=CLASSIFIERS)


def of_classes(workdir: Path, train_set: Source, held_out: Source) -> OfClasses:
    """EACH samples of each class, one class after the other."""
    config = get_score()
    config.sampling.update(SAMPLER)
    config.guidance.update(classifier=str(workdir / "classifier"), scale=SCALE)
    model = _load(workdir, config)
    classes = np.repeat(np.arange(10), EACH)
    keys = sample_keys(stream(jax.random.key(model.config.seed + 2), Stream.SAMPLE), np.arange(len(classes)))
    with bar("sampling (class)", len(classes), "img") as progress:
        x, nfe, _ = model.draw(keys, report=reporter(progress, len(classes)), cond={"labels": classes})
    pixels = images.to_pixels(x)
    judge = _judge(train_set)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (classes, judge.predict(_flat(pixels))), 1)
    return OfClasses(
        pixels, confusion, float(judge.score(_flat(held_out.images), held_out.labels)), float(np.mean(nfe))
    )


def halves(workdir: Path, held_out: Source) -> Halves:
    """FILLED samples of the right half of each of the first held-out images."""
    config = get_score()
    config.sampling.update(condition="inpaint=right_half", num_samples=HALVES * FILLED, num_scales=STEPS)
    config.guidance.samples_each = FILLED
    rounds: dict[str, Arrays] = {}

    def keep(name, compute):
        return rounds.setdefault(name, compute())

    model = _load(workdir, config)
    observe = observation_of(config.sampling.condition, model.experiment.image_shape)
    folder, n = workdir / "samples", HALVES * FILLED
    result = reconstruct(model, held_out, observe, n, folder, "right_half", lambda size: keep)
    return Halves(sheet(rounds[""], FILLED, magnify=8), result)


def _load(workdir: Path, config) -> Pretrained:
    """The demo's model, to be sampled otherwise."""
    stored = load(workdir).config
    config.data.update(stored.data.to_dict())
    return load(workdir, config=config)


def _judge(train_set: Source):
    """scikit-learn's support-vector machine on the real digits that the score was trained on."""
    from sklearn.svm import SVC

    return SVC(gamma=0.001).fit(_flat(train_set.images), train_set.labels)


def _flat(pixels: np.ndarray) -> np.ndarray:
    """Images as scikit-learn's example has them, in 0..16."""
    return pixels.reshape(len(pixels), -1) / 255 * 16
