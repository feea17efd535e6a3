"""All metrics that features of samples allow, by name.

from pathlib import Path

import numpy as np
from score_sde import metrics
from score_sde.data import InMemory

data = InMemory(np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8))
features = metrics.trained_features(data, metrics.Options(nf=8, n_iters=2), Path("features"), batch_size=32)
reference = metrics.statistics_of(data, features, {})
figures = metrics.measure(features.name, features.of(data.images[:32]), reference)  # name -> mean and error
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.metrics.distances import PAIRED, Estimate, inception_score, precision_recall
from score_sde.metrics.features import INCEPTION, TRAINED, kind
from score_sde.metrics.frechet import Frechet
from score_sde.metrics.kernels import cmmd, kernel_distance
from score_sde.metrics.reference import Statistics

ALL_PAIRS = "all pairs"
VERSION = 2  # of what the figures are; since 2 the kernel distance is over all pairs


@check_arguments
def measure(
    features_name: str,
    arrays: Mapping[str, Any],
    reference: Statistics,
    inception_splits: Annotated[int, "[1, inf)"] = 1,
) -> dict[str, dict[str, Any]]:
    """All metrics that the samples' features, and logits if these are Inception's, allow: name -> mean and error.

    Only distances by Inception's features are called fid, fid_infinity and kid; others carry their features' name, and
    CMMD is of features that are neither Inception's nor trained here. inception_splits: parts whose Inception scores
    are averaged, which the score's name says if there are several. A distance by a kernel says whether it is "over" all
    pairs or blocks. arrays: "features" (n, d), of two images or more, and "logits". Raises `UsageError` for others.
    """
    if "features" not in arrays:
        raise UsageError(f"There are no features among the arrays {', '.join(map(str, arrays)) or '(none)'}.")
    samples = np.asarray(arrays["features"])
    of = "" if features_name == INCEPTION else f"[features={features_name}]"
    frechet, kernel = ("fid", "kid") if features_name == INCEPTION else ("frechet_distance", "kernel_distance")
    distance = Frechet(reference.mean, reference.covariance)
    estimates = {f"{frechet}{of}": distance(samples)}
    if len(samples) >= 10 * samples.shape[1]:  # with fewer samples the bias is not of order 1/n
        estimates[f"{frechet}_infinity{of}"] = Estimate(distance.of_infinitely_many(samples), None)
    kernels: dict[str, Estimate] = {}
    if reference.features is not None:
        kernels[f"{kernel}{of}"] = kernel_distance(samples, reference.features)
        if kind(features_name) not in (INCEPTION, TRAINED):
            kernels[f"cmmd{of}"] = cmmd(samples, reference.features)
        estimates |= kernels
        if min(len(samples), len(reference.features)) > 3:
            precision, recall = precision_recall(samples, reference.features)
            estimates |= {f"precision{of}": Estimate(precision, None), f"recall{of}": Estimate(recall, None)}
    if "logits" in arrays:
        splits = "" if inception_splits == 1 else f"[splits={inception_splits}]"
        estimates[f"inception_score{splits}"] = inception_score(arrays["logits"], inception_splits)
    figures = {name: estimate._asdict() for name, estimate in estimates.items()}
    for name in kernels:
        figures[name]["over"] = ALL_PAIRS if max(len(samples), len(reference.features)) <= PAIRED else "blocks"
    return figures
