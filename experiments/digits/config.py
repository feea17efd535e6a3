"""The digits' config with the demo's schedule: two thirds of the updates at twice the rate, to the same bits/dim."""

from ml_collections import ConfigDict

from configs.vp.digits_ddpmpp_continuous import get_config as digits

SCHEDULE = {
    "training.n_iters": 800,
    "training.snapshot_freq": 400,
    "optim.lr": 2e-3,
    "optim.ema_rate": 0.99,
    "eval.rtol": 1e-3,  # half the evaluations of 1e-4, and the same bits/dim to a thousandth
    "eval.atol": 1e-3,
}


def get_config() -> ConfigDict:
    config = digits()
    config.update_from_flattened_dict(SCHEDULE)
    return config
