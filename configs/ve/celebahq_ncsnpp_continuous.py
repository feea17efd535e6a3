"""NCSN++ cont. (VE) on CelebA-HQ, 1024x1024. The paper has samples only."""

from score_sde.configs.presets import celebahq_1024, compose, ema, ncsnpp_1024, ve


def get_config():
    return compose(celebahq_1024, ncsnpp_1024, ve(1348, 2000), ema(0.9999))
