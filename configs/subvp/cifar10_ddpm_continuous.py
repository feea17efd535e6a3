"""DDPM cont. (sub-VP) on CIFAR-10. Paper, Table 2, ODE: FID 3.56, 3.05 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpm, subvp


def get_config():
    return compose(cifar10, ddpm, subvp)
