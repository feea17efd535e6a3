"""Array types: shapes, spelled once, and checked at run time only under pytest."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped, UInt8

Images = Float[Array, "b h w c"]  # model range, see images.Scaling
Pixels = UInt8[Array, "b h w c"] | UInt8[np.ndarray, "b h w c"]  # 0..255, as stored and as written
FeatureMaps = Float[Array, "b _ _ _"]  # inside a network, where sizes change
Times = Float[Array, " b"]  # in (0, 1]
PerSample = Float[Array, " b"]
Labels = Int[Array, " b"]  # classes 0, 1, ...
Keys = Key[Array, " b"]  # one typed PRNG key per sample
ScoreFn = Callable[[Images, Times], Images]

__all__ = [
    "Array",
    "FeatureMaps",
    "Float",
    "Images",
    "Int",
    "Key",
    "Keys",
    "Labels",
    "PerSample",
    "Pixels",
    "PyTree",
    "ScoreFn",
    "Shaped",
    "Times",
    "UInt8",
]
