"""The demo's schedules: half of the updates at six times the rate, to the same bits/dim; of the classifier a third."""

from ml_collections import ConfigDict
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as digits
from score_sde.configs.vp.digits_wideresnet import get_config as classifier

SCHEDULE = {
    "training.n_iters": 600,
    "training.snapshot_freq": 300,
    "optim.lr": 6e-3,
    "optim.warmup": 50,
    "optim.ema_rate": 0.985,
    "eval.rtol": 1e-3,  # half the evaluations of 1e-4, and the same bits/dim to a thousandth
    "eval.atol": 1e-3,
}
CLASSIFIERS = {"training.n_iters": 200}


def get_config() -> ConfigDict:
    config = digits()
    config.update_from_flattened_dict(SCHEDULE)
    return config


def get_classifier() -> ConfigDict:
    config = classifier()
    config.update_from_flattened_dict(CLASSIFIERS)
    return config
