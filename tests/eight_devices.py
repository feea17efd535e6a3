"""Run by test_parallel.py in a process of its own, with 8 virtual CPU devices; prints what it computed as JSON."""

import json
from typing import Any

import coupled
import jax
import jax.numpy as jnp
import member_losses
import numpy as np
import one_block
import optax
import tiny_pixels
from score_sde.experiments.benchmark.scaling import collectives
from score_sde.experiments.invariance.worker import PIXELS, experiment

from score_sde import images
from score_sde.array_types import PyTree
from score_sde.errors import UsageError
from score_sde.inference.pretrained import Pretrained
from score_sde.oracles import Gaussian
from score_sde.randomness import sample_keys
from score_sde.runtime import sharding
from score_sde.runtime.memory import tree_bytes
from score_sde.sampling import probability_flow, solve
from score_sde.sampling.runner import Runner
from score_sde.sde import VP
from score_sde.training.build import Experiment


def library(parts: Experiment, params: PyTree) -> dict:
    """Three images through what `score_sde.load` gives, on eight devices."""
    model = Pretrained(
        parts.objective,
        parts.network,
        sharding.place(params, sharding.fully_sharded(params, 4)),
        parts.image_shape,
        parts.scaling,
        parts.config,
    )
    samples = model.sample(jax.random.key(0), 3)
    latents = model.encode(samples)
    messages = []
    for check in (lambda: sharding.check_divisible("batch_size", 12), lambda: sharding.check_groups(3)):
        try:
            check()
        except UsageError as error:
            messages.append(str(error))
    kernel = max(jax.tree.leaves(model.params), key=lambda leaf: leaf.size)
    return {
        "samples": list(samples.shape),
        "bpd": model.bits_per_dim(jax.random.key(1), samples).tolist(),
        "error": float(jnp.abs(model.decode(latents) - samples).max()),
        "score": list(model.score(samples, jnp.ones(3)).shape),
        "messages": messages,
        "parts": kernel.size // kernel.addressable_shards[0].data.size,
    }


def literal_pmap(parts: Experiment, params: PyTree) -> dict:
    """The largest difference between an update through `sharding.pmap` and one through `jax.pmap` with a pmean."""
    optimizer = optax.sgd(1.0)  # Adam's first step is a sign, which would hide a wrong gradient

    def gradient(params, keys, pixels):
        return jax.value_and_grad(lambda p: parts.loss(p, keys, images.to_unit(pixels)).mean())(params)

    def update(params, keys, pixels, reduce):
        loss, grads = reduce(gradient(params, keys, pixels))
        updates, _ = optimizer.update(grads, optimizer.init(params))
        return optax.apply_updates(params, updates), loss

    keys = sample_keys(jax.random.key(2), jnp.arange(16))
    program = sharding.pmap(
        lambda p, k, x: update(p, k, x, lambda tree: tree), in_axes=(None, 0, 0), out_axes=(None, None)
    )
    program = program.lower(params, keys, jnp.asarray(PIXELS[0])).compile()
    ours = program(sharding.place(params), *sharding.split(keys, PIXELS[0]))
    split = jax.tree.map(lambda a: a.reshape(8, 2, *a.shape[1:]), (keys, jnp.asarray(PIXELS[0])))
    literal = jax.pmap(
        lambda p, k, x: update(p, k, x, lambda tree: jax.lax.pmean(tree, "batch")),
        axis_name="batch",
        in_axes=(None, 0, 0),
    )(params, *split)
    literal = jax.tree.map(lambda a: np.asarray(a)[0], literal)
    return {
        "difference": largest_difference(ours, literal),
        "moved": largest_difference(ours[0], params),
        "collectives": collectives(program.as_text()),
        "bytes": tree_bytes(params),
    }


def parts_of_batches(*_: Any) -> dict:
    """A part of the rows of each device at a time, beside all of them at once on one device."""
    process, data, keys = VP(), Gaussian(np.full((2, 2, 1), 0.3), 0.25), sample_keys(jax.random.key(0), jnp.arange(256))
    spread = jnp.tile(jnp.geomspace(0.01, 30, 32), 8).reshape(-1, 1, 1, 1)
    x = spread * jax.random.normal(jax.random.key(1), (256, *data.shape))
    flow = probability_flow(process, data.model(process))
    runner = Runner(lambda _: flow, batch_nfe=True)
    in_parts, nfe, batch_nfe = runner(None, keys, x)
    whole, _ = solve(flow, keys, x)
    state = jax.eval_shape(runner._init, None, (), keys, x)
    program = runner._compiled(state, ())[1].lower(None, (), state, 1).compile()
    return {
        "difference": float(jnp.abs(in_parts - whole).max() / jnp.std(whole)),
        "nfe": [float(nfe.mean()), float(batch_nfe[0]), int(nfe.max())],
        "bytes": sum(collectives(program.as_text()).values()),
    }


def coupling(*_: Any) -> dict:
    """The noise of rows that an optimal coupling chooses, and the distances that updates see."""
    parts = coupled.experiment()
    return {"numbers": np.asarray(coupled.batches(parts)(0)[2]).tolist(), "losses": coupled.losses(parts, 2)}


def pixels(*_: Any) -> dict:
    """Updates, bits/dim and samples of a transformer over pixels."""
    return tiny_pixels.on_these_devices()


def losses(*_: Any) -> list[list[float]]:
    """Denoising losses of images that eight devices do not divide."""
    return member_losses.on_these_devices()


def largest_difference(a: PyTree, b: PyTree) -> float:
    differences = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), a, b)
    return float(max(jax.tree.leaves(differences)))


one_block.use()
made = experiment()
weights = jax.jit(made.init_params)()
parts = (literal_pmap, library, parts_of_batches, coupling, pixels, losses)
print(json.dumps({part.__name__: part(made, weights) for part in parts}))
