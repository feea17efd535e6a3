"""Every network computes what the paper's code computes from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden_weights import GOLDEN, load_json, names, relative, seeded

from score_sde.models import CLASSIFIERS, MODELS
from score_sde.sde import VE

CASES = load_json("networks.json")
GONE = ("name", "normalization", "attention_type", "conv_size", "scale_by_sigma", "num_scales")


def build(model: dict):
    """The network of a config of the paper's code."""
    cls = {**MODELS, **CLASSIFIERS}[model["name"]]
    renamed = {"num_levels": model["num_classes"]} if "num_classes" in model else {}  # NCSN's noise levels
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in (model | renamed).items()}
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
        assert relative(sample, golden_sample) < 1e-5


DDPM, NCSN = MODELS["ddpm"](nf=32, ch_mult=(1, 2), num_res_blocks=1), MODELS["ncsn"](nf=8, num_levels=50)
NCSNV2, CLASSIFIER = MODELS["ncsnv2_64"](nf=16), CLASSIFIERS["wideresnet"](1, 1)
EMBEDDING = "ConditionalResidualBlock_0/ConditionalInstanceNorm2dPlus_0/Embed_0/embedding"


@pytest.mark.parametrize(
    ("network", "path", "mean", "bound", "std"),
    [
        (DDPM, "Dense_0/kernel", 0, np.sqrt(6 / (32 + 128)), None),
        (DDPM, "ResnetBlockDDPM_0/Conv_0/kernel", 0, np.sqrt(6 / (9 * 64)), None),
        (DDPM, "ResnetBlockDDPM_0/Conv_1/kernel", 0, np.sqrt(1e-10 * 6 / (9 * 64)), None),
        (DDPM, "ResnetBlockDDPM_1/NIN_0/W", 0, np.sqrt(0.1 * 6 / (32 + 64)), None),
        (NCSNV2, "Conv_0/kernel", 0, 1 / np.sqrt(27), None),
        (NCSNV2, "Conv_0/bias", 0, 1 / np.sqrt(27), None),
        (NCSNV2, "ResidualBlock_1/Conv_0/kernel", 0, 1 / np.sqrt(9 * 16), None),
        (NCSNV2, "ResidualBlock_2/ConvMeanPool_0/Conv_0/kernel", 0, None, np.sqrt(1 / (9 * 16))),
        (NCSNV2, "ResidualBlock_0/InstanceNorm2dPlus_0/gamma", 1, None, 0.02),
        (NCSN, EMBEDDING, [1] * 16 + [0] * 8, None, [0.02] * 16 + [0] * 8),
        (CLASSIFIER, "init_conv/kernel", 0, None, np.sqrt(2 / (9 * 16))),
        (CLASSIFIER, "Dense_2/kernel", 0, 1 / np.sqrt(10), None),
        (CLASSIFIER, "GaussianFourierProjection_0/W", 0, None, 16.0),
    ],
)
def test_networks_start_as_in_the_paper(network, path, mean, bound, std):
    """Uniform draws reach their bound and no further; normal ones have their moments to five standard errors."""

    def leaf():
        params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.ones(1))["params"]
        return traverse_util.flatten_dict(params, sep="/")[path]

    x = np.asarray(jax.jit(leaf)()) - mean
    if bound is not None:
        assert bound * (1 - 30 / x.size) < np.abs(x).max() <= bound
    else:
        assert np.all(np.abs(x.mean(0)) <= 5 * np.asarray(std) / np.sqrt(len(x)))
        expected = np.sqrt(np.mean(np.square(std)))
        assert abs(np.sqrt(np.mean(np.square(x))) - expected) <= 5 * expected / np.sqrt(2 * x.size / 1.5)
