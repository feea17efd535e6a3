"""The two kinds of generative model of the comparison, diffusion and autoregressive, with the same functions.

All images are uint8 (n, h, w, c), all masks True where a pixel is known.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from score_sde.experiments.autoregressive import model as autoregressive
from score_sde.experiments.autoregressive.density import Density
from score_sde.experiments.autoregressive.training import update_of
from score_sde.experiments.transformers.config import AUTOREGRESSIVE

from score_sde import data, images
from score_sde.array_types import Array, Keys, Pixels, PyTree
from score_sde.conditioning import Inpaint
from score_sde.evaluation import over_split
from score_sde.inference import pretrained
from score_sde.inference.sampling_plan import plan
from score_sde.io.result_cache import Arrays
from score_sde.randomness import Stream, stream
from score_sde.runtime.progress import bar
from score_sde.sampling import advance
from score_sde.training.build import Experiment
from score_sde.training.run import train_step
from score_sde.training.state import TrainState

EVALUATIONS = (5, 10, 20, 35)  # of the diffusion models' samplers
METHOD, GRID = "dpmpp_2m", {"grid": "log_snr"}
FRAMES = 8  # pictures of an image that comes about


class Model(Protocol):
    """A trained model. described: its config as functions of parameters. budgets: evaluations at which it samples."""

    described: Experiment | Density
    budgets: tuple[int, ...]

    def loss(self, params: PyTree, keys: Keys, pixels: Pixels) -> Array:
        """The mean loss of a batch in training."""

    def update(self, state: TrainState, pixels: Pixels) -> tuple[TrainState, Array]:
        """The state after one more update, and the loss."""

    def likelihoods(self, source: data.Source, folder: Path) -> Arrays:
        """Arrays of each test image: "bits", "nfe", and "bound" where there is one."""

    def samples(self, keys: Keys, budget: int) -> Pixels:
        """A sample for each key."""

    def filled(self, keys: Keys, pixels: Pixels, mask: np.ndarray) -> Pixels:
        """The images, with other pixels drawn where the mask (h, w) is False."""

    def path(self, keys: Keys) -> Pixels:
        """`FRAMES` stages (n, FRAMES, h, w, c) of samples, from nothing to the image."""


class Diffusion:
    """A score network, sampled by `dpmpp_2m`; its likelihood is that of the probability-flow ODE."""

    budgets = EVALUATIONS

    def __init__(self, workdir: Path):
        self.model = pretrained.load(workdir)
        self.described = self.model.experiment

    def loss(self, params: PyTree, keys: Keys, pixels: Pixels) -> Array:
        return self.described.loss(params, keys, images.to_unit(pixels), training=True).mean()

    def update(self, state: TrainState, pixels: Pixels) -> tuple[TrainState, Array]:
        return train_step(self.described)(state, pixels)

    def likelihoods(self, source: data.Source, folder: Path) -> Arrays:
        over_split.bits_per_dim(self.model, source, 1, folder)
        over_split.bits_per_dim_bound(self.model, source, 1, folder)
        of_ode, of_bound = (_kept(folder, stem) for stem in ("bits_per_dim", "bits_per_dim_bound"))
        return {"bits": of_ode["bits_per_dim"], "nfe": of_ode["nfe"], "bound": of_bound["bound"]}

    def samples(self, keys: Keys, budget: int) -> Pixels:
        return images.to_pixels(self.model.draw(keys, METHOD, num_steps=budget - 1, **GRID).images)

    def filled(self, keys: Keys, pixels: Pixels, mask: np.ndarray) -> Pixels:
        operator = Inpaint(mask)
        y = operator.forward(images.to_unit(jnp.asarray(pixels)))
        options = GRID | {"num_steps": EVALUATIONS[-1] - 1, "inverse": "tmpd"}
        drawn = images.to_pixels(self.model.posterior(keys, operator, y, 0.0, METHOD, **options))
        return np.where(mask[..., None], pixels, drawn)

    def path(self, keys: Keys) -> Pixels:
        steps = EVALUATIONS[-1] - 1
        experiment = plan(self.model, METHOD, GRID | {"num_steps": steps}).conditional.experiment
        solver = experiment.sampler(self.model.params, METHOD)
        state = solver.init(keys, experiment.prior(keys))
        frames, done = [solver.view(state)], 0
        go_on = jax.jit(functools.partial(advance, solver))
        for until in np.linspace(0, steps, FRAMES).round().astype(int)[1:]:
            state, done = go_on(state, int(until) - done), int(until)
            frames.append(solver.view(state))
        frames[-1] = solver.result(state)[0]
        pixels = [images.to_pixels(experiment.scaling.to_unit(frame)) for frame in frames]
        return np.stack(pixels, axis=1)


class Autoregressive:
    """A transformer that draws one byte after another; its likelihood is exact."""

    def __init__(self, workdir: Path):
        self.model = autoregressive.load(workdir)
        self.described, self.budgets = self.model.density, (self.model.evaluations,)

    def loss(self, params: PyTree, keys: Keys, pixels: Pixels) -> Array:
        return self.described.bits_per_dim(params, pixels, None, stream(keys, Stream.DROPOUT)).mean()

    def update(self, state: TrainState, pixels: Pixels) -> tuple[TrainState, Array]:
        return update_of(self.described)(state, pixels)

    def likelihoods(self, source: data.Source, folder: Path) -> Arrays:
        part = data.part_of(len(source), self.described.config.eval.max_images)
        bits = []
        with bar("bits/dim", len(part), "img") as progress:
            for indices, valid in data.padded_chunks(len(part), min(self.described.config.eval.batch_size, len(part))):
                bits.append(self.model.bits_per_dim(source.take(part[indices]).images)[:valid])
                progress.update(valid)
        return {"bits": np.concatenate(bits), "nfe": np.ones(len(part), np.int32)}

    def samples(self, keys: Keys, budget: int) -> Pixels:
        return self.model.sample(keys, len(keys))

    def filled(self, keys: Keys, pixels: Pixels, mask: np.ndarray) -> Pixels:
        """Each hidden pixel is drawn given those before it, known or drawn; known ones after it have no effect."""
        drawn, known = np.where(mask[..., None], pixels, 0).astype(np.uint8), mask.ravel()
        begins = np.flatnonzero(~known & np.concatenate([[True], known[:-1]]))
        for begin in begins:
            own = np.zeros(known.size, bool)
            own[begin:] = np.logical_and.accumulate(~known[begin:])  # it, and the hidden ones right after it
            completed = self.model.complete(keys, drawn, int(begin))
            drawn = np.where(own.reshape(*mask.shape, 1), completed, drawn)
        return drawn

    def path(self, keys: Keys) -> Pixels:
        drawn = self.samples(keys, self.budgets[0])
        _, h, w, _ = drawn.shape
        place = np.arange(h * w).reshape(h, w, 1)
        counts = np.linspace(0, h * w, FRAMES).round()
        return np.stack([np.where(place < count, drawn, 128).astype(np.uint8) for count in counts], axis=1)


def load(name: str, workdir: Path) -> Model:
    """The trained model of a workdir, by its name in the comparison."""
    return (Autoregressive if name == AUTOREGRESSIVE else Diffusion)(workdir)


MASKS: dict[str, Callable[[int, int], np.ndarray]] = {
    "lower half": lambda h, w: np.repeat(np.arange(h) < h // 2, w).reshape(h, w),
    "right half": lambda h, w: np.tile(np.arange(w) < w // 2, (h, 1)),
    "random half": lambda h, w: (np.random.default_rng(0).permutation(h * w) < h * w // 2).reshape(h, w),
}


def filled_name(mask: str) -> str:
    """The name of the arrays of images that were filled in, by that of the mask in `MASKS`."""
    return f"filled_{mask.replace(' ', '_')}"


def _kept(folder: Path, stem: str) -> dict[str, Any]:
    """Arrays of the rounds that an evaluation has left, over all images."""
    rounds = [np.load(file) for file in sorted(folder.glob(f"{stem}.[0-9]*.npz"))]
    return {name: np.concatenate([each[name] for each in rounds]) for name in rounds[0].files}
