"""Likelihoods by the probability-flow ODE, an upper bound on -log p, and dequantization of pixels."""

from score_sde.likelihood.bound import likelihood_bound
from score_sde.likelihood.ode import (
    DIVERGENCES,
    Divergence,
    bits_per_dim,
    check_divergence,
    exact,
    hutch_plus_plus,
    hutchinson,
)

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "bits_per_dim",
    "check_divergence",
    "exact",
    "hutch_plus_plus",
    "hutchinson",
    "likelihood_bound",
]
