"""Corruptions of images, which a feature network learns to tell from the data, so that its features separate them.

Each takes a generator and images (n, h, w, c), float in 0..255, and returns such images; they may leave the range.
"""

from collections.abc import Callable

import numpy as np

Generator = np.random.Generator
Corruption = Callable[[Generator, np.ndarray], np.ndarray]


def corrupted(rng: Generator, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images, every second one of them corrupted, and the kind of corruption of each: 0 for none, or 1 and up.

    All kinds are equally frequent. images: uint8 (n, h, w, c).
    """
    result, kinds = images.astype(np.float64), np.zeros(len(images), np.int32)
    for kind, corruption in enumerate(CORRUPTIONS, 1):
        rows = np.arange(2 * kind - 1, len(images), 2 * len(CORRUPTIONS))
        if len(rows):
            result[rows], kinds[rows] = corruption(rng, result[rows]), kind
    return np.clip(result, 0, 255).astype(np.uint8), kinds


def _each(x: np.ndarray) -> tuple[int, int, int, int]:
    """Shape of an array with one number for each image."""
    return len(x), 1, 1, 1


def _between(rng: Generator, low: float, high: float, x: np.ndarray) -> np.ndarray:
    """A number between `low` and `high` for each image, log-uniform."""
    return np.exp(rng.uniform(np.log(low), np.log(high), _each(x)))


def _noisy(low: float, high: float) -> Corruption:
    """Gaussian noise is added, with a standard deviation between these levels of 255."""
    return lambda rng, x: x + _between(rng, low, high, x) * rng.normal(size=x.shape)


def _noise(rng: Generator, x: np.ndarray) -> np.ndarray:
    """Pure noise replaces the image: normal with any mean and spread, often all but black and white; or uniform."""
    normal = rng.uniform(64, 192, _each(x)) + _between(rng, 16, 2000, x) * rng.normal(size=x.shape)
    return np.where(rng.random(_each(x)) < 0.3, rng.uniform(0, 255, x.shape), normal)


def _blurred(low: float, high: float) -> Corruption:
    """A Gaussian blur, of a width between these fractions of the image's height."""
    return lambda rng, x: _smooth(x, x.shape[1] * _between(rng, low, high, x))


def _smooth(x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Images filtered by Gaussians of these standard deviations, in pixels; edges are mirrored."""
    h, w = x.shape[1:3]
    mirrored = np.concatenate([x, x[:, ::-1]], axis=1)
    mirrored = np.concatenate([mirrored, mirrored[:, :, ::-1]], axis=2)
    squares = np.fft.fftfreq(2 * h)[:, None] ** 2 + np.fft.rfftfreq(2 * w) ** 2
    spectrum = np.fft.rfft2(mirrored, axes=(1, 2)) * np.exp(-2 * (np.pi * sigma) ** 2 * squares[None, :, :, None])
    return np.fft.irfft2(spectrum, s=(2 * h, 2 * w), axes=(1, 2))[:, :h, :w]


def _shuffled(rng: Generator, x: np.ndarray) -> np.ndarray:
    """The pixels in a random order."""
    pixels = x.reshape(len(x), -1, x.shape[-1])
    order = np.argsort(rng.random(pixels.shape[:2]), axis=1)
    return np.take_along_axis(pixels, order[:, :, None], axis=1).reshape(x.shape)


def _patched(rng: Generator, x: np.ndarray) -> np.ndarray:
    """The quarters, or sixteenths, in a random order; a remainder that does not divide stays."""
    n, h, w, c = x.shape
    parts = min(int(rng.choice([2, 4])), h, w)
    rows, columns = h // parts, w // parts
    inside = x[:, : parts * rows, : parts * columns].reshape(n, parts, rows, parts, columns, c)
    patches = inside.transpose(0, 1, 3, 2, 4, 5).reshape(n, parts**2, -1)
    order = np.argsort(rng.random(patches.shape[:2]), axis=1)
    patches = np.take_along_axis(patches, order[:, :, None], axis=1).reshape(n, parts, parts, rows, columns, c)
    result = x.copy()
    result[:, : parts * rows, : parts * columns] = patches.transpose(0, 1, 3, 2, 4, 5).reshape(
        n, parts * rows, parts * columns, c
    )
    return result


def _mixed(rng: Generator, x: np.ndarray) -> np.ndarray:
    """A blend of two images."""
    weight = rng.uniform(0.3, 0.7, _each(x))
    return weight * x + (1 - weight) * np.roll(x, 1, axis=0)


def _contrast(rng: Generator, x: np.ndarray) -> np.ndarray:
    """An image with less or more contrast."""
    factor = _between(rng, 1.7, 6, x)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (x - mean) * np.where(rng.random(_each(x)) < 0.5, factor, 1 / factor)


def _coarse(rng: Generator, x: np.ndarray) -> np.ndarray:
    """An image with only 2 to 4 levels."""
    steps = rng.integers(1, 4, _each(x))
    return np.round(x / 255 * steps) * 255 / steps


def _phases(rng: Generator, x: np.ndarray) -> np.ndarray:
    """An image with its own power at each frequency, but the phases of noise."""
    noise = np.fft.rfft2(rng.normal(size=(*x.shape[:3], 1)), axes=(1, 2))
    phases = noise / np.maximum(np.abs(noise), 1e-9)
    phases[:, 0, 0] = 1  # the mean stays
    return np.fft.irfft2(np.fft.rfft2(x, axes=(1, 2)) * phases, s=x.shape[1:3], axes=(1, 2))


def _recoloured(rng: Generator, x: np.ndarray) -> np.ndarray:
    """A negative, other order of channels, or greyscale; for greyscale images a negative."""
    if x.shape[-1] == 1:
        return 255 - x
    order = np.argsort(rng.random((len(x), 1, 1, x.shape[-1])), axis=-1)
    grey = np.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)
    which = rng.integers(0, 3, _each(x))
    return np.where(which == 0, 255 - x, np.where(which == 1, np.take_along_axis(x, order, axis=-1), grey))


def _cut_out(rng: Generator, x: np.ndarray) -> np.ndarray:
    """Unlike the data: rounded shapes cut out of an image, grey or not, on a plain ground."""
    shape = _smooth(rng.normal(size=(*x.shape[:3], 1)), x.shape[1] * rng.uniform(1 / 16, 1 / 5, _each(x))) > 0
    inside = np.where(rng.random(_each(x)) < 0.5, x.mean(axis=-1, keepdims=True), x)
    plain = rng.uniform(0, 255, (len(x), 1, 1, x.shape[-1]))
    ground = np.where(rng.random(_each(x)) < 0.5, plain, 255 * rng.integers(0, 2, _each(x)))
    return np.where(shape, inside, ground)


CORRUPTIONS: list[Corruption] = [
    _noisy(6, 20),
    _noisy(20, 60),
    _noisy(60, 200),
    _noise,
    _blurred(1 / 48, 1 / 24),
    _blurred(1 / 24, 1 / 8),
    _blurred(1 / 8, 2),
    _shuffled,
    _patched,
    _mixed,
    _contrast,
    _coarse,
    _phases,
    _recoloured,
    _cut_out,
]
