"""A recipe on the 8x8 digits: `--config=experiments/recipes/config.py:edm`.

Data, batch, number of updates and average are the same for all recipes, and so are network and optimizer for all but
EDM2's, which is about both: its network has nearly as many parameters (180,699 for 188,769). A recipe decides the
objective, and with it how the network is told the noise level.
"""

from ml_collections import ConfigDict
from score_sde.configs import edm2_presets
from score_sde.configs.presets import compose, ddpmpp, digits, edm, flow, small, subvp, ve, vp

from score_sde.errors import one_of

SIGMA_DATA = 0.752  # of the digits' pixels in [-1, 1]; EDM's is 0.5, of CIFAR-10
SIGMA_MAX = 5.0  # the two most distant digits are 4.8 apart in [0, 1]
UPDATES = 1000
EQUAL = {
    "training.batch_size": 128,
    "training.n_iters": UPDATES,
    "training.snapshot_freq": UPDATES,
    "training.snapshot_freq_for_preemption": 250,
    "training.eval_freq": 250,
    "optim.ema_rate": 0.99,
    "eval.begin_ckpt": -1,
    "eval.enable_loss": False,
    "eval.rtol": 1e-3,  # half the evaluations of 1e-4, and the same bits/dim to a thousandth
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
    """EDM2 (Karras et al., 2024): its network and optimizer, and EDM's objective with learned uncertainty."""
    edm2_presets.edm2(config)
    config.parameterization.sigma_data = SIGMA_DATA
    config.weight.sigma_data = SIGMA_DATA
    config.ema.profiles = ()  # the average of the others
    config.sampling.clip = ""


def edm2_size(config: ConfigDict) -> None:
    """A network of EDM2 with nearly as many parameters, and its schedule."""
    edm2_presets.digits_size(config)
    config.model.nf = 16
    config.optim.warmup = 50
    config.ema.snapshot_freq = 0


def of_equal_size(config: ConfigDict) -> None:
    """The network and the optimizer of all recipes but EDM2's."""
    small(config)
    config.model.nf = 16
    config.optim.update(lr=3e-3, warmup=50)


RECIPES = {
    "vp": vp,
    "subvp": subvp,
    "ve": ve(SIGMA_MAX),
    "edm": scaled_edm,
    "edm2": edm2,
    "flow": flow,
    "cosine": cosine,
}


def get_config(name: str) -> ConfigDict:
    recipe = RECIPES[one_of("recipe", name, RECIPES)]
    config = compose(ddpmpp, recipe, digits, edm2_size if name == "edm2" else of_equal_size)
    config.update_from_flattened_dict(EQUAL)
    return config
