"""Run by test_parallel.py in a process of its own, with 8 virtual CPU devices or 1; prints what it computed as JSON."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.vp.digits_ddpmpp_continuous import get_config
from score_sde import images, parallel
from score_sde.build import Experiment
from score_sde.errors import UsageError
from score_sde.likelihood import bits_per_dim
from score_sde.oracles import Gaussian
from score_sde.progress import Runner
from score_sde.randomness import Stream, sample_keys, stream
from score_sde.train import train_step
from score_sde.trained import Trained


def experiment() -> Experiment:
    config = get_config()
    config.model.update(nf=8, num_res_blocks=1, ch_mult=(1,), dropout=0.3)
    config.optim.warmup = 0
    config.data.uniform_dequantization = True
    config.sde.num_scales = 30
    config.sampling.corrector = "langevin"
    return Experiment(config)


PIXELS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)


def sharded() -> dict:
    """Three training steps and samples of a network, and bits/dim of an exact score, through `score_sde.parallel`.

    Not bits/dim of the network: rounding may flip a decision of the step control, which changes the result by as much
    as the solver's tolerance.
    """
    parts = experiment()
    step = parallel.pmap(train_step(parts), in_axes=(None, 0), out_axes=(None, None))
    state, losses = jax.jit(parts.init_state)(), []
    for _ in range(3):
        state, loss = step(state, PIXELS)
        losses.append(float(loss))
    keys = sample_keys(jax.random.key(1), jnp.arange(16))
    x = parts.sde.prior_sample(stream(keys, Stream.PRIOR), parts.image_shape)
    samples, _ = Runner(parts.sampler)(state.params, keys, x)
    score_fn = Gaussian(np.full(parts.image_shape, 0.3), 0.25).score_fn(parts.sde)
    likelihood = Runner(lambda _: bits_per_dim(parts.sde, score_fn, offset_bits=0))
    bpd, _, nfe = likelihood(state.params, keys[:11], x[:11])  # 11 images on 8 devices
    return {
        "devices": jax.device_count(),
        "losses": losses,
        "noise": np.asarray(x).tobytes().hex()[:4096],
        "samples": np.asarray(samples).ravel().tolist(),
        "bpd": np.asarray(bpd).tolist(),
        "nfe": np.asarray(nfe).tolist(),
        "params": [float(jnp.sum(jnp.abs(leaf))) for leaf in jax.tree.leaves(state.params)],
    }


def library() -> dict:
    """Three images through what `score_sde.load` gives, on eight devices."""
    parts = experiment()
    model = object.__new__(Trained)  # without a checkpoint
    model.experiment, model.step = parts, 0
    model.params = jax.device_put(parts.init_params(), parallel.shardings(None))
    samples = model.sample(jax.random.key(0), 3)
    latents = model.encode(samples)
    try:
        parallel.check_divisible("batch_size", 12)
        message = ""
    except UsageError as error:
        message = str(error)
    return {
        "samples": list(samples.shape),
        "bpd": model.bits_per_dim(jax.random.key(1), samples).tolist(),
        "error": float(jnp.abs(model.decode(latents) - samples).max()),
        "score": list(model.score(samples, jnp.ones(3)).shape),
        "message": message,
    }


def literal_pmap() -> dict:
    """The largest difference between an update through `parallel.pmap` and one through `jax.pmap` with a pmean."""
    parts = experiment()
    optimizer = optax.sgd(1.0)  # Adam's first step is a sign, which would hide a wrong gradient
    params = parts.init_params()

    def gradient(params, keys, pixels):
        return jax.value_and_grad(lambda p: parts.loss(p, keys, images.to_unit(pixels)).mean())(params)

    def update(params, keys, pixels, reduce):
        loss, grads = reduce(gradient(params, keys, pixels))
        updates, _ = optimizer.update(grads, optimizer.init(params))
        return optax.apply_updates(params, updates), loss

    keys = sample_keys(jax.random.key(2), jnp.arange(16))
    ours = parallel.pmap(
        lambda p, k, x: update(p, k, x, lambda tree: tree), in_axes=(None, 0, 0), out_axes=(None, None)
    )(params, keys, PIXELS)
    split = jax.tree.map(lambda a: a.reshape(8, 2, *a.shape[1:]), (keys, jnp.asarray(PIXELS)))
    literal = jax.pmap(
        lambda p, k, x: update(p, k, x, lambda tree: jax.lax.pmean(tree, "batch")),
        axis_name="batch",
        in_axes=(None, 0, 0),
    )(params, *split)
    literal = jax.tree.map(lambda a: a[0], literal)
    difference = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), ours, literal)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), ours[0], params)
    return {"difference": max(jax.tree.leaves(difference)), "moved": max(jax.tree.leaves(moved))}


print(json.dumps({"sharded": sharded, "literal_pmap": literal_pmap, "library": library}[sys.argv[1]]()))
