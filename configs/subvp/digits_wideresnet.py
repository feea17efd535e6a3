"""Small noise-conditional classifier (sub-VP) of scikit-learn's 8x8 digits, under the noise of `subvp/digits_*`."""

from score_sde.configs.presets import compose, digits, small_wideresnet, subvp, wideresnet


def get_config():
    return compose(wideresnet, subvp, digits, small_wideresnet)
