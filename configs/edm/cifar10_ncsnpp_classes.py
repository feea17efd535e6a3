"""EDM's NCSN++ on CIFAR-10 with classes. Not run."""

from score_sde.configs.edm_presets import cifar10, classes, compose, ncsnpp, training


def get_config():
    return compose(cifar10, ncsnpp, classes(10), training())
