"""Captions of samples: those that a config describes, and the entries of the condition that they become.

A network takes text if its run has kept a text condition, `model.text`. A caption is a text; several are one for each
sample.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from score_sde.array_types import Float
from score_sde.cond import Cond
from score_sde.conditioning.grammar import OTHERS, chosen_split, chosen_texts, parts
from score_sde.config import Config
from score_sde.data import Source, scattered
from score_sde.errors import UsageError
from score_sde.inference.conditional_samplers import Towards
from score_sde.inference.inputs import text_cond, with_text
from score_sde.inference.snapshots import Snapshot
from score_sde.training.run import load_data
from score_sde.training.text import NAME


def towards_caption(model: Snapshot, cond: Cond | None, caption: str, numbers: np.ndarray, each: int) -> Towards:
    """The condition with another caption, which the samples with these numbers go towards.

    each: samples in a row; its first is of `cond` alone, and its last of the caption alone. Raises `UsageError` for
    rows of a single sample.
    """
    entries = text_cond(model, [caption])
    if cond is None or not set(entries) <= set(cond):
        raise UsageError("Samples go towards a caption from another one; give text as well as towards.")
    if each < 2:
        raise UsageError(
            "Samples go from one caption to another over rows of sampling.same_noise samples with one noise; set it to "
            "2 or more."
        )
    others = {name: array for name, array in cond.items() if name not in entries}
    way = jnp.asarray(shares(numbers, each))
    return Towards(with_text(model, others, caption, len(numbers)), way)


def shares(numbers: np.ndarray, each: int) -> Float[np.ndarray, " b"]:
    """The shares of the way that samples with these numbers have gone, from 0 to 1 over each row of `each` samples."""
    return (numbers % each / (each - 1)).astype(np.float32)


# Captions of the samples that a config describes.


def configured_captions(model: Snapshot, numbers: np.ndarray) -> list[str] | None:
    """The captions of the samples with these numbers, by config.sampling.condition; None where it names none."""
    condition = model.config.sampling.condition
    if (split := chosen_split(condition)) is not None:
        source = model.experiment.once(("captions", split), lambda: captioned_split(model.config, split))
        return source.captions(scattered(len(source), numbers))
    texts = chosen_texts(condition)
    return None if texts is None else [texts[number % len(texts)] for number in numbers]


def shown_captions(model: Snapshot, numbers: np.ndarray) -> list[str] | None:
    """The captions of samples for the reader; between two captions, the share of each."""
    captions = configured_captions(model, numbers)
    end = parts(model.config.sampling.condition).get("towards")
    if captions is None or end is None:
        return captions

    def words(start: str, a: float) -> str:
        return {0: start, 1: end}.get(a, f"{1 - a:.2f} {start} + {a:.2f} {end}")

    return list(map(words, captions, shares(numbers, model.config.sampling.same_noise).tolist()))


def with_captions(config: Config, directory: Path) -> Config:
    """The config for an evaluation, in which samples of a network with text have captions of the evaluation split.

    A condition of the config's own stays. directory: the workdir of the run.
    """
    named = parts(config.sampling.condition).keys() & set(OTHERS)
    if named or not config.eval.enable_sampling or not (directory / NAME).is_file():
        return config
    changed = Config(config).copy_and_resolve_references()
    changed.sampling.condition = ";".join(filter(None, ("texts=test", config.sampling.condition)))
    return changed.lock()


def captioned_split(config: Config, split: str) -> Source:
    """A split of the config's data, of which no image is decoded before it is asked for.

    Raises `UsageError` for data without captions.
    """
    undecoded = Config({"data": config.data.to_dict() | {"in_memory_gib": 0.0}})
    source = load_data(undecoded, train=split == "train")
    if source.captions(np.arange(1)) is None:
        raise UsageError(
            f"sampling.condition=texts={split} takes the captions of the data, and data.dataset={config.data.dataset} "
            "has none; give a caption by text=, or a file of captions by texts=."
        )
    return source
