"""NCSN++ cont. (VE) on CIFAR-10. Paper, Table 3: FID 2.38, IS 9.83."""

from score_sde.configs.presets import cifar10, compose, ncsnpp, ve


def get_config():
    return compose(cifar10, ncsnpp, ve(50))
