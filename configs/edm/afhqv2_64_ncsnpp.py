"""EDM's NCSN++ on AFHQv2 at 64x64. Not run."""

from score_sde.configs.edm_presets import afhqv2, compose, images64, ncsnpp


def get_config():
    return compose(ncsnpp, images64, afhqv2)
