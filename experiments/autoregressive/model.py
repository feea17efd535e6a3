"""Autoregressive transformers of workdirs: `train` makes one, `load` reads it, and then it measures and samples.

import jax
from score_sde.experiments.autoregressive.config import get_config
from score_sde.experiments.autoregressive.model import load, train

train(get_config(), "runs/autoregressive")
model = load("runs/autoregressive")
samples = model.sample(jax.random.key(0), 16)  # uint8 (16, 8, 8, 1)
bits = model.bits_per_dim(samples)  # (16,)
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.autoregressive.density import Density, check_levels
from score_sde.experiments.autoregressive.training import labels_of, train

from score_sde import data, ema
from score_sde.array_types import Array, Integer, Key, PyTree, UInt8
from score_sde.config import AnyConfig
from score_sde.config.arguments import check_arguments
from score_sde.errors import UsageError
from score_sde.inference.inputs import of_shape
from score_sde.inference.snapshots import available_step
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints
from score_sde.io.result_cache import mean_and_error
from score_sde.randomness import Stream, batch_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded, program
from score_sde.runtime.memory import enough_memory
from score_sde.runtime.progress import bar
from score_sde.training.state import average_part

__all__ = ["Autoregressive", "load", "train"]
Images = UInt8[Array, "b h w c"]
Labels = Annotated[Integer[Array, " b"] | Integer[np.ndarray, " b"], "[0, inf)"]


@check_arguments
def load(
    directory: Path, ema: bool = True, step: int | None = None, config: AnyConfig | None = None
) -> "Autoregressive":
    """The transformer of a workdir, with the averaged or the raw weights of a checkpoint, by default the last.

    config: of the same run, with other values of `eval` and `sampling`; default the workdir's. Raises `UsageError` for
    a folder without such a run or checkpoint.
    """
    directory = expanded(directory)
    step = available_step(directory, step)
    if config is not None:
        workdir.check_same_run(directory, config.to_dict())
    density = Density(workdir.stored_config(directory) if config is None else config)
    with Checkpoints(directory / "checkpoints") as saved:
        params, digest = saved.load_part(step, _part(density) if ema else "params"), saved.digest(step)
    return Autoregressive(density, sharding.place(params), step, digest)


def _part(density: Density) -> str:
    """The name of the average that the config chooses, in a checkpoint."""
    return average_part(density.profiles, ema.chosen(density.profiles, density.config.sampling.ema))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Autoregressive:
    """A transformer over pixels with its parameters. step, digest: of the checkpoint that they are from.

    labels are of shape (b,) for a network with classes, and None for others.
    """

    density: Density
    params: PyTree
    step: int = 0
    digest: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.density.image_shape

    @property
    def num_params(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def evaluations(self) -> int:
        """The number of network evaluations a sample: one for each byte, and each of them is of one token."""
        return self.density.network.length

    @check_arguments
    def bits_per_dim(self, pixels: Images, labels: Labels | None = None) -> np.ndarray:
        """The exact -log2 p(x) / (h w c) of each uint8 image, float32 (b,).

        Raises `UsageError` for images of another shape, bytes from `model.levels` on, and labels that do not fit.
        """
        check_levels(self.density, np.asarray(of_shape(pixels, self.image_shape)))
        labels = self._labels(labels, len(pixels))
        return np.asarray(self._bits(self.params, *sharding.split(pixels, labels)))[: len(pixels)]

    @check_arguments
    def sample(
        self,
        key: Key[Array, "..."],
        n: Annotated[int, "[1, inf)"],
        *,
        temperature: Annotated[float, "(0, inf)"] = 1.0,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """Samples n images, uint8 (n, h, w, c), of which image i depends on the key and i alone.

        key: a single one, or one for each image. temperature: divides the logits; below 1 likely bytes get likelier.
        """
        return self._complete(key, np.zeros((n, *self.image_shape), np.uint8), 0, temperature, labels)

    @check_arguments
    def complete(
        self,
        key: Key[Array, "..."],
        pixels: Images,
        count: Annotated[int, "[0, inf)"],
        *,
        temperature: Annotated[float, "(0, inf)"] = 1.0,
        labels: Labels | None = None,
    ) -> np.ndarray:
        """Samples images whose first `count` pixels, in raster order with all channels, are those of `pixels`.

        It is exact, and the only kind of mask that is: pixels that are known after ones that are not cannot be held
        fixed without other means. Arguments as for `sample`.
        """
        of_shape(pixels, self.image_shape)
        return self._complete(key, np.asarray(pixels), count * self.image_shape[2], temperature, labels)

    def flops_per_image(self) -> float:
        """Floating-point operations of the forward pass of one image in training, as XLA counts them."""
        pixels = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.uint8)
        labels = jax.ShapeDtypeStruct((1,), jnp.int32) if self.density.num_classes else None
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self.params)
        cost = program(self.density.logits).lower(like, pixels, labels).cost_analysis()
        return float(cost["flops"])

    def _complete(self, key: Array, pixels: np.ndarray, count: int, temperature: float, labels: Any) -> np.ndarray:
        n, labels = len(pixels), self._labels(labels, len(pixels))
        size = min(self.density.config.eval.batch_size, sharding.pad_to_devices(n))
        keys, parts = stream(batch_keys(key, n), Stream.SAMPLE), []
        memory = enough_memory(f"sampling at eval.batch_size={size}", lambda: "lower eval.batch_size")
        with memory, bar("sampling", n, "img") as progress:
            for indices, valid in data.padded_chunks(n, size):
                chosen = None if labels is None else labels[indices]
                own_keys, known, chosen = sharding.split(keys[indices], pixels[indices], chosen)
                drawn = self._draw(self.params, own_keys, chosen, known, np.int32(count), np.float32(temperature))
                parts.append(np.asarray(drawn)[:valid])
                progress.update(valid)
        return np.concatenate(parts)

    def _labels(self, labels: Any, n: int) -> np.ndarray | None:
        """The labels of n images as the network takes them. Raises `UsageError` for others."""
        classes = self.density.num_classes
        if (labels is None) == bool(classes):
            raise UsageError(
                f"This transformer has {classes} classes; give labels of 0 to {classes - 1}, one for each image."
                if classes
                else "This transformer has no classes; leave labels out."
            )
        if labels is None:
            return None
        labels = np.asarray(labels, np.int32)
        if len(labels) != n or labels.max(initial=0) >= classes:
            raise UsageError(
                f"{len(labels)} labels up to {labels.max(initial=0)} do not fit {n} images of {classes} classes; give "
                f"one of 0 to {classes - 1} for each."
            )
        return labels

    @functools.cached_property
    def _bits(self) -> Callable:
        return sharding.pmap(self.density.bits_per_dim, in_axes=(None, 0, 0), out_axes=None)

    @functools.cached_property
    def _draw(self) -> Callable:
        return sharding.pmap(self.density.sample, in_axes=(None, 0, 0, 0, None, None), out_axes=None)


def bits_per_dim(model: Autoregressive, source: data.Source) -> dict[str, Any]:
    """The mean of bits/dim over a split, or `eval.max_images` of it, with its standard error over images."""
    part = data.part_of(len(source), model.density.config.eval.max_images)
    size, entries, parts = model.density.config.eval.batch_size, model.density.cond_entries, []
    size = min(size, sharding.pad_to_devices(len(part)))
    memory = enough_memory(f"bits/dim at eval.batch_size={size}", lambda: "lower eval.batch_size")
    with memory, bar("bits/dim", len(part), "img") as progress:
        for indices, valid in data.padded_chunks(len(part), size):
            batch = source.take(part[indices])
            parts.append(model.bits_per_dim(batch.images, labels_of(batch.cond if entries else None))[:valid])
            progress.update(valid)
    return mean_and_error(np.concatenate(parts)[None])
