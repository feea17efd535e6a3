r"""Couplings: which noise an image meets in training.

Flow matching joins noise and data by straight lines, and learns the mean velocity of the lines through each point.
Which noise is joined to which image is free, as long as all noise together stays standard normal:

| `training.coupling` | the noise of an image                                     | reference                        |
|---------------------|-----------------------------------------------------------|----------------------------------|
| independent         | its own                                                   | every diffusion model            |
| optimal             | that of a row of its block, so that the sum of all        | Tong et al., 2023; Pooladian et  |
|                     | \|x_0 - eps\|^2 of the block is the least                 | al., 2023                        |
| pairs               | the one from which a teacher's ODE made the image: reflow | Liu et al., 2023                 |

With the last two the network's velocity still carries noise to data by its ODE, along straighter lines. E[eps | x_t] is
then no score: -E[eps | x_t] / sigma is the gradient of log p_t only where x_0 and eps are independent. All that needs
a score is refused for such a network: see `check_coupling`, and `solves_ode` in `sampler_options`.

Noise is named by numbers, of rows or of pairs, from which the update makes its keys. So no image and no noise is moved
between devices, and the noise of an optimal coupling is that of an independent training, in another order.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from score_sde import images
from score_sde.array_types import Array, Float, Int, Integer, Key, Keys
from score_sde.cond import Cond
from score_sde.config.arguments import check_arguments
from score_sde.data import Batch, Source
from score_sde.data.pairs import Pairs, pair_keys
from score_sde.errors import UsageError
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import sharding
from score_sde.runtime.backend import expanded, program
from score_sde.training.build import Classification, Experiment


class Coupling(NamedTuple):
    """A coupling.

    numbers: (step, rows, indices, batch) -> the number of the noise of each row, int32, computed on the host; None
    where every row has its own. rows: those of this process, in the whole batch. indices: those of the images. keys:
    (keys of the rows, numbers) -> keys of their noise. source: the images to train on, if not those of config.data.
    """

    numbers: Callable[[int, np.ndarray, np.ndarray, Batch], np.ndarray] | None = None
    keys: Callable[[Keys, Int[Array, " b"]], Keys] = lambda keys, numbers: keys[numbers]
    source: Source | None = None


def coupling_of(experiment: Experiment | Classification) -> Coupling:
    """The coupling of an experiment's config, made once. Raises `UsageError` for one that cannot be had."""
    make = COUPLINGS[experiment.config.training.coupling]
    return experiment.once("coupling", lambda: make(experiment))


def _independent(experiment: Experiment | Classification) -> Coupling:
    return Coupling()


def _optimal(experiment: Experiment) -> Coupling:
    """The optimal coupling of each block of consecutive rows, within images of the same condition."""
    block = experiment.config.training.coupling_block
    _check_blocks(experiment.config.training.batch_size, block)
    host = jax.local_devices(backend="cpu")[0]  # on others, the images of a batch would wait for the update before it
    seed = experiment.config.seed

    def drawn(step: Array, rows: Array, pixels: Array) -> tuple[Array, Array]:
        """x_0 and eps of these rows, as `run.train_step` draws them."""
        keys = sample_keys(update_key(seed, step), rows)
        x0 = experiment.scaling.to_model(experiment.augment(keys, images.to_unit(pixels)))
        return x0, experiment.draw(keys, x0)[1]

    compiled = program(drawn)

    def numbers(step: int, rows: np.ndarray, indices: np.ndarray, batch: Batch) -> np.ndarray:
        groups = _groups(batch.cond, len(rows))
        of_noise = np.empty(len(rows), np.int32)
        for first in range(0, len(rows), block):
            part = slice(first, first + block)
            with jax.default_device(host):
                x0, eps = jax.device_get(compiled(np.int32(step), rows[part].astype(np.uint32), batch.images[part]))
            of_noise[part] = rows[part][_within(groups[part], x0, eps)]
        return of_noise

    return Coupling(numbers)


def _pairs(experiment: Experiment) -> Coupling:
    """The coupling of a teacher's pairs, whose images are trained on in the place of the data set's."""
    folder = experiment.config.training.pairs
    if not folder:
        raise UsageError("training.coupling=pairs needs a folder of pairs; set training.pairs=FOLDER.")
    source = Pairs(expanded(folder))
    if source.image_shape != tuple(experiment.image_shape):
        raise UsageError(
            f"training.pairs={folder} holds images of shape {source.image_shape}, and this config's are of "
            f"{tuple(experiment.image_shape)}; set data.image_size and data.num_channels to theirs."
        )
    for entry in experiment.cond_entries:
        if entry not in source.cond_entries:
            raise UsageError(
                f"training.pairs={folder} holds no {entry}, on which this network is trained; make pairs of a teacher "
                "that is given them (--config.sampling.condition=class=all), or choose a network without."
            )

    def numbers(step: int, rows: np.ndarray, indices: np.ndarray, batch: Batch) -> np.ndarray:
        return indices.astype(np.int32)

    def noise_keys(keys: Keys, numbers: Int[Array, " b"]) -> Keys:
        return pair_keys(source.seed, source.number, numbers)

    return Coupling(numbers, noise_keys, source)


def update_key(seed: int, step: Int[Array, ""]) -> Key[Array, ""]:
    """The key of an update, after `step` others, of which its rows' keys are made."""
    return stream(stream(stream(jax.random.key(seed), Stream.TRAIN), step), Stream.SAMPLE)


@check_arguments
def optimal_assignment(x0: Float[np.ndarray, "n ..."], eps: Float[np.ndarray, "n ..."]) -> Integer[np.ndarray, " n"]:
    """The permutation p with the least sum of |x0[i] - eps[p[i]]|^2, exact, by `scipy.optimize.linear_sum_assignment`.

    Raises `UsageError` for numbers that are not finite.

        import numpy as np
        from score_sde.training.coupling import optimal_assignment

        p = optimal_assignment(np.array([[0.0], [1.0]]), np.array([[2.0], [-1.0]]))  # [1, 0]
    """
    rows, others = (array.reshape(len(array), -1).astype(np.float64) for array in (x0, eps))
    if not (np.isfinite(rows).all() and np.isfinite(others).all()):
        raise UsageError("Images or noise to be coupled are not finite.")
    return linear_sum_assignment(-rows @ others.T)[1]  # the squares of the rows are the same for every permutation


def _within(groups: np.ndarray, x0: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """The permutation that couples the rows of each group optimally with the noise of this group."""
    order = np.arange(len(groups))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        order[own] = own[optimal_assignment(x0[own], eps[own])]
    return order


def _groups(cond: Cond | None, n: int) -> np.ndarray:
    """A number for each row, the same for rows of the same condition: the noise must not tell the condition."""
    leaves = [np.ascontiguousarray(leaf).reshape(n, -1).view(np.uint8) for leaf in jax.tree.leaves(cond)]
    if not leaves:
        return np.zeros(n, np.int64)
    return np.unique(np.concatenate(leaves, axis=1), axis=0, return_inverse=True)[1].reshape(n)


def _check_blocks(batch_size: int, block: int) -> None:
    """Raises `UsageError` unless each block of rows is of one process, which couples it."""
    first = sharding.local_rows(batch_size)[::block]
    own = (first[:, None] + np.arange(block)).ravel()
    if not np.array_equal(own, sharding.local_rows(batch_size)) or np.any(first % block):
        raise UsageError(
            f"training.coupling_block={block} rows must be of one process, and each of {jax.process_count()} has "
            f"{len(sharding.local_rows(batch_size))} rows of a batch; set a training.coupling_block that divides them."
        )


COUPLINGS: dict[str, Callable[..., Coupling]] = {"independent": _independent, "optimal": _optimal, "pairs": _pairs}
