"""U-Net (flow matching) that draws scenes of one object by their captions, 16x16; 0.5 s of a CPU core an update."""

from score_sde.configs.presets import compose, ema, flow
from score_sde.configs.scenes_presets import scenes, scenes_unet


def get_config():
    return compose(scenes, scenes_unet, flow, ema(0.999))
