"""Small DiT on the 8x8 digits by rectified flow; minutes on two CPU cores."""

from score_sde.configs.presets import compose, digits, flow
from score_sde.configs.transformer_presets import dit, small_dit


def get_config():
    return compose(dit("s", 2), flow, digits, small_dit)
