"""Samplers: solvers from x_T ~ p_1 to samples. Any score function will do."""

from score_sde.sampling.correctors import CORRECTORS
from score_sde.sampling.predictor_corrector import predictor_corrector
from score_sde.sampling.predictors import PREDICTORS
from score_sde.sampling.probability_flow import probability_flow
from score_sde.sampling.solver import Solver, advance, solve

SAMPLERS = {"pc": predictor_corrector, "ode": probability_flow}

__all__ = [
    "CORRECTORS",
    "PREDICTORS",
    "SAMPLERS",
    "Solver",
    "advance",
    "predictor_corrector",
    "probability_flow",
    "solve",
]
