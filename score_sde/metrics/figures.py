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

from typing import Any

from score_sde.io.result_cache import Arrays
from score_sde.metrics.distances import Estimate, Frechet, inception_score, kernel_distance, precision_recall
from score_sde.metrics.features import INCEPTION
from score_sde.metrics.reference import Statistics


def measure(features_name: str, arrays: Arrays, reference: Statistics) -> dict[str, dict[str, Any]]:
    """All metrics that the samples' features, and logits if these are Inception's, allow: name -> mean and error.

    Only distances by Inception's features are called fid, fid_infinity and kid; others carry their features' name.
    """
    samples = arrays["features"]
    of = "" if features_name == INCEPTION else f"[features={features_name}]"
    frechet, kernel = ("fid", "kid") if features_name == INCEPTION else ("frechet_distance", "kernel_distance")
    distance = Frechet(reference.mean, reference.covariance)
    estimates = {f"{frechet}{of}": distance(samples)}
    if len(samples) >= 10 * samples.shape[1]:  # with fewer samples the bias is not of order 1/n
        estimates[f"{frechet}_infinity{of}"] = Estimate(distance.of_infinitely_many(samples), None)
    if reference.features is not None:
        estimates[f"{kernel}{of}"] = kernel_distance(samples, reference.features)
        if min(len(samples), len(reference.features)) > 3:
            precision, recall = precision_recall(samples, reference.features)
            estimates |= {f"precision{of}": Estimate(precision, None), f"recall{of}": Estimate(recall, None)}
    if "logits" in arrays:
        estimates["inception_score"] = inception_score(arrays["logits"])
    return {name: estimate._asdict() for name, estimate in estimates.items()}
