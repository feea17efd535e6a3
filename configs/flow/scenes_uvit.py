"""U-ViT (flow matching) that draws scenes of one object by their captions, 16x16; 1.1 s of a CPU core an update."""

from score_sde.configs.presets import compose, ema, flow
from score_sde.configs.scenes_presets import scenes, scenes_uvit


def get_config():
    return compose(scenes, scenes_uvit, flow, ema(0.999))
