"""Controllable generation: samples given a class or an observation, from one score (paper, section 5, appendix I)."""

from score_sde.conditioning.guidance import check_guidance, classifier_guidance, extrapolation, interpolation
from score_sde.conditioning.observations import Observation, Operator
from score_sde.conditioning.operators import Average, Blur, Inpaint, Linear, Sense
from score_sde.conditioning.particles import particles
from score_sde.conditioning.posterior import GUIDES, METHODS, Options, check_observable, dps, pigdm, projection, tmpd

__all__ = [
    "GUIDES",
    "METHODS",
    "Average",
    "Blur",
    "Inpaint",
    "Linear",
    "Observation",
    "Operator",
    "Options",
    "Sense",
    "check_guidance",
    "check_observable",
    "classifier_guidance",
    "dps",
    "extrapolation",
    "interpolation",
    "particles",
    "pigdm",
    "projection",
    "tmpd",
]
