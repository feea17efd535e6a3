"""The subject of an audit: a trained model with the images that it was trained on, and held-out images."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from score_sde import data, metrics
from score_sde.cli import command_line
from score_sde.cond import restricted
from score_sde.config import Config
from score_sde.data import Part
from score_sde.data.captioned import captioned
from score_sde.data.part import train_part
from score_sde.errors import UsageError
from score_sde.evaluation import sample_metrics
from score_sde.inference.pretrained import Pretrained, load
from score_sde.io import workdir
from score_sde.models import CLASSIFIERS
from score_sde.training.run import load_data

MOST = 50_000, 10_000  # training and held-out images that are looked at


class Subject(NamedTuple):
    """A model, its data, and the features by which images are compared.

    train, held_out: images with their conditions. from_train: number of the held-out images, the last ones, that are of
    the training split but were not trained on. whole, evaluation: both splits, of which the network of features and
    the judge are made, so that models of parts of the data are compared by one measure. trained_on: the places of the
    images of `train` in the whole split. digests: identity of the images.
    """

    model: Pretrained
    train: data.Batch
    held_out: data.Batch
    from_train: int
    whole: data.Source
    evaluation: data.Source
    trained_on: np.ndarray
    features: metrics.Features
    digests: dict[str, str]


def opened(directory: Path, step: int | None = None, values: Mapping[str, str] | None = None) -> Subject:
    """The subject of a workdir. values: of config keys that may differ after training, as `sampling.num_steps`.

    Raises `UsageError` for a folder without a checkpoint, a classifier, a model whose training images are not at hand,
    and one that was trained on every image that there is.
    """
    workdir.checkpoint_steps(directory)
    flags = [f"--config.{key}={value}" for key, value in (values or {}).items()]
    config = command_line.parse(["audit", *flags], of_flags=lambda written: workdir.stored_config(directory)).config
    if config.model.name in CLASSIFIERS:
        raise UsageError(f"{directory} holds a classifier, which draws no images; name the workdir of a score network.")
    if config.sampling.condition:
        raise UsageError(
            f"sampling.condition={config.sampling.condition}: the audit asks for the conditions of training images; "
            "leave it out."
        )
    model = load(directory, step, config)
    whole, train, evaluation = _splits(directory, config, model)
    unused = np.setdiff1d(np.arange(len(whole)), _used(whole, train))
    parts = [] if evaluation.digest() == whole.digest() else [_batch(evaluation, model, MOST[1])]
    room = MOST[1] - sum(len(part.images) for part in parts)
    from_train = min(len(unused), room)
    parts += [_batch(Part(whole, unused), model, from_train)] if from_train else []
    if not parts:
        raise UsageError(
            f"{directory} was trained on every image that there is, so that none is held out to compare with; train "
            "with config.data.held_out above 0, or with config.data.train_images."
        )
    held_out = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    digests = {"train": train.digest(), "whole": whole.digest(), "evaluation": evaluation.digest()}
    used = _used(whole, train)[data.part_of(len(train), MOST[0])]
    return Subject(
        model, _batch(train, model, MOST[0]), held_out, from_train, whole, evaluation, used, _features(config), digests
    )


def _splits(directory: Path, config: Config, model: Pretrained) -> tuple[data.Source, data.Source, data.Source]:
    """The training split, the part of it that the model was trained on, and the evaluation split."""
    all_of_it = config.copy_and_resolve_references()
    all_of_it.data.train_images = 0
    try:
        whole, evaluation = (load_data(all_of_it, train=each) for each in (True, False))
    except UsageError as error:
        raise UsageError(f"No training data are at hand, with which to compare {directory}: {error}") from error
    train = train_part(whole, config.data.train_images)
    recorded = workdir.read(directory, "launch.json").get("data", {}).get("training", {})
    now = captioned(train, model.text)
    if recorded.get(now.digested, now.digest()) != now.digest():
        raise UsageError(
            f"The training data at hand are not those of {directory}, whose {recorded['images']:,} images have another "
            "digest; restore them."
        )
    return whole, train, evaluation


def _used(whole: data.Source, train: data.Source) -> np.ndarray:
    """Indices of the images of the training split that the model was trained on."""
    return train.indices if isinstance(train, Part) else np.arange(len(whole))


def _batch(source: data.Source, model: Pretrained, most: int) -> data.Batch:
    """The images of a source, at most so many, with their labels and the condition that the network takes."""
    images, cond = captioned(source, model.text).take(data.part_of(len(source), most))
    labels = {} if cond is None or "labels" not in cond else {"labels": np.asarray(cond["labels"], np.int32)}
    return data.Batch(images, (restricted(cond, model.experiment.cond_entries) or {}) | labels or None)


def _features(config: Config) -> metrics.Features:
    """The features of config.metrics, by default trained ones, of the whole training split."""
    changed = config.copy_and_resolve_references()
    changed.data.train_images = 0
    if changed.metrics.features == "none":
        changed.metrics.features = "trained"
    return sample_metrics.measure(changed).features
