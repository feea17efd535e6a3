"""Small U-ViT (VP) on scikit-learn's 8x8 digits; minutes on two CPU cores."""

from score_sde.configs.presets import compose, digits, vp
from score_sde.configs.transformer_presets import small_uvit, uvit


def get_config():
    return compose(uvit("s", 2), vp, digits, small_uvit)
