"""Likelihoods of images under a trained model: bits/dim by the probability-flow ODE, and a bound by the reverse SDE.

Without a condition they are of p(x), under the null condition of the network; with labels, captions or `cond` they are
of p(x | c). A network has p(x) only if training dropped its condition for some images.
"""

from typing import Annotated, NamedTuple

import jax.numpy as jnp

from score_sde.array_types import Array, Key, Keys, ModelImages, PerSample, PyTree, UnitImages
from score_sde.cond import Cond
from score_sde.config.arguments import check_arguments
from score_sde.inference import inputs
from score_sde.inference.dequantizer import dequantize
from score_sde.inference.inputs import AnyImages, AnyLabels, AnyText, Report
from score_sde.inference.snapshots import Snapshot
from score_sde.randomness import batch_keys
from score_sde.runtime.sharding import pmap, split
from score_sde.sampling.runner import Runner
from score_sde.sampling.solver import Counts


class Likelihoods(NamedTuple):
    """Bits/dim of each image, and the evaluations of the network (nfe) that they took."""

    bits_per_dim: PerSample
    nfe: Counts


@check_arguments
def bits_per_dim(
    model: Snapshot,
    key: Key[Array, "..."],
    pixels: AnyImages,
    labels: AnyLabels = None,
    *,
    cond: Cond | None = None,
    text: AnyText = None,
) -> PerSample:
    """Bits/dim of each image, shape (n,), under the probability-flow ODE (paper, section 4.3).

    pixels: images, uint8 or in [0, 1] on 256 levels; they are dequantized first, as config.eval says, with noise from
    `key`. labels: numbers or names of classes, text: captions, one for all images or one for each; cond: arrays of n
    rows, see `score_sde.cond`. With any of these the result is of p(x | c), else of p(x). Raises `UsageError` for other
    images, and for conditions that the network does not know.

        bits = model.bits_per_dim(jax.random.key(0), np.zeros((2, *model.image_shape), np.uint8))
    """
    x = inputs.unit_images(pixels, model.image_shape)
    cond = inputs.condition(model, len(x), labels, cond, text)
    return likelihoods(model, batch_keys(key, len(x)), x, cond=cond).bits_per_dim


@check_arguments
def likelihoods(
    model: Snapshot,
    keys: Keys,
    x: Annotated[UnitImages, "[0, 1]"],
    report: Report = lambda _: None,
    *,
    cond: Cond | None = None,
) -> Likelihoods:
    """Bits/dim and evaluations of each image in [0, 1]; all randomness is from the image's own key.

    report: called with the fraction done. cond: a condition with a row for each image; None is the null condition.
    """
    cond = inputs.condition(model, len(x), cond=cond)
    y, log_q = dequantize(model, keys, inputs.of_shape(x, model.image_shape))
    runner = model.experiment.once("bits_per_dim", lambda: Runner(model.experiment.bits_per_dim))
    bits, _, nfe = runner(model.params, keys, y, report, conditions=(cond,))
    inputs.check_finite(jnp.all(jnp.isfinite(bits)), "A likelihood")
    return Likelihoods(bits + log_q, nfe)


@check_arguments
def bound(
    model: Snapshot,
    key: Key[Array, "..."],
    pixels: AnyImages,
    labels: AnyLabels = None,
    *,
    cond: Cond | None = None,
    text: AnyText = None,
) -> PerSample:
    """An upper bound on the bits/dim of each image under the reverse SDE, estimated with noise from `key`.

    Arguments and errors as for `bits_per_dim`. Composes with `jit`. See `score_sde.likelihood.bound`.

        above = model.bound(jax.random.key(0), np.zeros((2, *model.image_shape), np.uint8))
    """
    experiment, x = model.experiment, inputs.unit_images(pixels, model.image_shape)
    cond, keys = inputs.condition(model, len(x), labels, cond, text), batch_keys(key, len(x))
    y, log_q = dequantize(model, keys, x)

    def bounded(params: PyTree, keys: Keys, y: ModelImages, cond: Cond | None) -> PerSample:
        return experiment.bound(params, cond)(keys, y)

    program = experiment.once("bound", lambda: pmap(bounded, in_axes=(None, 0, 0, 0), out_axes=None))
    bits = program(model.params, *split(keys, y, cond))[: len(x)] + log_q
    inputs.check_finite(jnp.all(jnp.isfinite(bits)), "A bound on bits/dim")
    return bits
