"""Every network computes what the paper's code computes from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN, load_json, names, relative, seeded

from score_sde.models import CLASSIFIERS, MODELS
from score_sde.sde import VE

CASES = load_json("networks.json")
GONE = ("name", "normalization", "attention_type", "conv_size", "scale_by_sigma", "num_scales")


def build(model: dict):
    """The network of a config of the paper's code."""
    cls = {**MODELS, **CLASSIFIERS}[model["name"]]
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in model.items()}
    inert = GONE + tuple(key for key in options if key not in cls.__dataclass_fields__)
    return cls(**{key: value for key, value in options.items() if key not in inert})


def used_sigma(model: dict, label: jax.Array) -> np.ndarray:
    """What the paper's code divides the output by: sigma is the label of a Fourier embedding, else a table's entry."""
    if not model.get("scale_by_sigma"):
        return np.ones(len(label))
    if model.get("embedding_type") == "fourier":
        return np.asarray(label)
    sde = VE(model["sigma_min"], model["sigma_max"], model["num_scales"])
    return np.asarray(sde.chain_marginal(1 - label / (model["num_scales"] - 1))[1])


@pytest.mark.parametrize("case", CASES)
def test_a_network_computes_what_the_papers_does(case):
    config, golden = CASES[case]["config"], np.load(GOLDEN / "networks.npz")
    x, label = (jnp.asarray(golden[f"{case}/{key}"]) for key in ("x", "label"))
    expected = golden[f"{case}/output"]
    network = build(config["model"])
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, label))["params"]
    leaves = {path: tuple(shape) for path, shape in CASES[case]["leaves"].items()}
    assert names(shapes) == leaves

    if config["model"]["name"] != "wideresnet":
        x = x if config["data"]["centered"] else 2 * x - 1
        expected = expected * used_sigma(config["model"], label)[:, None, None, None]
    output = jax.jit(network.apply)({"params": seeded(shapes)}, x, label)
    for sample, golden_sample in zip(output, expected, strict=True):
        print(case, relative(sample, golden_sample))
        assert relative(sample, golden_sample) < 1e-5
