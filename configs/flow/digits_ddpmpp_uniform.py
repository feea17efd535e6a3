"""Small DDPM++ on the 8x8 digits by flow matching at uniform times; minutes on two CPU cores."""

from score_sde.configs.flow_presets import uniform_times
from score_sde.configs.presets import compose, ddpmpp, digits, flow, small


def get_config():
    return compose(ddpmpp, flow, uniform_times, digits, small)
