"""NCSN++ (VP, discrete) on CIFAR-10. The paper has no figure."""

from score_sde.configs.presets import cifar10, compose, discrete, ncsnpp, reverse_diffusion, vp


def get_config():
    return compose(cifar10, ncsnpp, vp, discrete, reverse_diffusion)
