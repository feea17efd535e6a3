"""U-ViT and DiT compute what their publishers' code computes from the same tensors, and their files become workdirs."""

import functools
import hashlib
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN, load_json

from score_sde.inference import transformer_layout
from score_sde.inference.transformer_layout import described, params_of, published_shapes
from score_sde.models import PRECISIONS, DiT, UViT

CASES = load_json("transformers.json")
OURS = dict(patch_size="patch_size", depth="depth", num_heads="num_heads", mlp_ratio="mlp_ratio", conv="conv")
OURS |= dict(embed_dim="width", hidden_size="width", mlp_time_embed="mlp_time_embed")


def network_of(case: dict) -> UViT | DiT:
    """The network with the arguments of a published one; the last row of 1,001 is the null label's."""
    arguments, is_dit = case["arguments"], case["publisher"] == "DiT"
    options = {OURS[name]: value for name, value in arguments.items() if name in OURS}
    classes = arguments.get("num_classes", 1000 if is_dit else 0)
    if is_dit:
        return DiT(**options, num_classes=classes, learned_variance=arguments.get("learn_sigma", True))
    return UViT(**options, num_classes=classes - (classes == 1001))


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A published network's tensor as a function of its name, with which the golden outputs were computed."""
    z = np.random.default_rng([0, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith(("pos_embed", "label_emb.weight", "embedding_table.weight")):
        return z.astype(np.float32)
    if len(shape) > 1:
        return (z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return (1 + 0.1 * z if name.endswith("weight") else 0.1 * z).astype(np.float32)


def rows_of(case: dict) -> int:
    """Rows of the published table of classes, of which DiT's last one is the null label's."""
    is_dit = case["publisher"] == "DiT"
    return case["arguments"].get("num_classes", 1000 * is_dit) + is_dit


@functools.cache
def tensors_of(name: str) -> dict[str, np.ndarray]:
    """Tensors of a case, as the publisher's network has them."""
    case = CASES[name]
    network, image_shape = network_of(case), tuple(case["image_shape"])
    shapes = dict(published_shapes(network, image_shape))
    if rows := rows_of(case):
        table = "y_embedder.embedding_table.weight" if case["publisher"] == "DiT" else "label_emb.weight"
        shapes[table] = rows, network.width
    tensors = {name: tensor(name, shape) for name, shape in shapes.items()}
    if case["publisher"] == "DiT":
        tensors["pos_embed"] = transformer_layout._positions(network, image_shape)
    return tensors


def inputs(name: str) -> tuple:
    """Images, noise conditions and classes of a golden output, in their order of drawing."""
    case, rng = CASES[name], np.random.default_rng([1, zlib.crc32(name.encode())])
    n, is_dit = case["images"], case["publisher"] == "DiT"
    x = rng.standard_normal((n, *case["image_shape"])).astype(np.float32)
    noise_cond = (999 * rng.uniform(size=n)).astype(np.float32)
    noise_cond = np.floor(noise_cond) if is_dit else noise_cond
    noise_cond[0] = 999
    rows = rows_of(case)
    labels = rng.integers(0, max(rows - 1, 1), n)
    null = np.arange(n) == (n - 1 if is_dit or rows == 1001 else n)  # the last image, where there is a null label
    cond = {"labels": jnp.asarray(labels), "null": {"labels": jnp.asarray(null)}}
    return x, noise_cond, cond if network_of(case).num_classes else None


@pytest.mark.parametrize("name", CASES)
def test_a_network_computes_what_its_publishers_does_from_the_same_tensors(name):
    case, golden = CASES[name], np.load(GOLDEN / "transformers.npz")
    network, image_shape, tensors = network_of(case), tuple(case["image_shape"]), tensors_of(name)
    listed = json.dumps(sorted([name, list(value.shape)] for name, value in tensors.items()))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == case["names"]
    assert sum(value.size for value in tensors.values()) == case["parameters"]

    def apply(params, x, noise_cond, cond):
        return PRECISIONS["float32"].apply(network, {"params": params}, x, noise_cond, cond)

    output = jax.jit(apply)(params_of(tensors, network, image_shape), *inputs(name))
    errors = np.abs(output[:, :: case["stride"], :: case["stride"]] - golden[name][..., : image_shape[-1]])
    worst = (errors.max((1, 2, 3)) / golden[f"{name}_largest"]).max()
    print(f"PARITY {name} {worst:.2e}")
    assert worst <= 3e-6
