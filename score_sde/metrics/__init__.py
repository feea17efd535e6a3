"""Metrics of samples against a data set: FID, KID, CMMD, Inception score, precision and recall."""

from score_sde.metrics.baselines import Baselines, baselines_of, load_baselines
from score_sde.metrics.ends import at_the_ends, compared
from score_sde.metrics.features import Features, inception_features, own_features, trained_features
from score_sde.metrics.figures import VERSION, measure
from score_sde.metrics.protocol import check_comparable, fingerprint
from score_sde.metrics.reference import Statistics, load_features, load_statistics, statistics_of
from score_sde.metrics.small import Options

__all__ = [
    "VERSION",
    "Baselines",
    "Features",
    "Options",
    "Statistics",
    "at_the_ends",
    "baselines_of",
    "check_comparable",
    "compared",
    "fingerprint",
    "inception_features",
    "load_baselines",
    "load_features",
    "load_statistics",
    "measure",
    "own_features",
    "statistics_of",
    "trained_features",
]
