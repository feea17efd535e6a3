"""Balance of classes and of attributes: how often samples show each, as a judge sees it, without the judge's errors."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from score_sde.experiments.audit.subject import Subject

from score_sde.array_types import Integer, Pixels
from score_sde.audit.balance import Balance, Frequencies, balance, per_class
from score_sde.errors import UsageError
from score_sde.metrics import small
from score_sde.metrics.distances import Rows
from score_sde.metrics.judge import Attribute, Judge, judge

Figures = dict[str, Any]


def attributes(path: Path | None) -> dict[str, Attribute]:
    """The attributes in a .npz file: for each NAME, integers of the training images, and of evaluation ones NAME_eval.

    Raises `UsageError` for a file that holds no such pairs.
    """
    if path is None:
        return {}
    try:
        with np.load(path) as arrays:
            of = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise UsageError(f"--attributes={path} cannot be read; name a .npz file of NAME and NAME_eval.") from error
    names = [name for name in of if not name.endswith("_eval")]
    if not names or any(f"{name}_eval" not in of for name in names):
        raise UsageError(f"--attributes={path} has the arrays {', '.join(of)}; give NAME and NAME_eval for each.")
    return {name: Attribute(name, of[name], of[f"{name}_eval"]) for name in names}


def judges(of: Subject, folder: Path, named: Mapping[str, Attribute]) -> dict[str, Judge]:
    """The judges of the data's classes and of the attributes. Raises `UsageError` where there are neither."""
    if of.digests["evaluation"] == of.digests["whole"]:
        raise UsageError(
            "The evaluation images are the training images, so a judge's errors on others are unknown, and balance "
            "cannot be corrected for them; train with config.data.held_out above 0."
        )
    options = of.model.config.metrics  # with another seed than that of the features
    like = small.Options(options.nf, options.dimension, options.n_iters, lr=options.lr, seed=options.seed + 1)
    make = functools.partial(judge, of.whole, of.evaluation, folder, options=like)
    found = {"class": make()} if of.whole.num_classes > 1 else {}
    found |= {name: make(attribute=each) for name, each in named.items()}
    if not found:
        raise UsageError(
            "The data have no labels, so nothing is known of the balance of classes; give --attributes=FILE.npz."
        )
    return found


def balanced(
    by: Judge,
    samples: Mapping[str, Pixels],
    labels: Integer[np.ndarray, " n"],
    *,
    features: Mapping[str, Rows],
    real: Rows,
) -> Figures:
    """The balance of samples by scale, and each class's recall and distance, against the training images' labels.

    features: of the samples, by scale. real: features of the training images.
    """
    counts = np.bincount(labels, minlength=len(by.confusion))
    result: Figures = {"accuracy": by.accuracy, "judged_on": int(by.confusion.sum()), "scales": {}}
    for scale, pixels in samples.items():
        shown = by.classes(pixels)
        of = balance(np.bincount(shown, minlength=len(counts)), by.confusion, counts)
        each = [figures._asdict() for figures in per_class(features[scale], shown, real, labels)]
        result["scales"][scale] = _plain(of) | {"per_class": each}
    return result


def _plain(of: Balance) -> Figures:
    return {name: _value(value) for name, value in of._asdict().items()}


def _value(value: Any) -> Any:
    if isinstance(value, Frequencies):
        return {name: each.tolist() for name, each in value._asdict().items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
