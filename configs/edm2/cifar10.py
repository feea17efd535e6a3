"""EDM2's training on CIFAR-10 with a network, times and a schedule of ours; EDM2 published none for it. Not run."""

from score_sde.configs.edm2_presets import cifar10, cifar10_size, compose, edm2


def get_config():
    return compose(cifar10, edm2, cifar10_size)
