"""EDM's DDPM++ on CIFAR-10 with classes: FID 1.79 at 35 evaluations in the paper. Not run."""

from score_sde.configs.edm_presets import cifar10, classes, compose, ddpmpp, training


def get_config():
    return compose(cifar10, ddpmpp, classes(10), training())
