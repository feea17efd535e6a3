"""The names that a sweep file imports."""

from score_sde.experiments.sweep.definition import Halving as Halving
from score_sde.experiments.sweep.definition import Sweep as Sweep
from score_sde.experiments.sweep.space import choice as choice
from score_sde.experiments.sweep.space import grid as grid
from score_sde.experiments.sweep.space import integers as integers
from score_sde.experiments.sweep.space import log_uniform as log_uniform
from score_sde.experiments.sweep.space import random as random
from score_sde.experiments.sweep.space import uniform as uniform
from score_sde.experiments.sweep.space import zipped as zipped
