"""DDPM++ cont. deep (VP) on CIFAR-10. Paper, Tables 2, 3: FID 2.41, IS 9.68; ODE: FID 3.08, 3.13 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpmpp, deep, vp


def get_config():
    return compose(cifar10, ddpmpp, deep, vp)
