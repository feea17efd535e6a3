"""The class-conditional generator of the digits, and what classical augmentation may do to the images of a data set."""

from typing import NamedTuple

from ml_collections import ConfigDict
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as digits

COUNTS = (5, 15, 50, 0)  # real images of each class; 0 for all
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of generated images in a batch
SCHEDULE = {
    "model.num_classes": 10,
    "training.n_iters": 600,
    "training.snapshot_freq": 600,
    "training.eval_freq": 200,
    "optim.lr": 6e-3,  # the demo's schedule, which reaches the bits/dim of twice the updates at a sixth of the rate
    "optim.warmup": 50,
    "optim.ema_rate": 0.985,
    "sampling.method": "dpmpp_2m",
    "sampling.num_steps": 30,
    "metrics.features": "none",
}


def get_config() -> ConfigDict:
    config = digits()
    config.update_from_flattened_dict(SCHEDULE)
    return config


class Transform(NamedTuple):
    """The most that classical augmentation does to an image, which is still of its class then.

    shift: as a part of the height and width. degrees: of a rotation either way. scale: of the natural logarithm of the
    size. flip: whether left and right may change places.
    """

    shift: float = 1 / 16
    degrees: float = 0.0
    scale: float = 0.0
    flip: bool = False


OTHERS = Transform()  # no label depends on a small shift
TRANSFORMS = {
    "digits": Transform(1 / 12, 10.0, 0.1),
    "mnist": Transform(1 / 14, 10.0, 0.1),
    "fashion_mnist": Transform(1 / 14, 5.0, 0.05, flip=True),
    "cifar10": Transform(1 / 8, flip=True),
}


def transform_of(dataset: str) -> Transform:
    """The transform for a data set of this name."""
    return TRANSFORMS.get(dataset.lower(), OTHERS)
