"""DDPM (VP, discrete) on LSUN bedrooms, 256x256. The paper has no figure."""

from score_sde.configs.presets import ancestral, compose, ddpm_256, discrete, lsun, vp


def get_config():
    return compose(lsun("bedroom"), ddpm_256, vp, discrete, ancestral)
