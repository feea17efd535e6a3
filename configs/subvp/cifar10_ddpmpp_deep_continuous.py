"""DDPM++ cont. deep (sub-VP) on CIFAR-10. Paper, Tables 2, 3: FID 2.41, IS 9.57; ODE: FID 2.92, 2.99 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpmpp, deep, subvp


def get_config():
    return compose(cifar10, ddpmpp, deep, subvp)
