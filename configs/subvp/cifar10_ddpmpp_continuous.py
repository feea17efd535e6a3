"""DDPM++ cont. (sub-VP) on CIFAR-10. Paper, Tables 2 and 3: FID 2.61, IS 9.56; ODE: FID 3.16, 3.02 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpmpp, subvp


def get_config():
    return compose(cifar10, ddpmpp, subvp)
