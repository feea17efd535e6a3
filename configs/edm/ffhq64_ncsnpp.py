"""EDM's NCSN++ on FFHQ at 64x64. Not run."""

from score_sde.configs.edm_presets import compose, ffhq, images64, ncsnpp


def get_config():
    return compose(ncsnpp, images64, ffhq)
