"""The names that a sweep file imports."""

from experiments.sweep.definition import Halving as Halving
from experiments.sweep.definition import Sweep as Sweep
from experiments.sweep.space import choice as choice
from experiments.sweep.space import grid as grid
from experiments.sweep.space import integers as integers
from experiments.sweep.space import log_uniform as log_uniform
from experiments.sweep.space import random as random
from experiments.sweep.space import uniform as uniform
from experiments.sweep.space import zipped as zipped
