"""A small network trained on the data set at hand, whose features give a distance where Inception has no weights.

It predicts the labels of a data set that has them, otherwise by how many quarter turns an image was rotated (Gidaris
et al., 2018), or half turns where images are not square; and also how an image was corrupted. (Features of a network
that has seen only data can place noise among the data, which raises precision.) Its distances compare models of one
data set with each other only.
"""

import shutil
from pathlib import Path
from typing import Annotated, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from score_sde import data, images
from score_sde.array_types import Array, Float, Pixels, PyTree
from score_sde.config.keys import SEEDS
from score_sde.errors import UsageError
from score_sde.io import atomic_files
from score_sde.io.checkpoints import Retention
from score_sde.metrics.corruptions import CORRUPTIONS, corrupted
from score_sde.metrics.protocol import fingerprint
from score_sde.randomness import Stream, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import program
from score_sde.training.loop import Training, fit
from score_sde.training.nan_guard import DivergenceError
from score_sde.training.state import TrainState, updated

TURNS = 4
KINDS = len(CORRUPTIONS) + 1  # 0: not corrupted
LOG_FREQ, SAVE_FREQ = 50, 200
VERSION = 2  # of the features; it changes whenever their numbers do


class Options(NamedTuple):
    """Options of the network and its training. dimension: number of features."""

    nf: Annotated[int, "[1, inf)"] = 32
    dimension: Annotated[int, "[1, inf)"] = 64
    n_iters: Annotated[int, "[1, inf)"] = 1000
    batch_size: Annotated[int, "[1, inf)"] = 128
    lr: Annotated[float, "(0, inf)"] = 1e-3
    seed: Annotated[int, SEEDS] = 0


class Network(nn.Module):
    """Convolutions that halve the sides until the height is at most 4 pixels, then layers of features and outputs."""

    nf: int
    dimension: int
    num_classes: int

    @nn.compact
    def __call__(self, pixels: Pixels) -> tuple[Array, Array, Array]:
        """Features (b, dimension), logits of the classes (b, num_classes), and of the kind of corruption (b, KINDS)."""
        x = nn.relu(nn.Conv(self.nf, (3, 3))(2 * images.to_unit(pixels) - 1))
        channels = self.nf
        while x.shape[1] > 4:
            channels = min(2 * channels, 8 * self.nf)
            x = nn.relu(nn.GroupNorm(num_groups=None, group_size=8)(nn.Conv(channels, (3, 3), strides=2)(x)))
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
        features = nn.Dense(self.dimension)(x.reshape(len(x), -1))
        active = nn.relu(features)
        return features, nn.Dense(self.num_classes)(active), nn.Dense(KINDS)(active)


class Task(NamedTuple):
    """The task of a feature network, besides corruptions.

    labelled: whether it learns labels; otherwise it learns turns, which leave the shape as it is.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    labelled: bool


def task_of(source: data.Source) -> Task:
    """The task for a data set: labels, where it has at least two."""
    shape, classes = source.take(np.arange(1)).images.shape[1:], source.num_classes
    turns = TURNS if shape[0] == shape[1] else TURNS // 2
    return Task(shape, *((classes, True) if classes > 1 else (turns, False)))


def features(options: Options, task: Task, params: PyTree, pixels: Pixels) -> Float[Array, "b d"]:
    """Features of uint8 images, by trained parameters."""
    return Network(options.nf, options.dimension, task.num_classes).apply({"params": params}, pixels)[0]


def trained(options: Options, source: data.Source, folder: Path) -> PyTree:
    """Parameters of a network trained on a data set, now or by an earlier call; they are kept in `folder`.

    A training that is stopped goes on with the next call. If two calls run at once, one trains and the other waits.
    """
    of = {"data": source.digest(), "options": options._asdict(), "task": task_of(source)._asdict(), "version": VERSION}
    identity = fingerprint(of)
    path, work = folder / f"features_{identity}.npz", folder / f"features_{identity}"
    leaves = atomic_files.read_arrays(path)
    if not sharding.all_agree(leaves is not None):
        with atomic_files.locked(work, "train", "choose another config.metrics.dir", wait=True):
            leaves = atomic_files.read_arrays(path)  # written by another run that had the lock
            if not sharding.all_agree(leaves is not None):
                leaves = traverse_util.flatten_dict(train(options, source, work), sep="/")
                atomic_files.replace(path, lambda file: np.savez(file, **leaves), "config.metrics.dir")
            if sharding.is_first():
                shutil.rmtree(work, ignore_errors=True)
    return traverse_util.unflatten_dict(leaves, sep="/")


def train(options: Options, source: data.Source, folder: Path) -> PyTree:
    """Parameters of a network trained on a data set, a function of both; goes on from checkpoints in `folder`.

    Runs of several processes keep no checkpoints, as each machine may have a folder of its own. Raises `UsageError` if
    training fails, `Stopped` after a notice to stop.
    """
    task = task_of(source)
    net = Network(options.nf, options.dimension, task.num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(options.lr, options.n_iters))
    key = stream(jax.random.key(options.seed), Stream.FEATURES)

    def init() -> TrainState:
        params = net.init(stream(key, Stream.INIT), jnp.zeros((1, *task.image_shape), jnp.uint8))["params"]
        return TrainState(jnp.int32(0), params, optimizer.init(params), ())

    def batch(step: int) -> tuple[Array, ...]:
        indices = data.batch_indices(len(source), options.batch_size, seed=options.seed, step=step)
        return sharding.split(*_examples(task, source.take(indices), options.seed, step))

    def update(state: TrainState, pixels: Pixels, targets: Array, kinds: Array) -> tuple[TrainState, Array]:
        def mean_loss(params: PyTree) -> Array:
            _, classes, corruptions = net.apply({"params": params}, pixels)
            intact = kinds == 0  # corrupted images may no longer show their class
            of_classes = optax.softmax_cross_entropy_with_integer_labels(classes, targets).mean(where=intact)
            return of_classes + optax.softmax_cross_entropy_with_integer_labels(corruptions, kinds).mean()

        loss, grads = jax.value_and_grad(mean_loss)(state.params)
        params, opt_state = updated(state.params, state.opt_state, grads, optimizer)
        return TrainState(state.step + 1, params, opt_state, ()), loss

    def diverged(problem: DivergenceError) -> UsageError:
        return UsageError(f"Training features failed: the loss is {problem.value}; lower config.metrics.lr.")

    training = Training(
        "training features",
        init=lambda: sharding.place(program(init)()),
        like=sharding.like(jax.eval_shape(init)),
        batch=batch,
        update=sharding.pmap(update, in_axes=(None, 0, 0, 0), out_axes=(None, None), donate_argnums=(0,)),
        diverged=diverged,
        n_iters=options.n_iters,
        log_freqs=(LOG_FREQ,),
        save_freqs=(SAVE_FREQ,),
        shown="loss {:.3g}",
    )
    retention = Retention() if jax.process_count() == 1 else None
    return jax.tree.map(np.asarray, fit(training, folder, retention).params)


def _examples(task: Task, batch: data.Batch, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, every second one of them corrupted, their classes, and their kinds of corruption."""
    rng = np.random.default_rng([seed, step])
    pixels, kinds = corrupted(rng, batch.images)
    if task.labelled:
        return pixels, batch.labels.astype(np.int32), kinds
    turns = rng.integers(0, task.num_classes, len(pixels)).astype(np.int32)
    quarters = TURNS // task.num_classes * turns
    return np.stack([np.rot90(image, n) for image, n in zip(pixels, quarters, strict=True)]), turns, kinds
