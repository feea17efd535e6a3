"""Small DDPM++ cont. (sub-VP) on scikit-learn's 8x8 digits."""

from configs.presets import compose, ddpmpp, digits, small, subvp


def get_config():
    return compose(ddpmpp, subvp, digits, small)
