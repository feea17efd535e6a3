"""Networks; they know no SDE.

Score networks map (image, noise_cond, cond) -> image, classifiers (image, sigma) -> logits; a third kind is the
dequantizer. A score network declares the entries of `cond` that it takes by a property `cond_entries`: see
`score_sde.cond`.
"""

from score_sde.models.adm import ADM
from score_sde.models.compute import PRECISIONS, Compute, check_computes
from score_sde.models.ddpm import DDPM
from score_sde.models.dequantizer import Dequantizer
from score_sde.models.dit import DiT
from score_sde.models.edm2 import EDM2UNet
from score_sde.models.encoders import TokenEncoder, VectorEncoder
from score_sde.models.layers import is_trainable
from score_sde.models.ncsn import NCSN, NCSNv2, NCSNv2_128, NCSNv2_256
from score_sde.models.ncsnpp import NCSNpp
from score_sde.models.text_encoder import SequenceEncoder, TextEncoder
from score_sde.models.uvit import UViT
from score_sde.models.wide_resnet import WideResnet

MODELS = {
    "ncsnpp": NCSNpp,
    "ddpm": DDPM,
    "adm": ADM,
    "ncsnv2_64": NCSNv2,
    "ncsnv2_128": NCSNv2_128,
    "ncsnv2_256": NCSNv2_256,
    "ncsn": NCSN,
    "edm2": EDM2UNet,
    "uvit": UViT,
    "dit": DiT,
}
CLASSIFIERS = {"wideresnet": WideResnet}
ENCODERS = {"vector": VectorEncoder, "tokens": TokenEncoder, "text": TextEncoder, "sequence": SequenceEncoder}

__all__ = [
    "ADM",
    "CLASSIFIERS",
    "DDPM",
    "ENCODERS",
    "MODELS",
    "PRECISIONS",
    "Compute",
    "Dequantizer",
    "DiT",
    "EDM2UNet",
    "NCSNpp",
    "NCSNv2",
    "UViT",
    "WideResnet",
    "check_computes",
    "is_trainable",
]
