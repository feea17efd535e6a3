"""Small DDPM++ cont. (sub-VP) on scikit-learn's 8x8 digits."""

from score_sde.configs.presets import compose, ddpmpp, digits, small, subvp


def get_config():
    return compose(ddpmpp, subvp, digits, small)
