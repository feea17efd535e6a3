"""DDPM (VP, discrete) that is not told the noise level, on CIFAR-10. The paper has no figure."""

from score_sde.configs.presets import ancestral, cifar10, compose, ddpm, discrete, unconditional, vp


def get_config():
    return compose(cifar10, ddpm, vp, discrete, ancestral, unconditional)
