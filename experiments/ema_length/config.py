"""The digits' demo with two power averages and a snapshot of them every 20 updates."""

from ml_collections import ConfigDict
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as digits

SCHEDULE = {
    "training.n_iters": 300,
    "training.snapshot_freq": 300,
    "training.snapshot_sampling": False,
    "optim.lr": 6e-3,
    "optim.warmup": 50,
    "ema.profiles": ("power:0.05", "power:0.1"),
    "ema.snapshot_freq": 20,
}
SAMPLER = {"sampling.method": "dpmpp_2m", "sampling.num_steps": 20}


def get_config() -> ConfigDict:
    config = digits()
    config.update_from_flattened_dict(SCHEDULE | SAMPLER)
    return config
