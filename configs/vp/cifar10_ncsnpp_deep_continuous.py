"""NCSN++ cont. deep (VP) on CIFAR-10. The paper has no figure."""

from score_sde.configs.presets import cifar10, compose, deep, ncsnpp, vp


def get_config():
    return compose(cifar10, ncsnpp, deep, vp)
