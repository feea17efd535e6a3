"""EDM's NCSN++ on CIFAR-10. Not run."""

from score_sde.configs.edm_presets import cifar10, compose, ncsnpp, training


def get_config():
    return compose(cifar10, ncsnpp, training())
