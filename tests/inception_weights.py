"""Seeded weights of the FID Inception, under the names and in the layout of its PyTorch file."""

import numpy as np

from score_sde.metrics.inception import BLOCKS, CLASSES, DIMENSION, STEM


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Of a size that keeps the activations' throughout the network."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}

    def add(name: str, channels: int, inputs: int, kernel: tuple[int, int]) -> None:
        fan_in = inputs * kernel[0] * kernel[1]
        found[f"{name}.conv.weight"] = rng.normal(0, np.sqrt(2 / fan_in), (channels, inputs, *kernel))
        found[f"{name}.bn.weight"] = rng.uniform(0.8, 1.2, channels)
        found[f"{name}.bn.bias"] = rng.normal(0, 0.1, channels)
        found[f"{name}.bn.running_mean"] = rng.normal(0, 0.1, channels)
        found[f"{name}.bn.running_var"] = rng.uniform(0.8, 1.2, channels)

    inputs = 3
    for name, conv in STEM.items():
        add(name, conv.channels, inputs, conv.kernel)
        inputs = conv.channels
    for block, (width, convs) in BLOCKS.items():
        for name, conv in convs.items():
            number = name.rpartition("_")[2].rstrip("ab")
            before = f"{name.rpartition('_')[0]}_{int(number) - 1}" if number.isdigit() and number != "1" else None
            add(f"{block}.{name}", conv.channels, convs[before].channels if before else width, conv.kernel)
    found["fc.weight"] = rng.normal(0, DIMENSION**-0.5, (CLASSES, DIMENSION))
    found["fc.bias"] = rng.normal(0, 0.1, CLASSES)
    return {name: value.astype(np.float32) for name, value in found.items()}
