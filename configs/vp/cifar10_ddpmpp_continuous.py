"""DDPM++ cont. (VP) on CIFAR-10. Paper, Tables 2 and 3: FID 2.55, IS 9.58; ODE: FID 3.93, 3.16 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpmpp, vp


def get_config():
    return compose(cifar10, ddpmpp, vp)
