"""Small DDPM++ on the 8x8 digits by flow matching with optimal coupling; minutes on two CPU cores."""

from score_sde.configs.flow_presets import optimal
from score_sde.configs.presets import compose, ddpmpp, digits, flow, small


def get_config():
    return compose(ddpmpp, flow, optimal(128), digits, small)
