"""Checks that the images of a source come with the condition on which a network is trained."""

import numpy as np

from score_sde import data
from score_sde.cond import check_cond, restricted
from score_sde.data.text_cond import Tokens
from score_sde.errors import UsageError
from score_sde.training.build import Classification, Experiment
from score_sde.training.text import check_captions


def check_source(experiment: Experiment | Classification, source: data.Source, *, all_of_them: bool = False) -> None:
    """Raises `UsageError` unless the source's images come with the condition that the network takes.

    all_of_them: whether to raise for classes of the network without images, too, which it would never see.
    """
    entries = experiment.cond_entries
    if not entries:
        return
    if "labels" in entries:
        _check_labels(experiment, source, all_of_them=all_of_them)
    available = source.cond_entries
    for entry in entries:
        if entry not in available:
            has_text = entry in Tokens.entries and source.captions(np.arange(1)) is not None
            advice = "set text.tokenizer=words, which makes them from its captions, " if has_text else ""
            raise UsageError(
                f"{experiment.config.data.dataset} has no {entry}, and {experiment.config.model.name} is trained on "
                f"them; {advice}choose another data.dataset, or a network without."
            )
    check_captions(source)
    check_cond(restricted(source.take(np.arange(1)).cond, entries), entries, 1)


def _check_labels(experiment: Experiment | Classification, source: data.Source, *, all_of_them: bool) -> None:
    expected, key = experiment.num_classes, "num_classes" if isinstance(experiment, Experiment) else "num_outputs"
    name, num_classes = experiment.config.data.dataset, source.num_classes
    if not num_classes:
        advice = ", or model.num_classes=0" if isinstance(experiment, Experiment) else ""
        raise UsageError(
            f"{name} has no labels, and model.{key}={expected} is trained on them; choose another data.dataset{advice}."
        )
    if num_classes > expected or (all_of_them and num_classes < expected):
        raise UsageError(f"{name} has {num_classes} classes; set model.{key}={num_classes} instead of {expected}.")
    if source.class_names is None and source.labels.min() < 0:
        raise UsageError(f"{name} has the label {source.labels.min()}; labels count from 0, so number them anew.")
    unseen = np.setdiff1d(np.arange(num_classes), source.labels) if all_of_them and source.class_names is None else ()
    if len(unseen):
        raise UsageError(
            f"{name} has {num_classes} classes by its largest label, no image of class {', '.join(map(str, unseen))}"
            "; number the labels anew, without gaps."
        )
