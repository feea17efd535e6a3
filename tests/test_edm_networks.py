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
from score_sde.inference import edm_layout
from score_sde.inference.edm_layout import objective_values, origins, params_of, published_shapes, values_of
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
    shapes = published_shapes(origins(network, (side, side, 3)))
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


@pytest.mark.parametrize("case", CASES)
def test_a_network_of_edms_denoises_as_theirs(case):
    """All rows, EDM, VP, VE and iDDPM, conditional or not, with labels of augmentations or not."""
    augment = inputs(case)[2]
    run = denoised(case)
    check(case, "plain", run(np.zeros_like(augment)))
    check(case, "augmented", run(augment))


@pytest.mark.parametrize("case", ["edm_skips_cond", "vp_ddpmpp_cond", "ve_ncsnpp_cond", "iddpm_tiny"])
def test_the_method_denoise_of_a_network_of_edms_is_theirs(case):
    (x, sigma, _), cond = inputs(case), COND if CASES[case]["label_dim"] else None
    check(case, "plain", pretrained(case).denoise(jnp.asarray(x), jnp.asarray(sigma), cond=cond))


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


def test_null_is_the_zero_vector_and_labels_of_augmentations_are_zeros_where_absent():
    network = network_of(CASES["edm_tiny_cond"])
    x, sigma, augment = inputs("edm_tiny_cond")
    params = {"params": pretrained("edm_tiny_cond").params}
    apply = jax.jit(network.apply)
    absent = apply(params, x, sigma)
    nothing = apply(params, x, sigma, {"labels": COND["labels"], "null": {"labels": np.full(3, True)}})
    np.testing.assert_array_equal(nothing, absent)
    np.testing.assert_array_equal(apply(params, x, sigma, augment=np.zeros_like(augment)), absent)
    assert np.abs(apply(params, x, sigma, augment=augment) - absent).max() > 1e-3
    assert np.abs(apply(params, x, sigma, COND)[1] - absent[1]).max() == 0
    assert np.abs(apply(params, x, sigma, COND) - absent).max() > 1e-3


PUBLISHED = dict(model_type="SongUNet", img_channels=3, augment_dim=9, model_channels=128, class_name="EDMPrecond")
DDPMPP = dict(embedding_type="positional", encoder_type="standard", channel_mult_noise=1, resample_filter=(1, 1))
NCSNPP = dict(embedding_type="fourier", encoder_type="residual", channel_mult_noise=2, resample_filter=(1, 3, 3, 1))


@pytest.mark.parametrize(
    ("arch", "size", "classes", "parameters"),
    [
        (DDPMPP, 32, 0, 55_733_891),
        (DDPMPP, 32, 10, 55_735_299),
        (NCSNPP, 32, 0, 56_397_827),
        (NCSNPP, 32, 10, 56_400_643),
        (DDPMPP, 64, 0, 61_805_571),  # FFHQ and AFHQv2
        (NCSNPP, 64, 0, 62_761_091),
    ],
)
def test_edms_published_networks_have_their_numbers_of_parameters(arch, size, classes, parameters):
    """Counted as in EDM's code, which has the frequencies as a constant."""
    levels = (2, 2, 2) if size == 32 else (1, 2, 2, 2)
    kwargs = PUBLISHED | arch | dict(img_resolution=size, channel_mult=levels, label_dim=classes)
    shapes = published_shapes(origins(network_of(kwargs), (size, size, 3)))
    assert sum(np.prod(shape) for name, shape in shapes.items() if name != "map_noise.freqs") == parameters
    assert is_trainable(("Dense_0", "kernel")) and not is_trainable(("GaussianFourierProjection_0", "W"))


@functools.cache
def sources():
    return origins(network_of(CASES["edm_tiny_cond"]), (8, 8, 3))


def tiny_tensors():
    shapes = published_shapes(sources())
    return {name: tensor(name, shape) for name, shape in shapes.items()}


FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1])[None, None] / 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("dec.8x8_aux_conv.bias"), r"has no dec\.8x8_aux_conv\.bias"),
        (lambda tensors: tensors.update(extra=np.zeros(3, np.float32)), "has extra, which"),
        (lambda tensors: tensors.update({"map_noise.freqs": np.zeros(9, np.float32)}), r"freqs has shape \(9,\)"),
        (lambda tensors: tensors["map_layer0.bias"].fill(np.nan), "map_layer0.bias holds a number that is not finite"),
        (lambda tensors: tensors.update({"enc.4x4_down.skip.resample_filter": 1.01 * FILTER}), "another filter"),
        (lambda tensors: tensors.update(u=cosine_levels()), "chain of 1,000 steps"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, words, monkeypatch):
    tensors = tiny_tensors()
    monkeypatch.setattr(edm_layout, "origins", lambda *_: sources())  # traced once for all
    change(tensors)
    with pytest.raises(UsageError, match=words):
        params_of(tensors, network_of(CASES["edm_tiny_cond"]), (8, 8, 3))


def test_names_of_a_preconditioned_network_and_its_constants_are_read_too(monkeypatch):
    monkeypatch.setattr(edm_layout, "origins", lambda *_: sources())
    network, tensors = network_of(CASES["edm_tiny_cond"]), tiny_tensors()
    wrapped = {f"model.{name}": value for name, value in tensors.items()}
    wrapped |= {"model.enc.4x4_down.conv0.resample_filter": FILTER, "u": cosine_levels()[::-1].astype(np.float32)}
    jax.tree.map(
        np.testing.assert_array_equal,
        params_of(wrapped, network, (8, 8, 3)),
        params_of(tensors, network, (8, 8, 3)),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(class_name="EDM2Precond"), "not one of VPPrecond"),
        (dict(model_type="DhariwalUNet"), "is a DhariwalUNet"),
        (dict(channel_mult_noise=1), "channel_mult_noise=1"),
        (dict(encoder_type="deep"), "not one of standard, skip, residual"),
        (dict(sigma_scale=2), "argument sigma_scale, which no network here has"),
        (dict(class_name="iDDPMPrecond", M=4000), "M=4000"),
    ],
)
def test_arguments_that_no_network_here_has_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        values_of(CASES["edm_tiny_cond"] | change)


def test_the_levels_of_iddpms_chain_are_those_of_its_capped_cosine():
    """1 + sigma^2 is the product of 1 / (1 - beta), with alpha_bar = cos^2, and beta at most 0.999."""
    levels = cosine_levels()
    alpha_bar = (
        np.cos(np.pi / 2 * (np.arange(1001) / 1000 + 0.008) / 1.008) ** 2 / np.cos(np.pi / 2 * 0.008 / 1.008) ** 2
    )
    np.testing.assert_allclose(1 / (1 + levels[:-1] ** 2), alpha_bar[:-1], rtol=1e-9)
    np.testing.assert_allclose((1 + levels[-1] ** 2) / (1 + levels[-2] ** 2), 1000, rtol=1e-9)
