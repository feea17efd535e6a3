"""EDM's DDPM++ on FFHQ at 64x64: FID 2.39 at 79 evaluations in the paper. Not run."""

from score_sde.configs.edm_presets import compose, ddpmpp, ffhq, images64


def get_config():
    return compose(ddpmpp, images64, ffhq)
