"""A recipe on the 8x8 digits: `--config=experiments/recipes/config.py:edm`.

Data, network, optimizer, average, batch and number of updates are the same for all recipes. A recipe decides the
objective, and with it how the network is told the noise level. EDM2's also has a network and an optimizer of its own.
"""

from ml_collections import ConfigDict
from score_sde.configs.presets import compose, ddpmpp, digits, edm, flow, small, subvp, ve, vp

from score_sde.errors import one_of

SIGMA_DATA = 0.752  # of the digits' pixels in [-1, 1]; EDM's is 0.5, of CIFAR-10
SIGMA_MAX = 5.0  # the two most distant digits are 4.8 apart in [0, 1]
UPDATES = 1500
EQUAL = {
    "model.nf": 16,
    "training.batch_size": 128,
    "training.n_iters": UPDATES,
    "training.snapshot_freq": UPDATES,
    "training.eval_freq": 250,
    "optim.lr": 2e-3,
    "optim.ema_rate": 0.99,
    "eval.begin_ckpt": -1,
    "eval.enable_loss": False,
    "eval.rtol": 1e-3,
    "eval.atol": 1e-3,
    "eval.batch_size": 512,
    "eval.num_samples": 512,
}


def cosine(config: ConfigDict) -> None:
    """The cosine schedule with the noise as target (Nichol and Dhariwal, 2021)."""
    vp(config)
    config.process.name = "cosine"
    config.sampling.predictor = "exponential"
    config.parameterization.name = "noise"
    config.times.name = "uniform"
    config.weight.name = "noise"


def scaled_edm(config: ConfigDict) -> None:
    """EDM for data of the digits' width."""
    edm(config)
    config.parameterization.sigma_data = SIGMA_DATA
    config.weight.sigma_data = SIGMA_DATA


def edm2(config: ConfigDict) -> None:
    """EDM with the learned uncertainty of EDM2 (Karras et al., 2024)."""
    scaled_edm(config)
    with config.unlocked():
        del config.weight.sigma_data
    config.weight.update(name="uncertainty", base="edm")


RECIPES = {"vp": vp, "subvp": subvp, "ve": ve(SIGMA_MAX), "edm": scaled_edm, "edm2": edm2, "flow": flow, "cosine": cosine}


def get_config(name: str) -> ConfigDict:
    recipe = RECIPES[one_of("recipe", name, RECIPES)]
    config = compose(ddpmpp, recipe, digits, small)
    config.update_from_flattened_dict(EQUAL)
    return config
