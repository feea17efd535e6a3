"""U-ViT and DiT compute what their publishers' code computes from the same tensors, and their files become workdirs."""

import argparse
import functools
import hashlib
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import GOLDEN, load_json
from test_import_checkpoint import save_pth

import score_sde
from score_sde.cli.fitting_config import built
from score_sde.cli.main import main
from score_sde.errors import UsageError
from score_sde.inference import transformer_layout
from score_sde.inference.checkpoint_formats import Published
from score_sde.inference.transformer_layout import described, params_of, published_shapes
from score_sde.models import PRECISIONS, DiT, UViT
from score_sde.parameterization import scaled_linear_levels
from score_sde.sde import VP
from score_sde.training.build import Experiment

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
    assert (errors.max((1, 2, 3)) <= 3e-6 * golden[f"{name}_largest"]).all()


PUBLISHED = {  # size, images, parameters of the publishers' code with DiT's positions, and a digest of names and shapes
    "U-ViT-S/4, 12": (UViT(patch_size=4), (64, 64, 3), 44_292_228, "805afa68cc93e41c"),
    "U-ViT-M/4, 16": (
        UViT(patch_size=4, width=768, depth=16, num_heads=12, num_classes=1000),
        (64, 64, 3),
        130_940_292,
        "17783505fa6f2806",
    ),
    "U-ViT-L/2, 20": (
        UViT(width=1024, depth=20, num_heads=16, num_classes=1000),
        (32, 32, 4),
        286_763_172,
        "d81ef991fcae551c",
    ),
    "U-ViT-H/4, 28": (
        UViT(patch_size=4, width=1152, depth=28, num_heads=16, num_classes=1000, conv=False),
        (64, 64, 4),
        500_942_656,
        "bf3d656218031c81",
    ),
    "DiT-S/2, 12": (DiT(num_classes=1000, learned_variance=True), (32, 32, 4), 32_963_360, "708cde74dd38cf91"),
    "DiT-XL/2, 28": (
        DiT(width=1152, depth=28, num_heads=16, num_classes=1000, learned_variance=True),
        (64, 64, 4),
        676_014_368,
        "904998f64634d5a3",
    ),
}


def empty(shapes: dict) -> dict[str, np.ndarray]:
    """Zeros of these shapes, which take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("size", PUBLISHED)
def test_names_and_shapes_of_a_published_file_say_its_network(size):
    network, image_shape, parameters, digest = PUBLISHED[size]
    shapes = dict(published_shapes(network, image_shape))
    if "U-ViT-M" in size:  # of pixels, without a null label
        shapes["label_emb.weight"] = 1000, 768
    listed = json.dumps(sorted([name, list(shape)] for name, shape in shapes.items()))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == digest
    assert sum(np.prod(shape) for shape in shapes.values()) == parameters
    said = described(empty(shapes))
    assert f"{said.facts['network']}" == f"{size} blocks" and ("latents" in said.facts) == (image_shape[-1] == 4)
    experiment = Experiment(built(Published("", None, said.values, said.assumed)))
    assert experiment.network == network and experiment.image_shape == image_shape


def test_objectives_are_those_of_the_publishers_trainings():
    def objective(name):
        said = described(tensors_of(name))
        experiment = Experiment(built(Published("", None, said.values, said.assumed | {"data.dataset": "folder"})))
        row, process = experiment.objective.parameterization, experiment.objective.process
        return type(row).__name__, row.noise_cond, process.beta_min, process.beta_max, experiment.config.sampling.method

    assert objective("uvit_small") == ("Noise", "time", 0.1, 20.0, "pc")
    assert objective("uvit_small_latents") == ("Noise", "scaled_linear_step", 0.85, 9.887, "dpm_solver_3")
    assert objective("dit_small") == ("Noise", "linear_index", 0.1, 20.0, "ddim")


def test_a_vp_sde_has_the_levels_of_stable_diffusions_chain_at_both_ends():
    process = VP(beta_min=0.85, beta_max=9.887)
    levels = process.noise_level(jnp.array([1e-3, 1.0]))
    np.testing.assert_allclose(levels, scaled_linear_levels()[[1, 1000]], rtol=5e-3)


def changed(tensors: dict, **changes) -> dict:
    """The tensors with some of them replaced, or removed by None; __ stands for a dot."""
    tensors = tensors | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("uvit_small", dict(norm__bias=None), "U-ViT's file has no norm.bias"),
        ("uvit_small", dict(mid_block__attn__qkv__bias=ONES), "has mid_block.attn.qkv.bias, which"),
        ("uvit_small", dict(norm__bias=ONES), r"norm.bias has shape \(3,\)"),
        ("uvit_small", dict(norm__bias=np.full(32, np.nan, np.float32)), "norm.bias holds a number that is not finite"),
        ("dit_small", dict(final_layer__linear__bias=None), "DiT's file has no final_layer.linear.bias"),
        ("dit_small", dict(pos_embed=np.ones((1, 16, 32), np.float32)), "pos_embed is not its table of sines"),
        ("dit_small", dict(y_embedder__embedding_table__weight=np.ones((4, 32), np.float32)), "embedding_table.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(case, changes, words):
    with pytest.raises(UsageError, match=words):
        tensors = changed(tensors_of(case), **changes)
        params_of(tensors, network_of(CASES[case]), tuple(CASES[case]["image_shape"]))


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("uvit_small", dict(context_embed__weight=ONES), "U-ViT with text is not read"),
        ("uvit_small", dict(pos_embed=np.ones((1, 16, 32))), "positions of 15 patches, which are no square"),
        ("uvit_small", dict(pos_embed=ONES), "no pos_embed with 3 axes"),
        ("uvit_small", dict(patch_embed__proj__weight=None), r"no patch_embed.proj.weight with 4 axes"),
        ("uvit_small", dict(mid_block__attn__qkv__weight=None), "one of which U-ViT and DiT have"),
        ("dit_small", dict(x_embedder__proj__weight=ONES), r"no x_embedder.proj.weight with 4 axes"),
    ],
)
def test_tensors_of_other_networks_are_refused_by_name(case, changes, words):
    with pytest.raises(UsageError, match=words):
        described(changed(tensors_of(case), **changes))


def imported(source, folder, *flags) -> int:
    return main(["score_sde", "--mode=import", f"--from={source}", f"--workdir={folder}", *flags])


def test_a_state_dict_of_uvit_becomes_a_workdir(tmp_path, monkeypatch, capsys):
    (tmp_path / "50000.ckpt").mkdir()
    save_pth(source := tmp_path / "50000.ckpt/nnet_ema.pth", tensors_of("uvit_small"), monkeypatch)
    assert imported(source, tmp_path / "run", "--config.model.num_heads=4") == 0
    printed = capsys.readouterr().out
    for words in (
        "U-ViT's state dict (PyTorch), step 50000",
        "U-ViT/2, 4 blocks",
        "8x8, 3 channels",
        "model.num_heads=N",
        "--config=NAME",
    ):
        assert words in printed
    model = score_sde.load(tmp_path / "run")
    x, noise_cond, _ = inputs("uvit_small")
    golden = np.load(GOLDEN / "transformers.npz")["uvit_small"]
    output = jax.jit(model.network.apply)({"params": model.params}, x, noise_cond)
    np.testing.assert_allclose(output, golden, atol=3e-6 * np.abs(golden).max())


def test_a_checkpoint_of_dits_training_becomes_a_workdir(tmp_path, monkeypatch, capsys):
    averaged = tensors_of("dit_small_learned_sigma")
    raw = {name: value if name == "pos_embed" else value + np.float32(1) for name, value in averaged.items()}
    content = {"model": raw, "ema": averaged, "opt": {"state": {}}, "args": argparse.Namespace(model="DiT-S/2")}
    save_pth(tmp_path / "0050000.pt", content, monkeypatch)
    assert imported(tmp_path / "0050000.pt", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    for words in (
        "DiT's training checkpoint",
        "step 50000",
        "4 channels, of an autoencoder",
        "5 classes",
        "--config=NAME",
    ):
        assert words in printed
    model, image_shape = score_sde.load(tmp_path / "run"), (8, 8, 4)
    expected = params_of(averaged, model.network, image_shape)
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)
    assert model.config.training.label_dropout == 0.1 and model.network.learned_variance


def test_a_file_that_a_config_contradicts_is_refused(tmp_path, monkeypatch, capsys):
    save_pth(tmp_path / "file.pt", tensors_of("dit_small"), monkeypatch)
    for flags, words in (
        (["--config=vp/cifar10_ddpmpp_continuous"], "The file's network is model.name=dit"),
        (["--config.model.width=64"], "The file says model.width=32, and the config 64"),
    ):
        assert imported(tmp_path / "file.pt", tmp_path / "run", *flags) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "run").exists()
