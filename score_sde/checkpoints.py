"""Checkpoints of the training state, by Orbax: saved in the background, committed by a rename."""

import logging
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from score_sde.array_types import PyTree
from score_sde.errors import UsageError

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax reports every file it writes


class Checkpoints:
    """The checkpoints under one folder, numbered by step. Use as a context manager: leaving it waits for saves.

    keep_every: steps that are multiples of it (0: none) are kept for ever, as are those of `keep`; of the others the
    last two.
    Given by the one process that saves here: it removes what a killed save has left, which to a reader could be a save
    under way.
    """

    def __init__(self, directory: Path, keep_every: int | None = None, keep: Sequence[int] = ()):
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(2)] + ([policies.EveryNSteps(keep_every)] if keep_every else [])
        kept += [policies.CustomSteps(list(keep))] if keep else []
        self.directory = Path(directory).absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=keep_every is not None,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._checkpointer.close()

    def save(self, step: int, state: PyTree) -> None:
        """Copies the state now and writes it in the background."""
        self._checkpointer.save_async(step, state, force=True)

    def wait(self) -> None:
        self._checkpointer.wait()

    def load(self, step: int, like: PyTree) -> PyTree:
        """The state saved at `step`, with the shapes, types and shardings of `like` (arrays or shape structs).

        Raises `UsageError` when the file does not hold such a tree or cannot be read.
        """
        where = f"the checkpoint of step {step} in {self.directory}"
        try:
            state = self._checkpointer.load(step, like)
        except Exception as error:
            reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"Cannot read {where}: {reason}") from error
        wanted = jax.tree_util.tree_leaves_with_path(like)
        for (path, leaf), found in zip(wanted, jax.tree.leaves(state), strict=True):
            if (leaf.shape, leaf.dtype) != (found.shape, found.dtype):  # Orbax does not compare with numpy targets
                name = jax.tree_util.keystr(path)
                raise UsageError(
                    f"Cannot read {where}: {name} is {found.dtype}{found.shape}, not {leaf.dtype}{leaf.shape}."
                )
        return state


def steps(directory: Path) -> list[int]:
    """Steps with a finished checkpoint, ascending; empty if there are none. Reads names only."""
    if not Path(directory).is_dir():
        return []
    return sorted(int(path.name) for path in Path(directory).iterdir() if path.name.isdecimal())


def on_host(tree: PyTree) -> PyTree:
    """A target for `load` that gives numpy arrays, whatever devices the checkpoint was written from."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
