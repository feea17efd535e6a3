"""Seven recipes on the digits with three seeds: bits/dim of the test set, and samples at four budgets.

21 trainings, each evaluated five times. `score_sde --mode=experiment --name=recipes` runs this sweep and compares the
recipes; as a sweep, it gives its table.
"""

from score_sde.experiments.recipes.config import RECIPES
from score_sde.experiments.sweep import Sweep, zipped
from score_sde.experiments.sweep.space import Point, Space

BITS = "bits/dim"
LIKELIHOOD: Point = {"eval.enable_bpd": True, "eval.enable_sampling": False}
SAMPLES: Point = {"eval.enable_bpd": False, "eval.enable_sampling": True}
# One solver for all recipes; EDM's own makes 34 evaluations and no 35 where a path begins with pure noise.
FEW: Point = {"sampling.method": "dpmpp_2m", "sampling.grid": "log_snr"}
FIGURES: dict[str, Point] = {
    BITS: LIKELIHOOD,
    "10 evaluations": SAMPLES | FEW | {"sampling.num_steps": 9},  # and one that removes the last noise
    "35 evaluations": SAMPLES | FEW | {"sampling.num_steps": 34},
    "1,000 of pc": SAMPLES
    | {"sampling.method": "pc", "sampling.predictor": "exponential", "sampling.corrector": "none"}
    | {"sampling.num_scales": 999},
    "ODE, tolerance 1e-5": SAMPLES | {"sampling.method": "ode", "sampling.rtol": 1e-5, "sampling.atol": 1e-5},
}


def file_of(recipe: str) -> str:
    """The config of a recipe, by its name on the command line."""
    return f"experiments/recipes/config.py:{recipe}"


sweep = Sweep(
    space=zipped({"config": [file_of(recipe) for recipe in RECIPES]}) * Space(tuple(FIGURES.values())),
    seeds=(0, 1, 2),
)
