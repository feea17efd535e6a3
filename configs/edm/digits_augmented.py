"""Small DDPM++ of EDM on the 8x8 digits, with EDM's augmentation and the data's own sigma_data; minutes on a CPU."""

from score_sde.configs.edm_presets import augmented, compose, ddpmpp, digits, small


def get_config():
    return compose(digits, ddpmpp, small, augmented)
