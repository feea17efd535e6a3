"""DDPM cont. (VP) on CIFAR-10. Paper, Table 2, ODE: FID 3.69, 3.21 bits/dim."""

from score_sde.configs.presets import cifar10, compose, ddpm, vp


def get_config():
    return compose(cifar10, ddpm, vp)
