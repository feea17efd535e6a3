"""Samplers: solvers from x_T ~ p_1 to samples, for any model (x, t) -> `Prediction`."""

import functools

from score_sde.sampling.adaptive import adaptive
from score_sde.sampling.clipping import CLIPPINGS, clipped
from score_sde.sampling.correctors import CORRECTORS
from score_sde.sampling.fast import FAST_SOLVERS, fast_solver
from score_sde.sampling.grids import GRIDS
from score_sde.sampling.predictor_corrector import predictor_corrector
from score_sde.sampling.predictors import PREDICTORS
from score_sde.sampling.probability_flow import probability_flow, slerp
from score_sde.sampling.solver import Project, Solver, advance, solve

SAMPLERS = {
    "pc": predictor_corrector,
    "ode": probability_flow,
    "adaptive": adaptive,
    **{name: functools.partial(fast_solver, name=name) for name in FAST_SOLVERS},
}

__all__ = [
    "CLIPPINGS",
    "CORRECTORS",
    "FAST_SOLVERS",
    "GRIDS",
    "PREDICTORS",
    "SAMPLERS",
    "Project",
    "Solver",
    "adaptive",
    "advance",
    "clipped",
    "fast_solver",
    "predictor_corrector",
    "probability_flow",
    "slerp",
    "solve",
]
