"""NCSNv2 on LSUN bedrooms, 128x128. The paper has no figure."""

from score_sde.configs.presets import annealed_langevin, compose, discrete, ema, lsun, ncsnv2, ve


def get_config():
    return compose(
        lsun("bedroom", 128, batch_size=128),
        ncsnv2(128),
        ve(190, 1086),
        discrete,
        annealed_langevin(0.095, 3),
        ema(0.9999),
    )
