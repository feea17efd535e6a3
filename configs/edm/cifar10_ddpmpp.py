"""EDM's DDPM++ on CIFAR-10: FID 1.97 at 35 evaluations in the paper. Not run."""

from score_sde.configs.edm_presets import cifar10, compose, ddpmpp, training


def get_config():
    return compose(cifar10, ddpmpp, training())
