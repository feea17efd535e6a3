"""Small DDPM++ on the 8x8 digits by the training of Karras et al. (2022); minutes on two CPU cores."""

from score_sde.configs.presets import compose, ddpmpp, digits, edm, small


def get_config():
    return compose(ddpmpp, edm, digits, small)
