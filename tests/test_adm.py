"""ADM's U-Net computes what its two publishers' code computes, from tensors under their names."""

import functools
import hashlib
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from golden_weights import GOLDEN, load_json, names, relative

import score_sde
from score_sde.errors import UsageError
from score_sde.inference import adm_layout
from score_sde.inference.openai_flags import RELEASED, flags_of
from score_sde.models import ADM, PRECISIONS
from score_sde.training.run import train

CASES = load_json("adm.json")
SMALL = dict(nf=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), head_channels=32, dropout=0.5)


def network_of(case: dict) -> ADM:
    return ADM(**{name: tuple(value) if isinstance(value, list) else value for name, value in case["options"].items()})


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A published network's tensor as a function of its name, with which the golden outputs were computed."""
    z = np.random.default_rng([0, zlib.crc32(name.encode())]).standard_normal(shape)
    if len(shape) > 1:
        return (z / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return (1 + 0.1 * z if name.endswith("weight") else 0.1 * z).astype(np.float32)


def tensors_of(case: dict) -> dict[str, np.ndarray]:
    shapes = adm_layout.published_shapes(network_of(case), tuple(case["image_shape"]), case["publisher"])
    return {name: tensor(name, shape) for name, shape in shapes.items()}


@functools.cache
def tensors_of_openai() -> dict[str, np.ndarray]:
    """The tensors of OpenAI's network with the options of SMALL."""
    shapes = adm_layout.published_shapes(ADM(**SMALL), (8, 8, 3), "openai")
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def changed(tensors: dict, **changes) -> dict:
    """The tensors with some of them replaced, or removed by None; __ stands for a dot."""
    tensors = tensors | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


def inputs(name: str, case: dict) -> tuple:
    """Images, noise conditions, classes and labels of augmentations of a golden output, in their order of drawing."""
    n, rng = case["images"], np.random.default_rng([1, zlib.crc32(name.encode())])
    x = rng.standard_normal((n, *case["image_shape"])).astype(np.float32)
    noise_cond = rng.uniform(-1.5, 1.1, n) if case["publisher"] == "edm" else rng.integers(0, 1000, n)
    if n > 1 and case["publisher"] == "openai":
        noise_cond[0] = 999
    labels, augment = rng.integers(0, 3, n), rng.standard_normal((n, 9)).astype(np.float32)
    cond = {"labels": jnp.asarray(labels)} if case["options"].get("num_classes") else None
    if name == "edm_small":  # one image without augmentation, and one of the null label, EDM's zero vector
        augment[1], cond["null"] = 0, {"labels": jnp.array([False, False, True])}
    augment = {"augment": jnp.asarray(augment)} if case["options"].get("augment_dim") else {}
    return x, noise_cond.astype(np.float32), cond, augment


@pytest.mark.parametrize("name", CASES)
def test_a_network_computes_what_its_publishers_does_from_the_same_tensors(name):
    case = CASES[name]
    network, image_shape, tensors = network_of(case), tuple(case["image_shape"]), tensors_of(case)
    network.check(image_shape[0])
    listed = json.dumps(sorted([name, list(value.shape)] for name, value in tensors.items()))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == case["names"]
    assert sum(value.size for value in tensors.values()) == case["parameters"]
    params = adm_layout.params_of(tensors, network, image_shape, case["attention_order"])
    x, noise_cond, cond, augment = inputs(name, case)

    def apply(params, x, noise_cond, cond, augment):
        return PRECISIONS["float32"].apply(network, {"params": params}, x, noise_cond, cond, **augment)

    output = jax.jit(apply)(params, x, noise_cond, cond, augment)[:, :: case["stride"], :: case["stride"]]
    for sample, golden in zip(output, np.load(GOLDEN / "adm.npz")[name], strict=True):
        assert relative(sample, golden) < 1e-5


PUBLISHED = {  # arguments and parameters of the publishers' code
    "EDM 64": (dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, label_dim=1000), 295_899_267),
    "EDM 64, augmented": (
        dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, label_dim=1000, augment_dim=9),
        295_900_995,
    ),
    "OpenAI 64": (RELEASED["64x64_diffusion"], 295_904_454),
    "OpenAI 128": (RELEASED["128x128_diffusion"], 421_529_606),
    "OpenAI 256": (RELEASED["256x256_diffusion"], 553_838_086),
    "OpenAI 256, unconditional": (RELEASED["256x256_diffusion_uncond"], 552_814_086),
    "OpenAI 512": (RELEASED["512x512_diffusion"], 558_997_638),
}


def built(values: dict) -> ADM:
    """The network of a config's values."""
    options = {name.removeprefix("model."): value for name, value in values.items() if name.startswith("model.")}
    return ADM(**{name: value for name, value in options.items() if name not in ("name", "scale_by_sigma")})


def shapes_of(network: ADM, size: int = 8, channels: int = 3):
    x = np.zeros((1, size, size, channels), np.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x, np.ones(1, np.float32))["params"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_publishers_number_of_parameters(name):
    arguments, parameters = PUBLISHED[name]
    values = adm_layout.values_of(arguments)
    network, size = built(values), values["data.image_size"]
    network.check(size)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes_of(network, size))) == parameters


def test_published_arguments_say_the_objective():
    def part(arguments):
        values = adm_layout.values_of(arguments)
        keys = ("process.name", "parameterization.name", "parameterization.noise_cond", "model.learned_variance")
        return tuple(values.get(key) for key in keys)

    images = dict(img_resolution=64, img_channels=3)
    assert part(images | dict(class_name="EDMPrecond")) == ("edm", "edm", None, False)
    assert part(images | dict(class_name="iDDPMPrecond")) == ("cosine", "noise", "cosine_index", True)
    assert part(RELEASED["64x64_diffusion"]) == ("cosine", "noise", "cosine_index", True)
    assert part(RELEASED["lsun_cat"]) == ("vp", "noise", "linear_index", True)
    assert part(dict(predict_xstart="True", learn_sigma="False")) == ("vp", "x0", "linear_index", False)
    wide = adm_layout.values_of(RELEASED["512x512_diffusion"])
    assert wide["model.nf"] == 128 and wide["model.embedding_size"] == 256
    assert wide["model.ch_mult"] == (1, 2, 2, 4, 4, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(img_resolution=64), "OpenAI's programs have no flag img_resolution"),
        (dict(class_name="EDMPrecond", img_channels=3), "img_resolution"),
        (
            dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, model_type="SongUNet"),
            "EDM's file is a SongUNet",
        ),
        (dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, resample_filter=[1, 3]), "resample_filter"),
        (dict(class_name="EDMPrecond", img_resolution=64, img_channels=3, channel_mult_emb=2), "channel_mult_emb=2"),
        (dict(noise_schedule="sigmoid"), "--noise_schedule sigmoid"),
        (dict(diffusion_steps=4000), "--diffusion_steps 4000"),
        (dict(num_heads_upsample=8), "--num_heads_upsample 8"),
        (dict(class_cond="maybe"), "'maybe', and must be True or False"),
        (dict(image_size=32), "OpenAI's networks of 32x32 pixels have no factors"),
        (dict(image_size="large"), "no number where one must be"),
    ],
)
def test_published_arguments_that_cannot_be_read_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        adm_layout.values_of(arguments)


@pytest.mark.parametrize(
    "flags",
    [
        dict(learn_sigma=True, class_cond=True, num_classes=7, resblock_updown=True, channel_mult="0.5,1"),
        dict(use_scale_shift_norm=False, channel_mult="1,2,2", num_res_blocks=1, attention_resolutions="2"),
        dict(conv_resample=False, channel_mult="2,1", attention_resolutions="8,4", num_channels_of_images=1),
    ],
)
def test_names_and_shapes_of_openais_tensors_say_all_flags_but_the_heads_and_the_objective(flags):
    flags = dict(image_size=8, num_channels=64, num_head_channels=32, attention_resolutions="4") | flags
    values = adm_layout.values_of(flags)
    image_shape = (8, 8, values["data.num_channels"])
    shapes = adm_layout.published_shapes(built(values), image_shape, "openai")
    read = flags_of({name: np.empty(shape, np.float32) for name, shape in shapes.items()}, 8)
    again = adm_layout.values_of(read | dict(num_head_channels=32))
    unused = {"model.resamp_with_conv"} if values["model.resblock_type"] == "biggan" else set()
    assert {key for key in values if values[key] != again[key]} <= unused


def test_openais_classifiers_and_upsamplers_are_refused():
    tensors = tensors_of_openai()
    with pytest.raises(UsageError, match="upsample"):
        flags_of(changed(tensors, input_blocks__0__0__weight=np.empty((32, 6, 3, 3))), 8)
    encoder = {name: value for name, value in tensors.items() if not name.startswith("output_blocks")}
    with pytest.raises(UsageError, match="classifiers are not read"):
        flags_of(encoder, 8)


def test_the_network_starts_as_in_pytorch_and_returns_zeros():
    network = ADM(**SMALL, num_classes=40, augment_dim=9)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.ones(1))["params"]
    leaves = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    for path, fan_in in {"Conv_0": 27, "ResnetBlockADM_0/Dense_0": 128, "AttnBlockADM_0/Dense_0": 64}.items():
        for leaf in (leaves[f"{path}/kernel"], leaves[f"{path}/bias"]):
            assert (1 - 30 / leaf.size) / np.sqrt(fan_in) < np.abs(leaf).max() <= 1 / np.sqrt(fan_in)
    zero = [path for path, leaf in leaves.items() if not leaf.any() and "GroupNorm" not in path]
    blocks, attentions = 10, 4
    last_layers = 2 * blocks + 2 * attentions + 2  # kernel and bias; the last two are the output's
    assert len(zero) == last_layers + 1 and "of_augment/kernel" in zero and "Conv_1/kernel" in zero
    assert abs(leaves["Embed_0/embedding"].std() - 1) < 5 / np.sqrt(2 * 40 * 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=3), "model.num_heads=3 does not divide the 64 channels of a level with attention"),
        (dict(head_channels=48), "model.head_channels=48 does not divide the 64 channels"),
        (dict(head_channels=128), "model.head_channels=128 does not divide the 64 channels"),
        (dict(num_groups=5), "The 32 channels of a level do not split into model.num_groups=5"),
        (dict(nf=33), "The 33 channels of a level do not split into 32 groups, or one for 4 channels"),
        (dict(ch_mult=(1, 2, 2, 2, 2)), "data.image_size=8 is not divisible by 16"),
        (dict(ch_mult=()), "must hold one positive integer a level"),
        (dict(nonlinearity="gelu"), "model.nonlinearity"),
    ],
)
def test_options_that_no_network_has_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        ADM(**(SMALL | options)).check(8)


def test_labels_of_augmentations_need_a_network_that_takes_them():
    network, x = ADM(**SMALL), jnp.zeros((1, 8, 8, 3))
    with pytest.raises(UsageError, match=r"set model\.augment_dim"):
        jax.eval_shape(lambda: network.init(jax.random.key(0), x, jnp.ones(1), augment=jnp.zeros((1, 9))))


def test_tensors_that_do_not_fit_are_named():
    network, tensors = ADM(**SMALL), tensors_of_openai()
    for wrong, words in (
        (changed(tensors, out__2__bias=None), "has no out.2.bias"),
        (changed(tensors, out__3__bias=np.ones(3, np.float32)), "has out.3.bias"),
        (changed(tensors, out__2__bias=np.ones(4, np.float32)), r"out.2.bias has shape \(4,\)"),
        (changed(tensors, out__2__bias=np.full(3, np.nan, np.float32)), "out.2.bias holds a number that is not finite"),
        ({}, "has no time_embed.0.weight"),
    ):
        with pytest.raises(UsageError, match=words):
            adm_layout.params_of(wrong, network, (8, 8, 3), "new")
    with pytest.raises(UsageError, match="give attention_order=new if"):
        adm_layout.params_of(tensors, network, (8, 8, 3))


def test_only_the_order_of_queries_keys_and_values_differs_between_the_two_attentions_of_openai():
    network, tensors = ADM(**SMALL), tensors_of_openai()
    new, legacy = (
        traverse_util.flatten_dict(adm_layout.params_of(tensors, network, (8, 8, 3), order), sep="/")
        for order in ("new", "legacy")
    )
    differing = {path for path in new if not np.array_equal(new[path], legacy[path])}
    attentions = range(4)
    assert differing == {f"AttnBlockADM_{i}/Dense_0/{leaf}" for i in attentions for leaf in ("kernel", "bias")}
    one = legacy["AttnBlockADM_0/Dense_0/bias"].reshape(3, 2, 32)  # of two heads of 32 channels
    stored = tensors["input_blocks.3.1.qkv.bias"].reshape(2, 3, 32)
    np.testing.assert_array_equal(one, stored.swapaxes(0, 1))


def test_edms_filters_must_be_the_mean_of_four_pixels_and_its_noise_levels_are_left_out():
    network = ADM(**SMALL)
    shapes = adm_layout.published_shapes(network, (8, 8, 3), "edm")
    tensors = {f"model.{name}": tensor(name, shape) for name, shape in shapes.items()} | {"u": np.ones(1001)}
    name = "model.enc.4x4_down.conv0.resample_filter"
    whole = adm_layout.params_of(tensors | {name: np.full((1, 1, 2, 2), 0.25, np.float32)}, network, (8, 8, 3))
    assert names(whole) == names(shapes_of(network))
    with pytest.raises(UsageError, match=r"enc\.4x4_down\.conv0\.resample_filter is no mean of 2x2 pixels"):
        adm_layout.params_of(tensors | {name: np.ones((1, 1, 4, 4), np.float32)}, network, (8, 8, 3))


def test_a_run_with_this_network_trains_samples_evaluates_and_has_forward_derivatives(tiny_config, tmp_path):
    config = tiny_config()
    with config.unlocked():
        config.model = dict(SMALL, name="adm", scale_by_sigma=False, num_classes=10)
    config.training.n_iters = 2
    train(config, tmp_path)
    model = score_sde.load(tmp_path)
    samples = model.sample(jax.random.key(0), 2, labels=[3, 7])
    assert np.isfinite(samples).all()
    assert np.isfinite(model.bits_per_dim(jax.random.key(1), np.zeros((1, 8, 8, 1), np.uint8))).all()
    x, t = jnp.asarray(samples), jnp.full(2, 0.5)
    change, step = jnp.ones_like(x), 1e-2
    _, along = jax.jvp(lambda x: model.score(x, t), (x,), (change,))
    secant = (model.score(x + step * change, t) - model.score(x - step * change, t)) / (2 * step)
    assert relative(along, secant) < 1e-2
