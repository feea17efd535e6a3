"""Small DDPM++ cont. (VP) on scikit-learn's 8x8 digits: the demo, minutes on two CPU cores."""

from score_sde.configs.presets import compose, ddpmpp, digits, small, vp


def get_config():
    return compose(ddpmpp, vp, digits, small)
