"""Tiny networks of every family that attend to captions, for the tests here and, as a program, on eight devices."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from golden_weights import seeded

from score_sde.models import ADM, DDPM, ENCODERS, DiT, EDM2UNet, NCSNpp, UViT
from score_sde.runtime import sharding

TEXT = ENCODERS["text"](vocab_size=9, max_tokens=5, features=8, depth=1, num_heads=2)
CROSS = dict(encoder=TEXT, cross_resolutions=(4, 2), cross_heads=2)
UNET = dict(ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,))
TRANSFORMER = dict(patch_size=2, width=16, depth=2, num_heads=2, encoder=TEXT)
UNETS = {
    "adm": ADM(nf=8, num_heads=1, dropout=0.0, **UNET, **CROSS),
    "edm2": EDM2UNet(nf=8, head_channels=4, **UNET, **CROSS),
    "ncsnpp": NCSNpp(nf=8, dropout=0.0, embedding_type="positional", fir=False, **UNET, **CROSS),
    "ddpm": DDPM(nf=32, dropout=0.0, **UNET, **CROSS),
}
NETWORKS = UNETS | {"uvit": UViT(**TRANSFORMER), "dit": DiT(**TRANSFORMER)}
SHAPE = (4, 4, 3)
LENGTHS = np.array([3, 1, 4, 2, 4, 3, 1, 2])


def rows(n: int) -> tuple:
    """Images, noise conditions and captions of n samples, n at most 8, none of them null."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, *SHAPE)).astype(np.float32)
    cond = {"tokens": rng.integers(0, 9, (8, 4)), "tokens_mask": np.arange(4) < LENGTHS[:, None]}
    cond["null"] = {"tokens": np.zeros(8, bool)}
    return jax.tree.map(lambda each: jnp.asarray(each[:n]), (x, np.linspace(0.5, 2, 8, dtype=np.float32), cond))


def params_of(network):
    """Random parameters, of which no branch is 0."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1))["params"]
    return jax.tree.map(jnp.asarray, seeded(shapes))


@functools.cache
def compiled(network):
    """A function of parameters, images, noise conditions and captions."""
    return jax.jit(lambda params, *arguments: network.apply({"params": params}, *arguments))


def output(network, *arguments):
    return compiled(network)(_params_of(network), *arguments)


_params_of = functools.cache(params_of)


def without_cross(network):
    """The same network, in which pixels do not attend to captions."""
    return dataclasses.replace(network, cross_resolutions=())


def on_these_devices() -> dict:
    """Outputs of all networks for eight rows, which all devices of the process share."""
    found = {}
    for name, network in NETWORKS.items():
        program = sharding.pmap(
            lambda params, *arguments, of=network: of.apply({"params": params}, *arguments),
            in_axes=(None, 0, 0, 0),
            out_axes=0,
        )
        found[name] = np.asarray(program(sharding.place(params_of(network)), *sharding.split(*rows(8)))).tolist()
    return found


if __name__ == "__main__":
    print(json.dumps([jax.device_count(), on_these_devices()]))
