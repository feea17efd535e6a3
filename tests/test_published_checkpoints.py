"""Files of EDM, EDM2, OpenAI and diffusers become workdirs; what would run something is refused by name, and nothing is
written.

The pickles are written here, in the structure of the publishers' own, without source text.
"""

import collections
import io
import json
import os
import pickle
import pickletools
import re
import struct
import sys
import types
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden_weights import GOLDEN, load_json, relative, weights
from test_import_checkpoint import Evil, pickled, save_pth, stub, to_torch

import score_sde
from score_sde.cli import fitting_config
from score_sde.cli.main import main
from score_sde.errors import UsageError
from score_sde.inference import checkpoint_formats, diffusers_layout, edm_layout
from score_sde.inference.published_tensors import leaf_shapes
from score_sde.inference.reference_checkpoints import restored, torch_names
from score_sde.io import persistent_pickles, pytorch_files, safetensors_files
from score_sde.models import DDPM, NCSNpp
from score_sde.training.build import Experiment

REBUILD = ("torch_utils.persistence", "_reconstruct_persistent_obj")
ARGUMENTS = dict(
    img_resolution=8,
    img_channels=1,
    label_dim=3,
    use_fp16=False,
    model_type="SongUNet",
    model_channels=4,
    channel_mult=[1],
    num_blocks=1,
    attn_resolutions=[],
    dropout=0.13,
    augment_dim=9,
)


class Module:
    """A network, or a layer of PyTorch's where it has no arguments."""

    def __init__(self, name: str, arguments: dict | None = None, **attributes):
        self.name, self.arguments, self.attributes = name, arguments, attributes
        self.tensors: dict[str, np.ndarray] = {}
        self.modules: dict[str, Module] = {}

    @property
    def state(self) -> dict:
        ordered = collections.OrderedDict
        state = {"_parameters": dict(self.tensors), "_buffers": ordered(), "_modules": dict(self.modules)}
        state |= {"_non_persistent_buffers_set": set(), "_init_args": (), "_init_kwargs": self.arguments}
        return {"training": False, **state, **self.attributes}


def module(name: str, arguments: dict, tensors: dict[str, np.ndarray], **attributes) -> Module:
    """A network whose state dict is `tensors`."""
    root = Module(name, arguments, **attributes)
    for path, value in tensors.items():
        at, (*parts, last) = root, path.split(".")
        for part in parts:
            at = at.modules.setdefault(part, Module("ModuleDict"))
        at.tensors[last] = value
    return root


def legacy(array: np.ndarray) -> bytes:
    """A storage as `torch.save` wrote it before PyTorch 1.6."""
    kind = {"f": "FloatStorage", "e": "HalfStorage", "E": "BFloat16Storage"}[array.dtype.char]

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", named("torch", kind), "0", "cpu", array.size, None) if value is array else None

    file = io.BytesIO()
    file.write(pytorch_files.BEFORE_1_6)
    for value in (1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(value, file, protocol=2)
    with_names(lambda: Pickler(file, protocol=2).dump(array), ("torch", kind))
    pickle.dump(["0"], file, protocol=2)
    return file.getvalue() + struct.pack("<q", array.size) + array.tobytes()


def with_names(run, *names):
    """Runs with stubs at these names, by which Python's pickler finds what it writes."""
    parents = {module.rpartition(".")[0] for module, _ in names} | {"torch", "torch.nn"}
    before = {module: sys.modules.get(module) for module in {*parents, *(module for module, _ in names)} - {""}}
    for module in before:
        sys.modules[module] = sys.modules.get(module) or types.ModuleType(module)
    for module, name in names:
        setattr(sys.modules[module], name, STUBS.setdefault((module, name), stub(module, name)))
    try:
        return run()
    finally:
        for module, held in before.items():
            if held is None:
                sys.modules.pop(module, None)


STUBS: dict = {}


def named(module: str, name: str):
    return STUBS.setdefault((module, name), stub(module, name))


def persistent(content) -> bytes:
    """A pickle as EDM's code writes it."""
    names = (
        REBUILD,
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.nn.modules.container", "ModuleDict"),
    )
    rebuild, tensor, parameter, storage, container = (named(*name) for name in names)

    class Bytes(bytes):
        pass

    class Pickler(pickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, Module) and value.name == "ModuleDict":
                return container, (), value.state
            if isinstance(value, Module):
                meta = {"type": "class", "version": 6, "module_src": "", "class_name": value.name}
                return rebuild, (meta | {"state": value.state},)
            if isinstance(value, Bytes):
                return storage, (bytes(value),)
            if isinstance(value, np.ndarray):
                strides = tuple(step // value.itemsize for step in value.strides)
                parts = (Bytes(legacy(value.ravel())), 0, value.shape, strides, False, collections.OrderedDict())
                return parameter, (Tensor(parts), False, collections.OrderedDict())
            if isinstance(value, Tensor):
                return tensor, tuple(value)
            return NotImplemented

    class Tensor(list):
        pass

    file = io.BytesIO()
    with_names(lambda: Pickler(file, protocol=4).dump(content), *names)
    return file.getvalue()


def network_of(values: dict):
    options = {key.removeprefix("model."): value for key, value in values.items() if key.startswith("model.")}
    kind = {"ddpm": DDPM, "ncsnpp": NCSNpp}[options["name"]]
    return kind(**{key: value for key, value in options.items() if key not in ("name", "scale_by_sigma")})


def of_edm(seed: int = 0, **changes) -> dict[str, np.ndarray]:
    """Tensors of the network of `ARGUMENTS`, by published name."""
    values = edm_layout.values_of(ARGUMENTS | changes | {"class_name": "EDMPrecond"})
    shapes = edm_layout.published_shapes(edm_layout.origins(network_of(values), (8, 8, 1)))
    key = np.random.default_rng(seed)
    return {f"model.{name}": key.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def tensors():
    return of_edm()


@pytest.fixture
def snapshot(tensors, tmp_path):
    """A snapshot of EDM's code."""
    network = module("EDMPrecond", ARGUMENTS, tensors, sigma_data=0.6, sigma_min=0, sigma_max=float("inf"))
    path = tmp_path / "network-snapshot-001024.pkl"
    path.write_bytes(persistent({"ema": network, "dataset_kwargs": {"path": "datasets/small.zip"}}))
    return path


def imported(source, folder, *flags) -> int:
    return main(["score_sde", "--mode=import", f"--from={source}", f"--workdir={folder}", *flags])


def test_a_snapshot_of_edms_says_its_network_and_objective(snapshot, tensors, tmp_path, capsys):
    assert imported(snapshot, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    for words in (
        "EDM's snapshot",
        "EDMPrecond of SongUNet",
        "1,024 thousand",
        "datasets/small.zip",
        "sigma_data 0.6",
        "3 classes",
        "--config.data.path=FOLDER",
        "8x8, 1 channels",
    ):
        assert words in printed
    model = score_sde.load(tmp_path / "run")
    config = model.config
    assert (config.process.name, config.weight.sigma_data, config.model.augment_dim) == ("edm", 0.6, 9)
    assert (config.sampling.method, config.sampling.grid, config.sampling.num_steps) == ("edm", "karras", 17)
    jax.tree.map(np.testing.assert_array_equal, edm_layout.params_of(tensors, model.network, (8, 8, 1)), model.params)
    launch = json.loads((tmp_path / "run/launch.json").read_text())
    assert launch["imported"]["step"] == 0 and launch["imported"]["says"]["data"] == "datasets/small.zip"
    with pytest.raises(UsageError, match="had every image's condition"):
        model.bits_per_dim(jax.random.key(0), np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.model.nf=8"], "The file says model.nf=4, and the config 8"),
        (["--config.parameterization.sigma_data=0.5"], "sigma_data=0.6, and the config 0.5"),
        (["--config=vp/cifar10_ddpmpp_continuous"], "The file says"),
        (["--config=ve/ncsn/cifar10"], "model.name=ncsnpp, and the config's ncsn"),
    ],
)
def test_a_config_that_the_file_contradicts_is_refused(flags, words, snapshot, tmp_path, capsys):
    assert imported(snapshot, tmp_path / "run", *flags) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, a: t.pop("model.map_label.weight"), "has no map_label.weight"),
        (lambda t, a: t.update({"model.extra": np.zeros(3, np.float32)}), "has extra"),
        (lambda t, a: t.update({"model.map_layer0.bias": np.zeros(5, np.float32)}), "map_layer0.bias has shape (5,)"),
        (lambda t, a: t["model.map_layer0.bias"].fill(np.nan), "not finite"),
        (lambda t, a: a.update(model_type="Transformer"), "Transformer"),
        (lambda t, a: a.update(gating=True), "gating"),
        (lambda t, a: a.pop("img_resolution"), "img_resolution"),
    ],
)
def test_a_snapshot_that_does_not_fit_is_refused_by_name(change, words, tensors, tmp_path):
    changed, arguments = {name: value.copy() for name, value in tensors.items()}, dict(ARGUMENTS)
    change(changed, arguments)
    (tmp_path / "file.pkl").write_bytes(persistent({"ema": module("EDMPrecond", arguments, changed)}))
    with pytest.raises(UsageError, match=re.escape(words)):
        published = checkpoint_formats.read(tmp_path / "file.pkl")
        published.restore(network_of(published.values), (8, 8, 1), dict)


def test_nothing_is_written_of_a_file_that_does_not_fit(tensors, tmp_path, capsys):
    cut = {name: value for name, value in tensors.items() if name != "model.map_layer1.bias"}
    (tmp_path / "file.pkl").write_bytes(persistent({"ema": module("EDMPrecond", ARGUMENTS, cut)}))
    assert imported(tmp_path / "file.pkl", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "has no map_layer1.bias" in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def program(*lines: bytes) -> bytes:
    """A pickle that looks like EDM's and follows these instructions."""
    return b"\x80\x04\x8c\x0btorch_utils0" + b"".join(lines) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name_of(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


RECORD = name_of(*REBUILD)
EASY = name_of("dnnlib.util", "EasyDict")
LOAD = name_of("torch.storage", "_load_from_bytes")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([name_of("os", "system"), text("touch x"), b"\x85R"], "asks for os.system"),
        ([name_of("builtins", "eval"), text("1"), b"\x85R"], "asks for builtins.eval"),
        ([name_of("builtins", "getattr"), RECORD, text("x"), b"\x86R"], "asks for builtins.getattr"),
        ([name_of("torch", "load")], "asks for torch.load"),
        ([name_of("torch.nn.modules.container", "ModuleDict.__init__.__globals__")], "asks for torch.nn.modules"),
        ([name_of("torch.nn.modules", "os.system")], "asks for torch.nn.modules.os.system"),
        ([name_of("dnnlib.util", "construct_class_by_name")], "asks for dnnlib.util.construct_class_by_name"),
        ([b"cos\nsystem\n(S'x'\ntR"], "asks for os.system"),  # of protocol 0
        ([b"(S'x'\nios\nsystem\n"], "asks for os.system"),  # INST
        ([text("storage"), b"Q"], "is not a whole pickle"),  # a persistent id
        ([RECORD, b"}", b"\x85R"], "a form that EDM's code does not write"),
        ([LOAD, b"K\x07\x85R"], "a storage that is no bytes"),
        ([LOAD, b"C\x03abc\x85R"], "not a PyTorch file"),
        ([EASY], "something else"),  # a class itself
        ([b"N"], "no dictionary of networks"),
    ],
)
def test_a_pickle_with_anything_else_is_refused(lines, words, tmp_path, capsys):
    (tmp_path / "file.pkl").write_bytes(program(*lines))
    assert imported(tmp_path / "file.pkl", tmp_path / "run") == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_payload_inside_a_tensor_is_not_run(tmp_path):
    """A storage is a file inside the pickle, which may name as little as the pickle outside."""
    target = tmp_path / "planted"
    inner = io.BytesIO()
    inner.write(pytorch_files.BEFORE_1_6)
    for value in (1001, {"little_endian": True}):
        pickle.dump(value, inner, protocol=2)
    pickle.dump(Evil(os.mkdir, str(target)), inner, protocol=2)
    content = inner.getvalue()
    (tmp_path / "file.pkl").write_bytes(program(LOAD, b"B" + struct.pack("<I", len(content)) + content, b"\x85R"))
    with pytest.raises(UsageError, match=r"posix\.mkdir"):
        persistent_pickles.read(tmp_path / "file.pkl")
    nested = pytorch_files.BEFORE_1_6 + content[len(pytorch_files.BEFORE_1_6) :].replace(
        b"posix\nmkdir", b"torch.storage\n_load_from_bytes"
    )
    (tmp_path / "file.pkl").write_bytes(program(LOAD, b"B" + struct.pack("<I", len(nested)) + nested, b"\x85R"))
    with pytest.raises(UsageError):
        persistent_pickles.read(tmp_path / "file.pkl")
    assert not target.exists()


def test_attributes_of_a_dictionary_are_its_keys(tmp_path):
    (tmp_path / "file.pkl").write_bytes(program(EASY, b")\x81", text("__class__"), text("os"), b"s"))
    content = persistent_pickles.read(tmp_path / "file.pkl")
    assert content == {"__class__": "os"} and isinstance(content, dict)
    with pytest.raises(UsageError, match="no network ema"):
        checkpoint_formats.read(tmp_path / "file.pkl")


@pytest.mark.parametrize(
    "lines",
    [
        [EASY, b"N}", text("x"), b"K\x07s\x86b"],  # a state that would set an attribute of the class
        [name_of("torch.nn.modules.container", "ModuleDict"), b"N}", text("x"), b"K\x07s\x86b"],
        [RECORD, b"N}", text("__defaults__"), b"K\x07s\x86b"],
    ],
)
def test_a_pickle_cannot_change_the_reader(lines, tmp_path):
    (tmp_path / "file.pkl").write_bytes(program(*lines))
    with pytest.raises(UsageError):
        persistent_pickles.read(tmp_path / "file.pkl")
    assert persistent_pickles._object.__defaults__ is None
    assert not hasattr(persistent_pickles.PlainDict, "x") and not hasattr(persistent_pickles.Record, "x")


def test_a_pickle_takes_no_more_memory_than_its_length(tmp_path):
    """A memo of 4 billion places, a text of 2^60 bytes, and lists of lists that print as 2^64 items."""
    doubled = b"]q\x00" + b"".join(
        b"]q" + bytes([i]) + b"h" + bytes([i - 1]) + b"ah" + bytes([i - 1]) + b"a" for i in range(1, 64)
    )
    for lines, words in (
        ([b"Nr\xff\xff\xff\xff"], "numbers its object"),
        ([b"\x8e" + struct.pack("<Q", 2**60)], "not a whole pickle"),
        ([b"\x95" + struct.pack("<Q", 2**60)], "not a whole pickle"),
        ([doubled], "no dictionary of networks"),
    ):
        (tmp_path / "file.pkl").write_bytes(program(*lines))
        with pytest.raises(UsageError, match=words):
            persistent_pickles.read(tmp_path / "file.pkl")


def test_modules_that_contain_themselves_are_refused(tmp_path):
    network = Module("EDMPrecond", dict(ARGUMENTS))
    inner = Module("ModuleDict")
    network.modules = {"a": inner, "b": inner}  # one module twice
    (tmp_path / "file.pkl").write_bytes(persistent({"ema": network}))
    with pytest.raises(UsageError, match="no tree of modules"):
        persistent_pickles.read(tmp_path / "file.pkl")


def test_damaged_pickles_are_one_sentence(snapshot, tmp_path):
    """A byte changed at 60 places, the file cut at 20, and bytes at random: nothing but `UsageError`."""
    whole, path = snapshot.read_bytes(), tmp_path / "damaged.pkl"
    key = np.random.default_rng(0)
    ends = [place for _, _, place in pickletools.genops(whole)]
    places = [*key.choice(ends, 40), *key.integers(2, len(whole), 20)]
    damaged = [whole[:place] + bytes([key.integers(256)]) + whole[place + 1 :] for place in places]
    damaged += [whole[: key.integers(len(whole))] for _ in range(20)]
    damaged += [b"\x80\x04torch_utils" + key.bytes(200) for _ in range(40)]
    for content in damaged:
        path.write_bytes(content)
        try:
            persistent_pickles.read(path)
        except UsageError as error:
            assert "damaged.pkl" in str(error)


def test_halves_and_brain_floats_become_float32(tmp_path):
    values = np.array([1.5, -2.0, 0.0078125], np.float32)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        network = module("Precond", {"img_resolution": 8}, {"unet.a": values.astype(dtype)})
        (tmp_path / "file.pkl").write_bytes(persistent({"ema": network}))
        tensor = persistent_pickles.read(tmp_path / "file.pkl")["ema"].tensors["unet.a"]
        np.testing.assert_array_equal(tensor.astype(np.float32), values)


# Files of tensors.


def safetensors(tensors: dict[str, np.ndarray], **metadata: str) -> bytes:
    header, content = {"__metadata__": metadata}, b""
    for name, value in tensors.items():
        kind = {"f": "F32", "e": "F16", "E": "BF16", "d": "F64"}[value.dtype.char]
        end = len(content) + value.nbytes
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(content), end]}
        content += value.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_safetensors_give_back_their_tensors(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {
        "a": values,
        "half": values.astype(np.float16),
        "brain": values.astype(ml_dtypes.bfloat16),
        "n": values[0, 0],
    }
    (tmp_path / "file").write_bytes(safetensors(tensors, format="pt"))
    assert safetensors_files.is_safetensors(tmp_path / "file")
    read = safetensors_files.read(tmp_path / "file")
    assert list(read) == list(tensors) and read["brain"].dtype == np.float32 and read["half"].dtype == np.float16
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value.astype(np.float32))


def test_damaged_safetensors_are_one_sentence(tmp_path):
    whole = safetensors({"a": np.zeros((2, 3), np.float32)})
    key = np.random.default_rng(0)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}).encode()
    cases = [whole[:-1], whole[:20], struct.pack("<Q", 2**60) + b"{", struct.pack("<Q", len(header)) + header]
    for place in range(len(whole)):
        cases.append(whole[:place] + bytes([key.integers(256)]) + whole[place + 1 :])
    for i, content in enumerate(cases):
        (tmp_path / "file").write_bytes(content)
        try:
            safetensors_files.read(tmp_path / "file")
            assert i >= 4
        except UsageError as error:
            assert str(tmp_path / "file") in str(error)


def golden_tensors(case: str) -> dict[str, np.ndarray]:
    """Weights of diffusers' networks as a function of their names: what the golden numbers were computed with."""
    tensors = {}
    for path, shape in load_json("diffusers.json")[case]["shapes"].items():
        z = np.random.default_rng([0, zlib.crc32(path.encode())]).standard_normal(shape)
        if len(shape) > 1:
            value = z / np.sqrt(np.prod(shape[1:]))
        elif path == "time_proj.weight":
            value = 16 * z
        else:
            value = 1 + 0.1 * z if path.endswith(".weight") else 0.1 * z
        tensors[path] = value.astype(np.float32)
    return tensors


@pytest.mark.parametrize("case", ["ddpm", "ncsnpp"])
def test_networks_of_diffusers_compute_what_diffusers_does(case):
    """Against the output of UNet2DModel on PyTorch, at one index in the chain, or noise level, for each image."""
    golden = {key: value for key, value in np.load(GOLDEN / "diffusers.npz").items() if key.startswith(case)}
    x, t, y = (golden[f"{case}/{name}"] for name in "xty")
    values = diffusers_layout.values_of(load_json("diffusers.json")[case]["config"])
    network = network_of(values)
    params = diffusers_layout.params_of(golden_tensors(case), network, (8, 8, 3))
    x, t = jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(t, jnp.float32)
    output = jax.jit(network.apply)({"params": params}, x if values["data.centered"] else 2 * x - 1, t)
    output = output / t[:, None, None, None] if case == "ncsnpp" else output
    for image, theirs in zip(np.asarray(output), y.transpose(0, 2, 3, 1), strict=True):
        assert relative(image, theirs) < 1e-5


def diffusers_folder(folder, case: str, scheduler: dict | None = None, **changes):
    folder.mkdir()
    config = load_json("diffusers.json")[case]["config"] | changes
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(safetensors(golden_tensors(case)))
    if scheduler:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def test_a_folder_of_diffusers_becomes_a_workdir(tmp_path, capsys):
    scheduler = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 90.0, "num_train_timesteps": 500}
    folder = diffusers_folder(tmp_path / "theirs", "ncsnpp", scheduler)
    assert imported(folder, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "diffusers (safetensors)" in printed and "form of NCSN++" in printed and "no scheduler_config" not in printed
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["sde"]["name"], config["sde"]["sigma_max"], config["sde"]["num_scales"]) == ("vesde", 90.0, 500)
    assert config["model"]["scale_by_sigma"] and not config["data"]["centered"]


@pytest.mark.parametrize(
    ("case", "changes", "words"),
    [
        ("ddpm", {"downsample_padding": 1}, "downsample_padding=1"),
        ("ddpm", {"flip_sin_to_cos": True}, "flip_sin_to_cos=True"),
        ("ddpm", {"norm_eps": 1e-5}, "norm_eps=1e-05"),
        ("ddpm", {"attention_head_dim": 8}, "attention_head_dim=8"),
        ("ddpm", {"num_class_embeds": 10}, "num_class_embeds=10"),
        ("ddpm", {"resnet_time_scale_shift": "scale_shift"}, "scale_shift"),
        ("ddpm", {"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"]}, "a ResnetDownsampleBlock2D"),
        ("ddpm", {"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "no mirror"),
        ("ddpm", {"block_out_channels": [32, 48]}, "block_out_channels=[32, 48]"),
        ("ddpm", {"cross_attention_dim": 7}, "cross_attention_dim"),
        ("ddpm", {"layers_per_block": 2}, "no down_blocks.0.resnets.1"),
        (
            "ncsnpp",
            {
                "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"],
                "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"],
            },
            "attention at 16 channels",
        ),
    ],
)
def test_options_of_diffusers_that_ours_lack_are_refused_by_name(case, changes, words, tmp_path, capsys):
    folder = diffusers_folder(tmp_path / "theirs", case, **changes)
    assert imported(folder, tmp_path / "run") == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule=squaredcos_cap_v2"),
        ({"prediction_type": "flow"}, "prediction_type=flow"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_schedulers_of_diffusers_that_ours_lack_are_refused(scheduler, words):
    with pytest.raises(UsageError, match=words):
        diffusers_layout.values_of(load_json("diffusers.json")["ddpm"]["config"], scheduler)


def test_predictions_of_diffusers_are_parameterizations():
    config = load_json("diffusers.json")["ddpm"]["config"]
    v = diffusers_layout.values_of(config, {"prediction_type": "v_prediction", "beta_end": 0.01})
    assert (v["parameterization.name"], v["parameterization.noise_cond"], v["sde.beta_max"]) == (
        "v",
        "chain_index",
        10.0,
    )
    noise = diffusers_layout.values_of(config)
    assert noise["training.continuous"] is False and noise["sde.beta_min"] == pytest.approx(0.1)
    values = fitting_config.built(checkpoint_formats.Published("", None, v))
    assert Experiment(values).objective.parameterization.noise_cond == "chain_index"


# Files of the paper's code that lack a part, and files that say nothing.


def test_files_with_one_set_of_weights_give_it_to_both(tiny_config):
    """Of a network with positional embeddings, whose average is whole."""
    shapes = leaf_shapes(Experiment(tiny_config("vp/digits_ddpmpp_continuous")).init_params)
    tensors = {name: to_torch(path, weights(path, shapes[path], 0)) for path, name in torch_names(shapes).items()}
    of_data_parallel = {f"module.{name}": value for name, value in tensors.items()}
    for content in (
        {"model": tensors},
        {"ema": {"shadow_params": list(tensors.values())}},
        tensors,
        of_data_parallel,
        {"model": of_data_parallel, "sigmas": None},
    ):
        reference = restored(content, shapes, flax=False)
        assert reference.step == 0 and reference.moments is None
        for params in (reference.params, reference.ema_params):
            expected = weights("Conv_0/kernel", shapes["Conv_0/kernel"], 0)
            np.testing.assert_array_equal(params["Conv_0"]["kernel"], expected)


def test_tensors_of_no_layout_are_named(tmp_path, monkeypatch, capsys):
    save_pth(tmp_path / "file.pth", {"encoder.embed.weight": np.zeros((2, 2), np.float32)}, monkeypatch)
    assert imported(tmp_path / "file.pth", tmp_path / "run") == 2
    assert "holds tensors as encoder.embed.weight" in capsys.readouterr().err


def test_a_file_without_its_network_asks_for_a_config(tmp_path, monkeypatch, capsys, tensors):
    save_pth(tmp_path / "file.pth", tensors, monkeypatch)
    assert imported(tmp_path / "file.pth", tmp_path / "run") == 2
    assert "say them by --config=NAME" in capsys.readouterr().err


def test_the_one_config_whose_network_fits_is_taken(tmp_path, monkeypatch):
    names = ["vp/digits_ddpmpp_continuous", "subvp/digits_ddpmpp_continuous", "ve/digits_ncsnpp_continuous"]
    monkeypatch.setattr(fitting_config, "config_names", lambda: names)
    shapes = fitting_config._expected(fitting_config.read_config(names[2]), False)
    published = checkpoint_formats.Published("PyTorch", None, names=shapes)
    assert fitting_config.fitting(published).sde.name == "vesde"
    shared = fitting_config._expected(fitting_config.read_config(names[0]), False)
    with pytest.raises(UsageError, match=f"that of {names[0]}, {names[1]}; choose one"):
        fitting_config.fitting(published._replace(names=shared))
    with pytest.raises(UsageError, match="No config of the package"):
        fitting_config.fitting(published._replace(names={"all_modules.0.weight": (32, 1, 3, 3)}))


def test_openais_file_asks_for_its_flags(tmp_path, monkeypatch, capsys):
    save_pth(tmp_path / "model.pt", {"input_blocks.0.0.weight": np.zeros((4, 3, 3, 3), np.float32)}, monkeypatch)
    for flags, words in (
        ([], "give the flags"),
        (["--model_flags=--num_heads 4"], "need --image_size"),
        (["--model_flags=image_size 64"], "must be flags with their values"),
        (["--model_flags=--image_size 64"], "lack time_embed.0.weight"),
    ):
        assert imported(tmp_path / "model.pt", tmp_path / "run", *flags) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_pickle_of_a_name_of_the_paper_is_no_pickle_of_edms(tmp_path):
    pickled(tmp_path / "file.pth", b"}")
    assert not persistent_pickles.is_persistent(tmp_path / "file.pth")
