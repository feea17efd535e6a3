"""DDPM++ (VP, discrete) on CIFAR-10. Paper, Table 3: FID 2.78, IS 9.64."""

from score_sde.configs.presets import ancestral, cifar10, compose, ddpmpp, discrete, vp


def get_config():
    return compose(cifar10, ddpmpp, vp, discrete, ancestral)
