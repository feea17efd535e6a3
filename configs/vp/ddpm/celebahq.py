"""DDPM (VP, discrete) on CelebA-HQ, 256x256. The paper has no figure."""

from score_sde.configs.presets import ancestral, celebahq_256, compose, ddpm_256, discrete, vp


def get_config():
    return compose(celebahq_256, ddpm_256, vp, discrete, ancestral)
