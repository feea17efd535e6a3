"""Cards of trained runs: samples, their ways out of noise, images given observations, and classes by guidance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.gallery.card import Card, Row
from score_sde.experiments.gallery.paths import times_of, way

import score_sde
from score_sde import images
from score_sde.array_types import Pixels
from score_sde.conditioning.grammar import observation_of
from score_sde.inference.conditional_samplers import Conditions
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.sampling_plan import plan
from score_sde.randomness import batch_keys
from score_sde.training.run import load_data


class Way(NamedTuple):
    """A sampler of the trajectories: its name on the card, its method, and its options."""

    name: str
    method: str
    options: Mapping[str, Any]


class Problem(NamedTuple):
    """An inverse problem: its name on the card, the condition, and the numbers of the test images that are shown."""

    name: str
    condition: str
    shown: Sequence[int]


SEED = 0  # of every picture's noise
SAMPLER, OPTIONS = "dpmpp_2m_sde", {"num_steps": 40}  # of presets for short trainings
WAYS = (
    Way("Reverse SDE", "pc", {}),
    Way("SDE, few steps", "dpmpp_2m_sde", {"num_steps": 40}),
    Way("ODE, few steps", "dpmpp_2m", {"num_steps": 20}),
    Way("ODE, adaptive", "ode", {}),
)
TIMES = (1.0, 0.6, 0.45, 0.35, 0.25, 0.18, 0.12, 0.06)  # closer where pictures form
PROBLEMS = (
    Problem("Inpainting", "inpaint=right_half", (1, 4)),
    Problem("Colorization", "colorize", (8, 11)),
    Problem("Super-resolution", "superresolve=4", (12, 13)),
)
INVERSE, EACH, SHOWN = "pigdm", 8, 4  # EACH samples of an observation, of which the card shows SHOWN
BRIGHTER = 4  # a spread of a quarter of the range is white
SCALES = (0.0, 1.0, 2.0, 4.0)


def load(workdir: Path) -> tuple[Pretrained, Pixels]:
    """The run's model with averaged weights, and the images that it was not trained on."""
    model = score_sde.load(workdir)
    return model, load_data(model.config, train=False).images


def samples(
    model: Pretrained, real: Pixels, *, rows: int, columns: int, magnify: int, beside: str = "Test images"
) -> Card:
    """The first samples of the seed, and left of them the first real images, a third as many.

    beside: the heading of the real images.
    """
    left = columns // 4
    right = columns - left
    drawn = model.draw(batch_keys(jax.random.key(SEED), rows * right), SAMPLER, **OPTIONS)
    pixels = images.to_pixels(drawn.images)
    both = [Row([*real[i * left :][:left], *pixels[i * right :][:right]]) for i in range(rows)]
    name = f"The first {rows * right} samples ({SAMPLER}, {np.mean(drawn.nfe):g} evaluations)"
    return Card(both, {0: beside, left: name}, magnify, spaces=[left], centred=False)


def trajectory(model: Pretrained, index: int, *, ways: Sequence[Way] = WAYS, magnify: int = 7) -> Card:
    """The way of sample `index` by each sampler, from the same noise to a picture, at falling times."""
    rows = []
    for name, method, options in ways:
        chosen = plan(model, method, options)
        experiment = chosen.conditional.experiment

        def make(params, chosen=chosen, method=method):
            return chosen.conditional.sampler(params, Conditions(None), method)

        keys = batch_keys(jax.random.key(SEED), index + 1)[index:]
        times = times_of(experiment.sde_of(chosen.params["score"], method), method, experiment.config.sampling)
        seen = way(make, chosen.params, keys, experiment.prior(keys), times, TIMES)
        x = model.image_range.to_unit(jnp.asarray([*seen.x[:, 0], seen.end[0]]))
        rows.append(Row(images.to_pixels(x), name, f"{method}\n{seen.nfe[0]:,} evaluations"))
    headings = {0: "t = 1", **{i: f"{t:g}" for i, t in enumerate(TIMES[1:], 1)}, len(TIMES): "result"}
    return Card(rows, headings, magnify, label_width=250, spaces=[len(TIMES)])


def posterior(
    model: Pretrained, real: Pixels, *, problems: Sequence[Problem] = PROBLEMS, each: int = EACH, magnify: int = 7
) -> Card:
    """Truth, observation, samples given it, their mean and their spread, for images that training did not see."""
    rows = []
    for name, condition, shown in problems:
        truth = images.to_unit(jnp.repeat(jnp.asarray(real[np.asarray(shown)]), each, axis=0))
        operator = observation_of(condition, model.image_shape)(len(truth))
        y = operator.forward(truth)
        drawn = model.posterior(jax.random.key(SEED), operator, y, 0.0, SAMPLER, inverse=INVERSE, **OPTIONS)
        x = np.asarray(drawn).reshape(len(shown), each, *model.image_shape)
        observed = images.to_pixels(operator.picture(y))
        for i, number in enumerate(shown):
            spread = np.sqrt(np.mean(x[i].var(axis=0), axis=-1, keepdims=True))
            summary = [images.to_pixels(x[i].mean(axis=0)), images.to_pixels(BRIGHTER * spread)]
            pictures = [real[number], observed[i * each], *images.to_pixels(x[i][:SHOWN]), *summary]
            rows.append(Row(pictures, "" if i else name, "", 0 if i else 16))
    headings = {0: "truth", 1: "observed", 2: "samples", 2 + SHOWN: "mean", 3 + SHOWN: "spread"}
    return Card(rows, headings, magnify, label_width=250, spaces=[2, 2 + SHOWN], centred=False)


def classes(
    model: Pretrained, *, scales: Sequence[float] = SCALES, rows: int = 2, columns: int = 2, magnify: int = 8
) -> Card:
    """Samples of each class from the same noise, by rows of guidance scale; `rows` by `columns` of a class at each."""
    number, sheet = model.experiment.num_classes, []
    labels = np.tile(np.repeat(np.arange(number), columns), rows)
    for scale in scales:
        x = model.sample(jax.random.key(SEED), len(labels), "dpmpp_2m", num_steps=30, labels=labels, scale=scale)
        pixels = images.to_pixels(x).reshape(rows, number * columns, *model.image_shape)
        label, detail = f"scale {scale:g}", "" if scale else "without class"
        sheet += [Row(row, "" if i else label, "" if i else detail, 0 if i else 16) for i, row in enumerate(pixels)]
    starts = [columns * i for i in range(number)]
    headings = {start: f"{i}" for i, start in enumerate(starts)}
    return Card(sheet, headings, magnify, label_width=190, spaces=starts[1:], centred=False)
