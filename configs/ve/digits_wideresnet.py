"""Small noise-conditional classifier (VE) of scikit-learn's 8x8 digits, under the noise of `ve/digits_*`."""

from score_sde.configs.presets import compose, digits, small_wideresnet, ve, wideresnet


def get_config():
    return compose(wideresnet, ve(5, scale_by_sigma=False), digits, small_wideresnet)
