"""DDPM (VP, discrete) on CIFAR-10. Paper, Tables 1, 2: FID 3.24; ODE: FID 3.37, 3.28 bits/dim."""

from score_sde.configs.presets import ancestral, cifar10, compose, ddpm, discrete, vp


def get_config():
    return compose(cifar10, ddpm, vp, discrete, ancestral)
