"""Small DDPM++ on the 8x8 digits by rectified flow: the velocity of straight paths; minutes on two CPU cores."""

from score_sde.configs.presets import compose, ddpmpp, digits, flow, small


def get_config():
    return compose(ddpmpp, flow, digits, small)
