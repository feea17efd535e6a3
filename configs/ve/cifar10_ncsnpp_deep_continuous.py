"""NCSN++ cont. deep (VE) on CIFAR-10. Paper, Table 3: FID 2.20, IS 9.89."""

from score_sde.configs.presets import cifar10, compose, deep, ncsnpp, ve


def get_config():
    return compose(cifar10, ncsnpp, deep, ve(50))
