"""Draws what the experiment judges, from one trained model: samples by scale and by update, swaps, likelihoods.

`python -m score_sde.experiments.text.draw --set=scenes --workdir=DIR --out=DIR/drawn` is a job of the experiment. Every
round is kept as it is made, so that a job that is killed goes on.

| files                              | captions                                    | pictures                      |
|------------------------------------|---------------------------------------------|-------------------------------|
| `scale_W_seen`, `scale_W_held_out` | of each half, see `prompts.of_halves`       | at guidance scale W           |
| `step_N_seen`, `step_N_held_out`   | the first ones of each half                 | after N updates, at one scale |
| `swap_first`, `swap_second`        | pairs of `prompts.SHOWN`                    | a pair has one noise          |
| `without_K`, `with_K`              | the first of a pair, without and with the   | the same noises               |
|                                    | second as negative caption                  |                               |
| `between`                          | from the first to the second of a pair      | a row has one noise           |
| `classified_ATTRIBUTE`             | all values of an attribute, the others true | real ones, by log p(x)        |
"""

import argparse
import dataclasses
import functools
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.text import prompts
from score_sde.experiments.text.config import SETS

from score_sde import images
from score_sde.array_types import Array, Key, Keys, Pixels
from score_sde.data.scene_drawing import attribute_names
from score_sde.inference import pretrained
from score_sde.inference.conditional_samplers import Towards
from score_sde.inference.pretrained import Pretrained
from score_sde.io import atomic_files, workdir
from score_sde.io.result_cache import Arrays, Rounds
from score_sde.metrics import fingerprint
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.runtime import backend
from score_sde.runtime.preemption import exit_status
from score_sde.runtime.sharding import pad_to_devices
from score_sde.training.run import load_data

SEED = 1000  # of draws, added to the training's
USES = ("seen", "held_out", "swap", "negative", "between", "likelihood")  # of keys; a use is the same noise wherever
SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0)  # of guidance; at 0 the caption has no effect
SCALE = 2.0  # of the learning curve, and of pictures with a negative caption
OPEN = 1.0  # of swaps: what a caption leaves open is the noise's choice, and guidance would narrow it
SAMPLER = {"sampler": "dpmpp_2m", "num_steps": 25, "grid": "log_snr"}  # an ODE's, so that noise is all chance
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from one caption to another
ROWS = 4  # noises of each pair of captions between which pictures go


class Numbers(NamedTuple):
    """Numbers of what is drawn.

    samples, curve: pictures of both halves together, at each scale and after each number of updates. pairs: swaps.
    negatives: pictures with and without each negative caption. classified: images. exact: 1 for the ODE's likelihoods.
    """

    samples: int = 512
    curve: int = 256
    pairs: int = 360
    negatives: int = 64
    classified: int = 100
    exact: int = 0


@dataclasses.dataclass(frozen=True)
class Artist:
    """A trained model, the key of all its draws, and the folder where rounds are kept."""

    model: Pretrained
    root: Key[Array, ""]
    out: Path

    def draw(
        self, stem: str, use: str, captions: Sequence[str], scale: float, step: int | None = None, negative: str = ""
    ) -> None:
        """Keeps a picture for each caption. use: one of `USES`. step: of the weights, by default the last."""
        model = self.model if step is None else self.model.at(step)
        identity = {"captions": fingerprint({"all": list(captions)}), "scale": scale, "negative": negative, **SAMPLER}
        rounds = Rounds(self.out, stem, identity | {"weights": model.digest}, ("pixels", "captions"))
        options = {"scale": scale} | ({"negative": negative} if negative else {})
        for start in range(0, len(captions), model.config.eval.batch_size):
            rows = slice(start, start + model.config.eval.batch_size)
            keys = self.keys(use, np.arange(len(captions))[rows])
            rounds(f"{start:06d}", functools.partial(pictures, model, keys, captions[rows], options))

    def keys(self, use: str, numbers: np.ndarray) -> Keys:
        """The keys of noises with these numbers."""
        return sample_keys(stream(self.root, USES.index(use)), numbers)


def pictures(
    model: Pretrained, keys: Keys, captions: Sequence[str], options: dict[str, Any], towards: Sequence[Any] = ()
) -> Arrays:
    """A picture, uint8, for each key and caption.

    options: of the sampler. towards: other captions, and the share of each in its picture.
    """
    rows = np.minimum(np.arange(pad_to_devices(len(captions))), len(captions) - 1)
    conditions = {"cond": model.text.cond([captions[i] for i in rows])}
    if towards:
        others, shares = towards
        cond = model.text.cond([others[i] for i in rows])
        conditions["towards"] = Towards(cond, jnp.asarray(np.float32(shares)[rows]))
    drawn = model.draw(keys[rows], **conditions, **SAMPLER, **options)
    return {"pixels": images.to_pixels(drawn.images)[: len(captions)], "captions": np.array(captions)}


def draw(name: str, directory: Path, out: Path, numbers: Numbers) -> None:
    """Writes the rounds of all draws in the folder, and at last report.json."""
    began = time.monotonic()
    with atomic_files.locked(out, "draw"):
        model = pretrained.load(directory)
        artist = Artist(model, stream(jax.random.key(SEED + model.config.seed), Stream.SAMPLE), out)
        shown, steps = prompts.SHOWN[name], curve_steps(directory)
        for half, captions in prompts.of_halves(model.config, numbers.samples // 2).items():
            for scale in SCALES:
                artist.draw(f"scale_{scale:g}_{half}", half, captions, scale)
            for step in steps:
                artist.draw(f"step_{step}_{half}", half, captions[: numbers.curve // 2], SCALE, step)
        if shown.swaps:
            for which, captions in zip(("first", "second"), prompts.in_turn(shown.swaps, numbers.pairs), strict=True):
                artist.draw(f"swap_{which}", "swap", captions, OPEN)
        for i, (caption, negative) in enumerate(shown.negative):
            artist.draw(f"without_{i}", "negative", [caption] * numbers.negatives, SCALE)
            artist.draw(f"with_{i}", "negative", [caption] * numbers.negatives, SCALE, negative=negative)
        draw_between(artist, shown.between)
        if prompts.is_scenes(model.config) and model.config.data.scene_objects == 1:
            for attribute in attribute_names(model.config.data.image_size):
                classify(artist, attribute, numbers)
        facts = {"set": name, "steps": steps, "seconds": round(time.monotonic() - began, 1)}
        facts |= {"devices": sorted({d.device_kind for d in jax.devices()}), "versions": workdir.versions()}
        workdir.write(out, "report.json", facts | {"complete": True})


def curve_steps(directory: Path) -> list[int]:
    """The updates of the learning curve: those at which a snapshot was kept, and the last one."""
    freq, steps = workdir.stored_config(directory).training.snapshot_freq, workdir.checkpoint_steps(directory)
    return [step for step in steps if (step and step % freq == 0) or step == steps[-1]]


def draw_between(artist: Artist, pairs: Sequence[tuple[str, str]]) -> None:
    """Keeps rows of pictures from one caption to another: pair by pair, `ROWS` noises each, at scale 1."""
    captions = [pair for pair in pairs for _ in range(ROWS * len(PARTS))]
    noises = np.repeat(np.arange(len(pairs) * ROWS), len(PARTS))
    identity = {"weights": artist.model.digest, "captions": captions, "parts": PARTS, **SAMPLER}
    rounds = Rounds(artist.out, "between", identity, ("pixels", "captions"))
    first, second = ([pair[i] for pair in captions] for i in (0, 1))
    towards = second, np.tile(PARTS, len(pairs) * ROWS)
    rounds("", lambda: pictures(artist.model, artist.keys("between", noises), first, {}, towards))


def classify(artist: Artist, attribute: str, numbers: Numbers) -> None:
    """Keeps log p of real images under captions with each value of an attribute, and the number of the true value.

    The images are evaluation images whose pairs were seen. Their captions name all attributes.
    """
    model = artist.model
    source = load_data(model.config, train=False)
    indices = np.arange(min(numbers.classified, source.first_held_out))
    asked = [prompts.candidates(scene[0], attribute, model.config.data.image_size) for scene in source.scenes(indices)]
    options = {"method": "ode" if numbers.exact else "bound"}
    identity = {"weights": model.digest, "images": source.digest(), "n": len(indices), **options}
    identity["times"] = model.config.eval.bound_num_times

    def compute() -> Arrays:
        texts, truth = tuple(tuple(captions) for captions, _ in asked), np.array([number for _, number in asked])
        pixels: Pixels = source.take(indices).images
        result = model.classify(artist.keys("likelihood", indices), pixels, text=texts, **options)
        return {"log_likelihoods": np.asarray(result.log_likelihoods), "truth": truth}

    Rounds(artist.out, f"classified_{attribute}", identity, ("log_likelihoods", "truth"))("", compute)


def read(out: Path) -> dict[str, Arrays]:
    """The arrays of all draws in a folder, by their stems; rounds are put together."""
    rounds: dict[str, list[Arrays]] = {}
    for file in sorted(out.glob("*.npz")):
        rounds.setdefault(re.sub(r"(\.\d{6})?\.npz$", "", file.name), []).append(atomic_files.read_arrays(file))
    return {stem: {key: np.concatenate([part[key] for part in of]) for key in of[0]} for stem, of in rounds.items()}


parser = argparse.ArgumentParser(prog="draw", description=__doc__)
parser.add_argument("--set", choices=SETS, required=True, help="the captions and pictures of the run")
parser.add_argument("--workdir", type=Path, required=True, help="of the trained model")
parser.add_argument("--out", type=Path, required=True, help="the folder of what is drawn")
for number, default in Numbers._field_defaults.items():
    parser.add_argument(f"--{number}", type=int, default=default)


def program(argv: list[str]) -> int:
    options = parser.parse_args(argv[1:])
    backend.keep_programs()
    numbers = Numbers(*(getattr(options, number) for number in Numbers._fields))
    draw(options.set, options.workdir, options.out, numbers)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(program, None))
