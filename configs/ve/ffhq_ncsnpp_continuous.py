"""NCSN++ cont. (VE) on FFHQ, 1024x1024. The paper has samples only."""

from score_sde.configs.presets import compose, ema, ffhq_1024, ncsnpp_1024, ve


def get_config():
    return compose(ffhq_1024, ncsnpp_1024, ve(1348, 2000), ema(0.9999))
