"""Small magnitude-preserving U-Net on the 8x8 digits, by EDM2's training; ours, and minutes on two CPU cores."""

from score_sde.configs.edm2_presets import compose, digits, digits_size, edm2


def get_config():
    return compose(edm2, digits, digits_size)
