"""Small NCSN++ cont. (VE) on scikit-learn's 8x8 digits; sigma_max: the two most distant are 4.8 apart."""

from score_sde.configs.presets import compose, digits, ncsnpp, small, ve


def get_config():
    return compose(ncsnpp, ve(5), digits, small)
