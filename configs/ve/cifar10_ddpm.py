"""DDPM (VE, discrete) on CIFAR-10. Paper, Table 1: FID 3.60 (reverse diffusion and corrector)."""

from score_sde.configs.presets import cifar10, compose, ddpm, discrete, ve


def get_config():
    return compose(cifar10, ddpm, ve(50), discrete)
