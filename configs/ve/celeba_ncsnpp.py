"""NCSN++ (VE, discrete) on CelebA, 64x64. No figure in the paper; its author reports an FID of about 2.5."""

from score_sde.configs.presets import celeba, compose, discrete, ncsnpp, ve


def get_config():
    return compose(celeba, ncsnpp, ve(90), discrete)
