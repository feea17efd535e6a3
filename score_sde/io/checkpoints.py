"""Checkpoints of the training state, by Orbax: saved in the background, committed by a rename, with a digest.

Orbax loads damaged bytes without an error, so each checkpoint carries the digest of its state, and the share in it of
each leaf that stands under names alone, such as parameters and their averages. What is loaded is compared with them: a
whole state with the digest, a part with the shares of its leaves.
"""

import contextlib
import functools
import json
import logging
import operator
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from score_sde.array_types import PyTree
from score_sde.errors import UsageError, warn
from score_sde.io.digest import digest, leaf_digest, total
from score_sde.runtime.sharding import all_agree, is_first

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax reports every file, and a failure five times
# At a damaged checkpoint Orbax abandons the reading of other arrays, and asyncio reports each.
logging.getLogger("asyncio").addFilter(lambda record: "tensorstore" not in record.getMessage())

METADATA = "_CHECKPOINT_METADATA"  # Orbax's file of what was saved with a state


class Retention(NamedTuple):
    """Checkpoints to keep: the last ones, those whose step `every` divides (0: none), the `best` by loss, `steps`."""

    last: int = 2
    every: int = 0
    best: int = 0
    steps: tuple[int, ...] = ()


class Checkpoints:
    """The checkpoints under one folder, numbered by step. Use as a context manager: leaving it waits for saves.

    retention: given only by the run that saves here. It removes what killed saves left, which a reader could not
    tell from a save in progress.
    """

    kind = "checkpoint"  # the word of messages

    def __init__(self, directory: Path, retention: Retention | None = None):
        self.directory = Path(directory).absolute()
        self._retention = retention
        self._pending: int | None = None  # the step that is being saved
        self._problem: Exception | None = None  # the error that kept its save from beginning
        self._link = contextlib.ExitStack()
        self._named = self._link.enter_context(_named_in_utf8(self.directory))
        self._checkpointer = self._open()

    def _open(self) -> Any:
        """Orbax's checkpointer of the folder."""
        if self.directory.exists() and not self.directory.is_dir():
            raise UsageError(f"{self.directory} is a file, and checkpoints are to be in a folder there; remove it.")
        ocp = _orbax()
        policies = ocp.training.preservation_policies
        last, every, best, kept_steps = self._retention or Retention()
        kept = [policies.LatestN(last)]
        kept += [policies.EveryNSteps(every)] if every else []
        kept += [policies.CustomSteps(list(kept_steps))] if kept_steps else []
        if best:
            kept += [
                policies.BestN(
                    get_metric_fn=operator.itemgetter("loss"),
                    n=best,
                    reverse=True,
                    keep_checkpoints_without_metrics=False,
                )
            ]
        try:
            return ocp.training.Checkpointer(
                self._named,
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=self._retention is not None,
            )
        except Exception as error:  # Orbax reads each step's metadata, which anybody may have written
            reason = _reason(error).rstrip(".")
            raise UsageError(
                f"Cannot open the checkpoints in {self.directory} ({reason}); remove what others have put there."
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # other processes may be elsewhere, and never arrive here
        self.wait()
        self._checkpointer.close()
        self._link.close()

    def save(self, step: int, state: PyTree, loss: float | None = None, *, overwrite: bool = False) -> None:
        """Copies the state now and writes it in the background; a failure, such as a full disk, is a warning.

        loss: the number that `Retention.best` compares. overwrite: whether there is one of this step, to be replaced.
        """
        self.wait()
        metadata, metrics = _metadata(state), None if loss is None else {"loss": loss}
        self._pending = step
        try:
            self._checkpointer.save_async(
                step, state, force=True, overwrite=overwrite, metrics=metrics, custom_metadata=metadata
            )
        except Exception as error:
            self._problem = error  # the next wait reports it in all processes

    def wait(self) -> bool:
        """Waits for the save in progress; returns False, after a warning, if it has failed."""
        if self._pending is None:
            return True
        problem, self._problem = self._problem, None
        if problem is None:
            try:
                self._checkpointer.wait()
            except Exception as error:
                problem = error
        if not all_agree(problem is None):
            return self._failed(problem)
        self._pending = None
        return True

    def poll(self) -> None:
        """Warns of a save that has failed, without waiting for one in progress."""
        alone = jax.process_count() == 1  # other processes may see it at another step
        if alone and self._pending is not None and not self._checkpointer.is_saving_in_progress():
            self.wait()

    def _failed(self, problem: Exception | None) -> bool:
        saved = steps(self.directory)
        last = f"the last one is of step {saved[-1]}" if saved else "there is none yet"
        if is_first() or problem is not None:
            warn(
                f"The {self.kind} of step {self._pending} could not be saved ({_reason(problem)}); {last}. Free space "
                f"in {self.directory}: the next save tries again."
            )
        self._pending = None
        self._reopen()  # the old checkpointer counts the failed save, whose files are removed
        return False

    def _reopen(self) -> None:
        with contextlib.suppress(Exception):
            self._checkpointer.close()
        self._checkpointer = self._open()

    def load(self, step: int, like: PyTree) -> PyTree:
        """The state saved at `step`, with the shapes, types and shardings of `like` (arrays or shape structs).

        Raises `UsageError` when the file does not hold such a tree, cannot be read, or is damaged.
        """
        where = self._named_step(step)
        state, expected = self._read(step, lambda: (self._checkpointer.load(step, like), self.digest(step)))
        leaves = jax.tree_util.tree_leaves_with_path(like)
        for (path, leaf), loaded in zip(leaves, jax.tree.leaves(state), strict=True):
            if (leaf.shape, leaf.dtype) != (loaded.shape, loaded.dtype):  # Orbax does not compare with numpy targets
                name = jax.tree_util.keystr(path)
                raise UsageError(
                    f"Cannot read {where}: {name} is {loaded.dtype}{loaded.shape}, not {leaf.dtype}{leaf.shape}."
                )
        if expected not in (None, digest(state)):
            raise UsageError(f"Cannot read {where}: its bytes have changed since it was saved.")
        return state

    def load_part(self, step: int, name: str) -> PyTree | None:
        """The part of the state saved at `step` under a name, "params" or "ema_params/NAME", as NumPy arrays.

        Only this part is read. None if the checkpoint does not list its leaves, as before version 0.6. Raises
        `UsageError` when they cannot be read, or are damaged.
        """
        leaves = self._read(step, lambda: self._saved_with(step).get("leaves", {}))
        chosen = {path: leaf for path, leaf in leaves.items() if path.startswith(f"{name}/")}
        if not chosen:
            return None
        like = {path: np.empty(shape, kind) for path, (_, shape, kind, _) in chosen.items()}

        def read() -> PyTree:
            with _partial():
                return self._checkpointer.load(step, traverse_util.unflatten_dict(like, sep="/"))

        part = self._read(step, read)
        for path, leaf in traverse_util.flatten_dict(part, sep="/").items():
            number, shape, kind, share = chosen[path]
            if (list(leaf.shape), leaf.dtype.name) != (shape, kind) or leaf_digest(leaf, number) != share:
                raise UsageError(f"Cannot read {self._named_step(step)}: its bytes have changed since it was saved.")
        return functools.reduce(operator.getitem, name.split("/"), part)

    def _read(self, step: int, read: Callable[[], Any]) -> Any:
        """The result of `read`, which reads from the checkpoint. Raises `UsageError` in all processes if one fails."""
        problem, result = None, None
        try:
            result = read()
        except Exception as error:
            problem = error
        if not all_agree(problem is None):
            raise UsageError(f"Cannot read {self._named_step(step)}: {_reason(problem).rstrip('.')}.") from problem
        return result

    def _named_step(self, step: int) -> str:
        return f"the {self.kind} of step {step} in {self.directory}"

    def load_last(self, like: PyTree) -> PyTree | None:
        """The last state that can be read; None if no step has a checkpoint.

        Damaged checkpoints after it are renamed to STEP.damaged, with a warning. Raises `UsageError` if none can be
        read.
        """
        damaged: dict[int, UsageError] = {}
        for step in reversed(steps(self.directory)):
            problem = None
            try:
                state = self.load(step, like)
            except UsageError as error:
                problem = error
            if all_agree(problem is None):
                self._set_aside(damaged, step)
                return state
            damaged[step] = problem or UsageError(f"Cannot read the checkpoint of step {step} in another process.")
        if damaged:
            raise next(iter(damaged.values()))
        return None

    def _set_aside(self, damaged: dict[int, UsageError], good: int) -> None:
        for step, problem in damaged.items():
            if is_first():
                warn(f"{problem} Going on from step {good}; the damaged one is now {step}.damaged.")
                path = self.directory / str(step)
                shutil.rmtree(path.with_name(f"{step}.damaged"), ignore_errors=True)
                path.rename(path.with_name(f"{step}.damaged"))
        if damaged:
            all_agree(True)  # the other processes wait for the first
            self._reopen()

    def digest(self, step: int) -> str | None:
        """The digest of the state saved at `step`; None if it was saved without one."""
        return self._saved_with(step).get("digest")

    def holds(self, step: int, state: PyTree) -> bool:
        """Whether the state saved at `step` has the digest of this one."""
        own = digest(state)
        try:
            return self.digest(step) == own
        except (OSError, ValueError):  # its file of metadata is damaged
            return False

    def _saved_with(self, step: int) -> dict[str, Any]:
        """The result of `_metadata` for the state saved at `step`; {} if it was saved without."""
        # Not Orbax's `metadata(step)`, which opens each array too: 0.7 s for the 860 of a small network's state.
        return json.loads((self._named / str(step) / METADATA).read_bytes()).get("custom_metadata") or {}


class NoCheckpoints(Checkpoints):
    """Checkpoints that save nothing, for processes that may share no folder: a run that stops begins again."""

    def __init__(self):
        """Takes no folder, and opens none."""

    def _nothing(self, *_) -> None:
        """Does nothing: there is no checkpoint to load, and none is saved."""

    save = wait = poll = load_last = __exit__ = _nothing


def _metadata(state: PyTree) -> dict[str, Any]:
    """Facts that are saved with a state: its digest, and number, shape, type and share of leaves under names alone."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    shares = [leaf_digest(leaf, number) for number, (_, leaf) in enumerate(leaves)]
    listed = {}
    for number, ((path, leaf), share) in enumerate(zip(leaves, shares, strict=True)):
        names = [getattr(key, "name", getattr(key, "key", None)) for key in path]  # an index has neither
        if all(isinstance(name, str) and "/" not in name for name in names):
            listed["/".join(names)] = number, leaf.shape, leaf.dtype.name, share
    return {"digest": total(shares), "leaves": listed}


def _orbax() -> ModuleType:
    """Orbax, which is imported where a folder is opened: it takes 0.2 s, and much that reads a workdir opens none."""
    from orbax.checkpoint import v1

    return v1


def _partial() -> Any:
    """The context in which Orbax reads only the arrays of its target."""
    context = _orbax().Context()
    context.pytree.loading.partial_load = True
    return context


@contextlib.contextmanager
def _named_in_utf8(directory: Path) -> Iterator[Path]:
    """The folder, by a link to it if its path is not text in this locale, as TensorStore requires."""
    if str(directory).isprintable():  # a byte that is not text is not printable
        yield directory
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="score_sde-") as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(directory)
        yield link


def steps(directory: Path) -> list[int]:
    """Steps with a finished checkpoint, ascending: folders named by a number as Python writes it; reads names only."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def on_host(tree: PyTree) -> PyTree:
    """A target for `load` that returns NumPy arrays, from whatever devices the checkpoint was written."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def _reason(error: Exception | None) -> str:
    """The first line of the error behind an Orbax error."""
    if error is None:
        return "in another process"
    text = str(error.__cause__ or error).strip() or type(error).__name__
    first_line = text.splitlines()[0].partition(" [tensorstore_spec")[0]  # the rest are options
    return "no space left on device" if "No space left on device" in text else first_line
