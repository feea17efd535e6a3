"""Shares of numbers at the ends of the range, 0 and 255: samples have more than the data if x_0 left the range.

This happens with a barely trained network: its error in eps, times sigma / alpha, makes an x_0 that no image has (see
`score_sde.sampling.clipping`), and the final clipping moves those numbers to the ends.
"""

import math
from typing import Annotated, Any

import numpy as np

from score_sde.array_types import Float, UInt8
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError

IMAGES = 512  # of the data for which shares are measured; the mean is then within a hundredth
LEAST = 0.05  # difference of shares from which on pictures look different
ERRORS = 3  # standard errors that the difference must exceed


@check_arguments
def at_the_ends(pixels: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
    """The share of each image's numbers that are 0 or 255."""
    if not math.prod(pixels.shape[1:]):
        raise UsageError(f"Images of shape {pixels.shape[1:]} have no pixels.")
    return ((pixels == 0) | (pixels == 255)).mean(axis=tuple(range(1, pixels.ndim)))


@check_arguments
def compared(
    samples: Annotated[Float[np.ndarray, " n"], "[0, 1]"],
    data: Annotated[Float[np.ndarray, " m"], "[0, 1]"] | None,
    remedy: str = "train longer",
) -> dict[str, Any]:
    """The mean shares of samples and data, with a "warning" where the samples' is larger beyond doubt.

    samples, data: `at_the_ends` of each image; data: None where there are none to compare with. The share of samples
    counts as larger if it is larger by `LEAST`, by `ERRORS` standard errors for that many images of the data, and has
    twice the odds: some data are hardly ever at the ends (photographs, 2 %), and others often (digits, 50 %).

        import numpy as np
        from score_sde.metrics import at_the_ends, compared

        black, grey = np.zeros((8, 4, 4, 1), np.uint8), np.full((8, 4, 4, 1), 128, np.uint8)
        shares = compared(at_the_ends(black), at_the_ends(grey))  # samples: 1.0, data: 0.0, and a warning
    """
    if not len(samples) or (data is not None and not len(data)):
        raise UsageError("Shares are compared of one image or more, of samples and of data.")
    shares: dict[str, Any] = {
        "samples": float(np.mean(samples)),
        "data": None if data is None else float(np.mean(data)),
    }
    if data is None:
        return shares
    of_samples, of_data = shares["samples"], shares["data"]
    error = float(np.std(data)) * math.sqrt(1 / len(samples) + 1 / len(data))
    larger = of_samples - of_data > max(LEAST, ERRORS * error)
    if larger and of_samples * (1 - of_data) > 2 * of_data * (1 - of_samples):
        shares["warning"] = (
            f"{of_samples:.1%} of the samples' numbers are at the ends of the range, 0 or 255, and {of_data:.1%} of "
            f"the data's: the network predicts images that leave it; {remedy}."
        )
    return shares
