"""Held-out images of a set without an evaluation split, chosen by a hash of each image's name.

An image therefore stays on its side when others are added or removed.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from score_sde.errors import UsageError


def side(names: Sequence[str], fraction: float, *, train: bool, source: str) -> np.ndarray:
    """Indices of the training or evaluation images; about `fraction` of all, at least one, are held out.

    At 0 all images are in both. Raises `UsageError` where none would be left to train on.
    """
    everything = np.arange(len(names))
    if fraction == 0:
        return everything
    if len(names) < 2:
        raise UsageError(
            f"{source} has one image, which cannot be in both splits; add more, or set config.data.held_out=0 "
            "to evaluate on the training images."
        )
    numbers = np.array([_number(name) for name in names])
    held_out = numbers < fraction
    held_out[numbers.argmin()], held_out[numbers.argmax()] = True, False
    return everything[held_out != train]


def _number(name: str) -> float:
    """A hash in [0, 1) of the name's bytes in the file system, which need not be UTF-8."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=6).digest(), "big") / 2**48
