"""Small noise-conditional classifier (VP) of scikit-learn's 8x8 digits, under the noise of `vp/digits_*`."""

from score_sde.configs.presets import compose, digits, small_wideresnet, vp, wideresnet


def get_config():
    return compose(wideresnet, vp, digits, small_wideresnet)
