"""EDM's DDPM++ and NCSN++ inside their preconditionings compute what EDM's code computes from the same tensors."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN, load_json, relative

from score_sde.config import base
from score_sde.errors import UsageError
from score_sde.inference.edm_layout import objective_values, params_of, published_shapes, values_of
from score_sde.inference.pretrained import Pretrained
from score_sde.models import NCSNpp, is_trainable
from score_sde.parameterization import cosine_levels
from score_sde.randomness import expand
from score_sde.sampling import fast_solver, solve
from score_sde.training.recipe import objective_of

CASES = load_json("edm.json")
COND = {"labels": jnp.array([3, 0, 9]), "null": {"labels": jnp.array([False, True, False])}}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of a name with which the golden numbers were computed."""
    z = np.random.default_rng([0, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith("freqs"):
        return (16 * z).astype(np.float32)
    if name.endswith("bias"):
        return (0.1 * z).astype(np.float32)
    return (1 + 0.1 * z if "norm" in name else z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def inputs(case):
    """Images with noise of three levels, the levels, and labels of augmentations."""
    rng, side = np.random.default_rng(zlib.crc32(case.encode())), CASES[case]["img_resolution"]
    sigma = np.array([0.03, 0.8, 90.0] if "VE" in CASES[case]["class_name"] else [0.003, 0.8, 75.0], np.float32)
    x = np.hypot(0.5, sigma)[:, None, None, None] * rng.standard_normal((3, 3, side, side))
    return x.astype(np.float32).transpose(0, 2, 3, 1), sigma, rng.standard_normal((3, 9)).astype(np.float32)


def network_of(kwargs):
    values = values_of(kwargs)
    options = {key.removeprefix("model."): value for key, value in values.items() if key.startswith("model.")}
    return NCSNpp(**{name: value for name, value in options.items() if name not in ("name", "scale_by_sigma")})


@functools.cache
def pretrained(case):
    """The network of a case with the golden tensors, read by the layout, under the objective of its arguments."""
    network, side, config = network_of(CASES[case]), CASES[case]["img_resolution"], base()
    for key, value in objective_values(CASES[case]).items():
        section, name = key.split(".")
        config[section][name] = value
    shapes = published_shapes(network, (side, side, 3))
    params = params_of({name: tensor(name, shape) for name, shape in shapes.items()}, network, (side, side, 3))
    return Pretrained(objective_of(config), network, params, image_shape=(side, side, 3))


def denoised(case):
    """Denoised images as functions of labels of augmentations."""
    model, (x, sigma, _) = pretrained(case), inputs(case)
    process, row = model.objective.process, model.objective.parameterization
    cond, network = COND if CASES[case]["label_dim"] else None, model.network

    @jax.jit
    def run(params, x, t, augment):
        def with_labels(x, noise_cond):
            return network.apply({"params": params}, x, noise_cond, cond, augment=augment)

        with jax.default_matmul_precision("highest"):
            return row.model(with_labels, process)(expand(process.alpha(t), x) * x, t).x0

    return lambda augment: run(model.params, x, process.time(jnp.asarray(sigma)), augment)


def check(case, key, images):
    """Raises unless pixels differ by at most 1e-5 of each image's largest value."""
    golden, step = np.load(GOLDEN / "edm.npz"), 1 if CASES[case]["img_resolution"] == 8 else 5
    errors = np.abs(np.asarray(images)[:, ::step, ::step] - golden[f"{case}/{key}"]).max((1, 2, 3))
    assert (errors <= 1e-5 * golden[f"{case}/{key}_largest"]).all(), errors / golden[f"{case}/{key}_largest"]


TINY = [case for case in CASES if "tiny" in case]


@pytest.mark.parametrize("case", TINY)
def test_a_small_network_of_edms_denoises_as_theirs(case):
    (x, sigma, augment), cond = inputs(case), COND if CASES[case]["label_dim"] else None
    check(case, "plain", pretrained(case).denoise(jnp.asarray(x), jnp.asarray(sigma), cond=cond))
    check(case, "augmented", denoised(case)(augment))


@pytest.mark.parametrize("case", [case for case in CASES if case not in TINY])
def test_a_network_of_edms_depth_denoises_as_theirs(case):
    """All rows: EDM, VP, VE and iDDPM, conditional or not, also one at its published size."""
    augment = inputs(case)[2]
    run = denoised(case)
    check(case, "plain", run(np.zeros_like(augment)))
    check(case, "augmented", run(augment))


def sampled(case):
    """Samples of 18 steps by their count, from the same latents."""
    model, (x, sigma, _) = pretrained(case), inputs(case)
    latents = jnp.asarray(x / np.hypot(0.5, sigma)[:, None, None, None], jnp.float32)
    process = model.objective.process
    predict = model.experiment.model(model.params, cond=COND)
    solver = fast_solver(process, predict, name="edm", num_steps=17, grid="karras")
    samples, nfe = solve(solver, jax.random.split(jax.random.key(0), 3), 80 * latents)
    assert nfe.tolist() == [35] * 3
    return samples


def test_edms_sampler_draws_their_samples_of_a_small_network():
    golden = np.load(GOLDEN / "edm.npz")["edm_tiny_cond/samples"]
    assert relative(sampled("edm_tiny_cond"), golden) < 1e-4


def test_edms_sampler_draws_their_samples_at_published_depth():
    golden = np.load(GOLDEN / "edm.npz")["edm_ddpmpp_cond/samples"]
    assert relative(sampled("edm_ddpmpp_cond")[:, ::5, ::5], golden) < 1e-4
