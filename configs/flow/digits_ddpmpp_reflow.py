"""Small DDPM++ on the 8x8 digits by reflow, from pairs of a teacher in training.pairs; minutes on two CPU cores."""

from score_sde.configs.flow_presets import reflow, uniform_times
from score_sde.configs.presets import compose, ddpmpp, digits, flow, small


def get_config():
    return compose(ddpmpp, flow, uniform_times, reflow, digits, small)
