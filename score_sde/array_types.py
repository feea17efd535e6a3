"""Array types: shapes, spelled once, and checked at run time only under pytest."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree, Real, Shaped, UInt8, UInt32

UnitImages = Float[Array, "b h w c"]  # data in [0, 1], as users give and get them
ModelImages = Float[Array, "b h w c"]  # model range, see images.Scaling: x, x0, eps, scores, and what networks take
Pixels = UInt8[Array, "b h w c"] | UInt8[np.ndarray, "b h w c"]  # 0..255, as stored and as written
FeatureMaps = Float[Array, "b _ _ _"]  # inside a network, where sizes change
Times = Annotated[Float[Array, " b"], "[0, 1]"]  # 0 is a time of chains, and elsewhere of data without noise
PerSample = Float[Array, " b"]
Labels = Int[Array, " b"]  # classes 0, 1, ...
Keys = Key[Array, " b"]  # one typed PRNG key per sample
ImageShape = tuple[Annotated[int, "[1, inf)"], Annotated[int, "[1, inf)"], Annotated[int, "[1, inf)"]]  # h, w, c
ScoreFn = Callable[[ModelImages, Times], ModelImages]

__all__ = [
    "Array",
    "Bool",
    "FeatureMaps",
    "Float",
    "ImageShape",
    "Int",
    "Integer",
    "Key",
    "Keys",
    "Labels",
    "ModelImages",
    "PerSample",
    "Pixels",
    "PyTree",
    "Real",
    "ScoreFn",
    "Shaped",
    "Times",
    "UInt8",
    "UInt32",
    "UnitImages",
]


def __getattr__(name):
    if name == "Images":
        raise ImportError("score_sde.array_types.Images is now UnitImages, in [0, 1], and ModelImages, in model range.")
    raise AttributeError(f"module 'score_sde.array_types' has no attribute '{name}'")
