"""Configs of runs that pictures are made of: digits with classes, in minutes, and clothes with classes, in hours."""

from ml_collections import ConfigDict
from score_sde.configs.vp.cifar10_ddpmpp_continuous import get_config as cifar10
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as digits
from score_sde.experiments.digits.config import SCHEDULE
from score_sde.experiments.first_run.config import RUN

CLASSES = {"model.num_classes": 10, "training.n_iters": 1000, "training.snapshot_freq": 500}
CHANGES = SCHEDULE | CLASSES  # of vp/digits_ddpmpp_continuous
CLOTHES = RUN | {  # of vp/cifar10_ddpmpp_continuous
    "data.dataset": "fashion_mnist",
    "data.image_size": 28,
    "data.num_channels": 1,
    "data.random_flip": False,
    "model.num_classes": 10,
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (7,),
    "training.n_iters": 6000,
    "training.snapshot_freq": 2000,
    "training.snapshot_freq_for_preemption": 250,
}


def get_digits() -> ConfigDict:
    """The config of DDPM++ (small) under VP on the 8x8 digits, which takes a digit's class."""
    config = digits()
    config.update_from_flattened_dict(CHANGES)
    return config


def get_config() -> ConfigDict:
    """The config of a DDPM++ of 32 channels under VP on Fashion-MNIST at its own 28x28, which takes a class."""
    config = cifar10()
    config.update_from_flattened_dict(CLOTHES)
    return config
