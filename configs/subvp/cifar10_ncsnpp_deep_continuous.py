"""NCSN++ cont. deep (sub-VP) on CIFAR-10. The paper has no figure."""

from score_sde.configs.presets import cifar10, compose, deep, ncsnpp, subvp


def get_config():
    return compose(cifar10, ncsnpp, deep, subvp)
