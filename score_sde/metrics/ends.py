"""Numbers at the ends of the range, 0 and 255: samples have more of them than the data where x_0 has left the range.

So do samples of a young network: its error in eps, times sigma / alpha, is an x_0 that no image has (see
`score_sde.sampling.clipping`), and what is then clipped for the last time stands at the ends.
"""

import math
from typing import Any

import numpy as np

from score_sde.array_types import Float, Pixels

IMAGES = 512  # of the data, among which shares are measured: their mean is within a hundredth
LEAST = 0.05  # what the difference of shares must be, for a picture to look different
ERRORS = 3  # standard errors that it must be, for few samples


def at_the_ends(pixels: Pixels) -> Float[np.ndarray, " n"]:
    """The share of each image's numbers that are 0 or 255."""
    pixels = np.asarray(pixels)
    return ((pixels == 0) | (pixels == 255)).mean(axis=tuple(range(1, pixels.ndim)))


def compared(
    samples: Float[np.ndarray, " n"], data: Float[np.ndarray, " m"] | None, remedy: str = "train longer"
) -> dict[str, Any]:
    """The mean shares of samples and data, with a "warning" where the samples' is larger beyond doubt.

    samples, data: `at_the_ends` of each image; data: None where there are none to compare with. Larger is: by `LEAST`,
    by `ERRORS` standard errors of what so many samples of the data would have, and with twice the odds. Odds, as the
    data of one set are hardly ever at the ends (photographs, 2 %), and those of another mostly (digits, 50 %).
    """
    found: dict[str, Any] = {"samples": float(np.mean(samples)), "data": None if data is None else float(np.mean(data))}
    if data is None:
        return found
    of_samples, of_data = found["samples"], found["data"]
    error = float(np.std(data)) * math.sqrt(1 / len(samples) + 1 / len(data))
    larger = of_samples - of_data > max(LEAST, ERRORS * error)
    if larger and of_samples * (1 - of_data) > 2 * of_data * (1 - of_samples):
        found["warning"] = (
            f"{of_samples:.1%} of the samples' numbers are at the ends of the range, 0 or 255, and {of_data:.1%} of "
            f"the data's: the network predicts images that leave it; {remedy}."
        )
    return found
