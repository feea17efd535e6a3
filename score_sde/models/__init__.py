"""Score networks: (image, label) -> image. They know no SDE and no config."""

from score_sde.models.layers import is_trainable
from score_sde.models.ncsnpp import NCSNpp

MODELS = {"ncsnpp": NCSNpp}

__all__ = ["MODELS", "is_trainable"]
