"""NCSN++ cont. (sub-VP) on CIFAR-10. The paper reports no figure for it."""

from score_sde.configs.presets import cifar10, compose, ncsnpp, subvp


def get_config():
    return compose(cifar10, ncsnpp, subvp)
