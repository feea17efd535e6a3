"""EDM's DDPM++ on AFHQv2 at 64x64: FID 1.96 at 79 evaluations in the paper. Not run."""

from score_sde.configs.edm_presets import afhqv2, compose, ddpmpp, images64


def get_config():
    return compose(ddpmpp, images64, afhqv2)
