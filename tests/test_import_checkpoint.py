"""The authors' checkpoints become workdirs; files that do not fit are refused by name, and nothing is written."""

import builtins
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization, traverse_util
from golden_weights import GOLDEN, load_json, names, relative, seeded, weights
from one_block import OneBlock
from test_configs import config_of, full_size, grouped
from test_end_to_end import metrics

import score_sde
from score_sde.cli import import_checkpoint as importer
from score_sde.cli.import_checkpoint import import_checkpoint
from score_sde.cli.main import main
from score_sde.config import FrozenConfig
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.published_tensors import leaf_shapes
from score_sde.inference.reference_checkpoints import torch_names
from score_sde.inference.snapshots import PretrainedClassifier, restore_state
from score_sde.io import pytorch_files, unpickler
from score_sde.io.checkpoints import steps
from score_sde.models import MODELS, is_trainable
from score_sde.sde import VE
from score_sde.training.build import Classification, Experiment, trainable
from score_sde.training.run import train

SHRUNK = ["--config.data.image_size=16", "--config.model.ch_mult=(1,2)", "--config.model.num_res_blocks=1"]
SHRUNK += ["--config.model.attn_resolutions=(8,)"]
CONFIG = "configs/ve/cifar10_ncsnpp_continuous.py"
NF4 = [*SHRUNK, "--config.model.nf=4"]


def run(source, workdir, config=CONFIG, overrides=NF4) -> int:
    return main(
        ["score_sde", "--mode=import", f"--from={source}", f"--config={config}", f"--workdir={workdir}", *overrides]
    )


def small(path: str, *, nf: int):
    config = config_of(path.removeprefix("configs/").removesuffix(".py"))
    config.data.image_size = 16
    config.model.update(nf=nf, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,))
    return config


@functools.cache
def known(config: FrozenConfig) -> Experiment | Classification:
    experiment = trainable(config)
    experiment.init_state = experiment.init_state  # JAX knows functions by identity, and traces each once
    return experiment


def built(config) -> Experiment | Classification:
    """What the config describes; of equal ones the same, traced once."""
    return known(FrozenConfig(config))


@functools.cache
def leaves(experiment: Experiment | Classification) -> dict[str, tuple[int, ...]]:
    return leaf_shapes(experiment.init_params)


@pytest.fixture
def built_once(monkeypatch):
    """The importer, and what loads a workdir, build no experiment that a test has built before."""
    monkeypatch.setattr(importer, "trainable", built)
    monkeypatch.setattr(importer, "leaf_shapes", lambda init_params: leaves(init_params.__self__))
    for kind in (Pretrained, PretrainedClassifier):
        monkeypatch.setattr(kind, "_experiment_class", built)


def scores(case: str) -> dict[str, np.ndarray]:
    golden = np.load(GOLDEN / "scores.npz")
    return {key.split("/")[1]: golden[key] for key in golden if key.startswith(f"{case}/")}


def to_torch(path: str, value: np.ndarray) -> np.ndarray:
    """Independent of the importer's: OIHW, and (out, in)."""
    if path.endswith(("/kernel", "/weight")) and value.ndim == 4:
        return np.einsum("hwio->oihw", value)
    return value.T if path.endswith("/kernel") and value.ndim == 2 else value


def flax_paths(keys: list, shapes: dict) -> dict[str, str]:
    """Reference names -> ours, matched by their order."""
    own = [name for name, _ in keys if not name.endswith("sigmas")]
    return dict(zip(own, shapes, strict=True))


def torch_content(case: str, shapes: dict, sde) -> dict:
    """What the paper's PyTorch code saves, under the names and in the order that it reported itself."""
    keys = load_json("scores.json")[case]["keys"]
    paths = flax_paths(keys, shapes)

    def tensor(name, seed):
        return to_torch(paths[name], weights(paths[name], shapes[paths[name]], seed))

    model, shadow = {}, []
    for name, shape in keys:
        if name.endswith("sigmas"):
            top = sde.sigma_max if isinstance(sde, VE) else 50.0
            model[name] = np.exp(np.linspace(np.log(top), np.log(0.01), sde.num_scales))
            continue
        model[name] = tensor(name, 0)
        assert list(model[name].shape) == shape
        if not paths[name].startswith("GaussianFourier"):
            shadow.append(tensor(name, 1))
    ema = {"decay": 0.999, "num_updates": 400005, "shadow_params": shadow}
    return {"optimizer": {"state": {}, "param_groups": []}, "model": model, "ema": ema, "step": 400005}


def stub(module: str, name: str):
    """Something that is pickled under this name."""
    return type(name, (), {"__module__": module, "__new__": lambda *_: None})


def save_pth(path, content, monkeypatch) -> None:
    """Writes what `torch.save` writes: the same names in the pickle, the same zip."""
    rebuild = stub("torch._utils", "_rebuild_tensor_v2")
    kinds = {np.dtype("f4"): stub("torch", "FloatStorage"), np.dtype("f8"): stub("torch", "DoubleStorage")}
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")
    for module, value in ((utils, rebuild), *((torch, kind) for kind in kinds.values())):
        setattr(module, value.__name__, value)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    storages = []

    class Storage(int):
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                array = storages[value]
                return ("storage", kinds[array.dtype], str(int(value)), "cpu", array.size)
            return None

        def reducer_override(self, value):
            if isinstance(value, np.ndarray):
                storages.append(np.ascontiguousarray(value).ravel())
                strides = tuple(s // value.itemsize for s in np.ascontiguousarray(value).strides)
                return rebuild, (Storage(len(storages) - 1), 0, value.shape, strides, False, {})
            return NotImplemented

    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump(content)
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage.tobytes())


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The workdir of a file that PyTorch wrote, and what the import printed."""
    folder = tmp_path_factory.mktemp("official") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run(GOLDEN / "official_layout.pth", folder) == 0
    return folder, printed.getvalue()


@pytest.mark.usefixtures("built_once")
def test_a_genuine_pytorch_file_gives_the_papers_score(official):
    folder, printed = official
    for words in ("PyTorch, step 400005", "157 leaves", "12,719 parameters", "12,715 trainable", "6f123809334f"):
        assert words in printed
    golden = scores("ncsnpp_ve_nf4")
    x, t = jnp.asarray(golden["x"]), jnp.asarray(golden["t"])
    averaged = score_sde.load(folder)
    raw = averaged.at(ema=False)
    assert averaged.step == 400005
    for model, expected in ((averaged, golden["score"]), (raw, golden["score_raw_weights"])):
        for image, golden_image in zip(model.score(x, t), expected, strict=True):
            assert relative(image, golden_image) < 1e-5


@pytest.mark.usefixtures("built_once")
def test_a_file_of_one_average_is_not_imported_as_two(tmp_path, capsys):
    two = ["--config.ema.profiles=power:0.05", "--config.ema.profiles=power:0.1"]
    assert run(GOLDEN / "official_layout.pth", tmp_path / "run", overrides=[*NF4, *two]) == 2
    assert "has raw weights and one average; import it with one of ema.profiles." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("built_once")
def test_a_flax_file_gives_the_same_state(official, tmp_path):
    assert run(GOLDEN / "official_layout_flax", tmp_path / "run") == 0
    experiment = built(small(CONFIG, nf=4))
    a, b = (restore_state(experiment, f / "checkpoints", 400005)[0] for f in (official[0], tmp_path / "run"))
    for first, second in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)

    def expected(seed, change=lambda x: x):
        tree = seeded(experiment.param_shapes, seed)
        return traverse_util.path_aware_map(lambda path, leaf: change(leaf) if is_trainable(path) else 0 * leaf, tree)

    adam = a.opt_state[1][0]
    assert int(adam.count) == 400005
    raw = seeded(experiment.param_shapes, 0)
    averaged = seeded(experiment.param_shapes, 1) | {"GaussianFourierProjection_0": raw["GaussianFourierProjection_0"]}
    moments = (expected(2, lambda x: 0.01 * x), expected(3, lambda x: (0.01 * x) ** 2))
    for found, tree in zip((a.params, a.ema_params, adam.mu, adam.nu), (raw, averaged, *moments), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, tree)


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("case", "config", "nf"),
    [
        ("ncsnpp_ve", CONFIG, 8),
        ("ncsnpp_ve_discrete", "configs/ve/cifar10_ncsnpp.py", 8),
        ("ncsnpp_256", "configs/ve/bedroom_ncsnpp_continuous.py", 8),
        ("ncsnpp_vp", "configs/vp/cifar10_ncsnpp_continuous.py", 8),
        ("ddpmpp_vp", "configs/vp/cifar10_ddpmpp_continuous.py", 8),
        ("ddpmpp_subvp", "configs/subvp/cifar10_ddpmpp_continuous.py", 8),
        ("ddpm_vp_discrete", "configs/vp/ddpm/cifar10.py", 32),
    ],
)
def test_every_family_in_the_pytorch_layout_gives_the_papers_score(case, config, nf, tmp_path, monkeypatch):
    experiment = built(small(config, nf=nf))
    content = torch_content(case, leaves(experiment), experiment.sde)
    save_pth(tmp_path / "checkpoint_8.pth", content, monkeypatch)
    assert run(tmp_path / "checkpoint_8.pth", tmp_path / "run", config, [*SHRUNK, f"--config.model.nf={nf}"]) == 0
    golden = scores(case)
    score = score_sde.load(tmp_path / "run").score(jnp.asarray(golden["x"]), jnp.asarray(golden["t"]))
    for image, golden_image in zip(score, golden["score"], strict=True):
        assert relative(image, golden_image) < 1e-5


@pytest.mark.parametrize("configs", grouped(load_json("layouts.json"), full_size))
def test_full_size_layers_are_numbered_as_in_the_papers_pytorch_code(configs):
    """Against digests of the reference network's parameters in order: names, shapes and trainability; and our names."""
    shapes = leaf_shapes(Experiment(config_of(configs[0])).init_params)
    lines = []
    for path, name in torch_names(shapes).items():
        shape = to_torch(path, np.broadcast_to(np.float32(0), shapes[path])).shape
        lines.append(f"{name} {list(shape)} {int(not path.startswith('GaussianFourier'))}")
    digests = [hashlib.sha256("\n".join(text).encode()).hexdigest() for text in (lines, shapes)]
    for config in configs:
        assert [len(lines), *digests] == load_json("layouts.json")[config]


def flax_content() -> dict:
    return serialization.msgpack_restore((GOLDEN / "official_layout_flax").read_bytes())


def edit(tree: dict, path: str, value) -> None:
    *parents, last = path.split("/")
    for name in parents:
        tree = tree[name]
    if value is None:
        del tree[last]
    else:
        tree[last] = value


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("params_ema/Conv_1/bias", None, "params_ema has no Conv_1/bias"),
        ("optimizer/target/Conv_1/bias", None, "optimizer.target has no Conv_1/bias"),
        ("optimizer/state/param_states/Conv_1/bias", None, "grad_ema has no Conv_1/bias"),
        ("params_ema/Conv_9", {"bias": np.zeros(3, np.float32)}, "params_ema has Conv_9/bias"),
        ("params_ema/Conv_0/kernel", np.zeros((3, 3, 3, 8), np.float32), "Conv_0/kernel has shape (3, 3, 3, 8)"),
        (
            "params_ema/Conv_0/bias",
            np.full(4, np.nan, np.float32),
            "params_ema: Conv_0/bias holds a number that is not",
        ),
        ("params_ema/Conv_0/bias", np.zeros(4, np.int32), "no floating-point array"),
        ("params_ema", None, "no params_ema"),
        ("optimizer", None, "no optimizer"),
        ("optimizer/state/param_states", np.zeros(3, np.float32), "an array where"),
        ("step", "seven", "step"),
        ("step", np.array([1.0, 2.0]), "step"),
        ("optimizer/state/step", float("nan"), "optimizer.state.step is no number"),
        ("optimizer/state/step", 2**31, "optimizer.state.step is no number"),
        ("optimizer/state/param_states/Conv_0/bias/other", np.zeros(4, np.float32), "Conv_0/bias/other"),
        ("optimizer/state/param_states/Conv_0/bias/grad_sq_ema", np.full(4, -1, np.float32), "negative"),
        ("params_ema/Conv_0/bias", np.full(4, 1e300), "Conv_0/bias holds a number that is not"),
        ("params_ema/Conv_0/bias", [[1.0], 2.0], "no floating-point array"),
    ],
)
def test_a_flax_file_that_does_not_fit_is_refused_by_name(path, value, words, tmp_path, capsys):
    content = flax_content()
    edit(content, path, value)
    (tmp_path / "file").write_bytes(serialization.msgpack_serialize(content))
    assert run(tmp_path / "file", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("built_once")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["model"].pop("module.all_modules.3.bias"), "model has no all_modules.3.bias"),
        (lambda c: c["model"].update({"module.extra": np.zeros(3, np.float32)}), "model has extra"),
        (
            lambda c: c["model"].update({"module.all_modules.3.bias": np.zeros(5, np.float32)}),
            "all_modules.3.bias has shape (5,), and in the config (8,)",
        ),
        (lambda c: c["ema"]["shadow_params"].pop(), "ema.shadow_params has 155 tensors"),
        (lambda c: c["ema"]["shadow_params"].reverse(), "ema.shadow_params: all_modules.1.weight has shape"),
        (lambda c: (c.pop("ema"), c.pop("model")), "no model and no ema"),
        (lambda c: c.pop("model"), "no model, which alone holds the fixed frequencies"),
        (lambda c: c.pop("step"), "no step"),
        (lambda c: c.update(optimizer=7), "not laid out"),
        (lambda c: c["optimizer"].update(state={1: {"step": 3}}), "no state of all_modules.1.bias"),
        (lambda c: c["model"].update({"module.sigmas": 5}), "sigmas is no list"),
        (lambda c: c["model"].update({"module.sigmas": np.zeros((2, 2))}), "sigmas is no list"),
        (lambda c: c["model"].update({"module.sigmas": np.geomspace(90, 0.01, 500)}), "500 noise levels from 90"),
        (lambda c: c.update(ema=[1, 2]), "no ema.shadow_params"),
        (lambda c: c.update(model=3), "not laid out"),
    ],
)
def test_a_pytorch_file_that_does_not_fit_is_refused_by_name(change, words, tmp_path, monkeypatch, capsys):
    experiment = built(small(CONFIG, nf=8))
    content = torch_content("ncsnpp_ve", leaves(experiment), experiment.sde)
    change(content)
    save_pth(tmp_path / "file.pth", content, monkeypatch)
    assert run(tmp_path / "file.pth", tmp_path / "run", overrides=[*SHRUNK, "--config.model.nf=8"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Evil:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.usefixtures("built_once")
def test_no_code_of_a_file_is_run(tmp_path, capsys, monkeypatch):
    """A file whose loading would call os.system, written by `torch.save`; and other callables, nested and reduced."""
    monkeypatch.chdir(GOLDEN.parent.parent)
    assert run(GOLDEN / "malicious.pth", tmp_path / "run") == 2
    assert "posix.system" in capsys.readouterr().err

    target = tmp_path / "pwned"
    for function, args in (
        (os.mkdir, (str(target),)),
        (builtins.eval, (f"__import__('os').mkdir({str(target)!r})",)),
        (builtins.getattr, ("text", "upper")),
        (np.fromfile, ("/etc/hostname",)),
        (subprocess.Popen, (["true"],)),
    ):
        save_pth(tmp_path / "file.pth", {"model": Evil(function, *args)}, monkeypatch)
        with pytest.raises(UsageError, match="no code is run"):
            pytorch_files.read(tmp_path / "file.pth")
    (tmp_path / "plain").write_bytes(pickle.dumps({"model": Evil(os.mkdir, str(target))}))
    assert run(tmp_path / "plain", tmp_path / "run") == 2
    assert not target.exists() and not (tmp_path / "run").exists()


def pickled(path, program: bytes, storages=(), compression=zipfile.ZIP_STORED) -> None:
    """A .pth file around a pickle written by hand."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage.tobytes())


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        # An OrderedDict given an address to read from, and one posing as a storage.
        (ORDERED + b")R}X\x13\0\0\0__array_interface__}X\x04\0\0\0dataK\x10\x88\x86ssb", None),
        (REBUILD + b"(" + ORDERED + b")RK\0K\x01\x85K\x01\x85\x89}tR", "without a storage"),
        (REBUILD + b"(" + STORAGE + b"\x88K\x01\x85K\x01\x85\x89}tR", "without a storage"),
        # What the pickle names, left in the result.
        (REBUILD, "something else"),
        (ORDERED, "something else"),
        (b"ctorch\nFloatStorage\n", "something else"),
        # A storage of another type, or of another kind.
        (STORAGE.replace(b"ctorch\nFloatStorage\n", b"X\x02\0\0\0V8"), "no tensor"),
        (STORAGE.replace(b"X\x01\0\0\x000", b"X\x09\0\0\0../secret"), "no tensor"),
        (STORAGE.replace(b"K\x04", b"K\x05"), "cut short"),
        (b"cnumpy\ndtype\nX\x02\0\0\0O8\x85R" + b"0cnumpy.core.multiarray\nscalar\n(K\x01K\x02tR", "no number"),
        (b"c_codecs\nencode\n(X\x01\0\0\0aX\x05\0\0\0rot13tR", "encoding rot13"),
    ],
)
def test_what_a_pickle_makes_stays_plain(program, words, tmp_path):
    pickled(tmp_path / "file.pth", program, [np.arange(4, dtype=np.float32)])
    if words is None:
        content = pytorch_files.read(tmp_path / "file.pth")
        assert content == {} and not hasattr(content, "__array_interface__")
    else:
        with pytest.raises(UsageError, match=words):
            pytorch_files.read(tmp_path / "file.pth")


def test_a_pickle_cannot_change_this_program(tmp_path):
    """It names a function and sets its defaults: those of an object made for it."""
    setting = REBUILD + b"N}X\x0c\0\0\0__defaults__K\x07\x85s\x86b0N"
    pickled(tmp_path / "file.pth", setting)
    assert pytorch_files.read(tmp_path / "file.pth") is None
    assert unpickler.tensor.__defaults__ is None


def test_parts_that_are_compressed_are_refused(tmp_path):
    pickled(tmp_path / "file.pth", STORAGE, [np.zeros(4, np.float32)], zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="compressed"):
        pytorch_files.read(tmp_path / "file.pth")


def test_tensors_that_reach_beyond_their_storage_are_refused():
    storage = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(unpickler.tensor(storage, 0, (2, 3), (3, 1)), storage.reshape(2, 3))
    np.testing.assert_array_equal(unpickler.tensor(storage, 0, (3, 2), (1, 3)), storage.reshape(2, 3).T)
    assert unpickler.tensor(storage, 5, (), ()) == 5
    for offset, shape, strides in (
        (1, (2, 3), (3, 1)),
        (0, (7,), (1,)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (6, (), ()),
        (0, (10**10,), (0,)),
    ):
        with pytest.raises(UsageError, match="beyond"):
            unpickler.tensor(storage, offset, shape, strides)


def test_files_from_before_pytorch_1_6_are_read(tmp_path):
    """golden/before_1_6.pth was written by torch.save; tensors share storages, with offsets and strides."""
    content = pytorch_files.read(GOLDEN / "before_1_6.pth")
    assert content["step"] == 7 and content["n"].tolist() == [0, 1, 2, 3, 4]
    assert (content["a.weight"].shape, content["half"].dtype) == ((3, 4), np.float16)
    np.testing.assert_array_equal(content["a.view"], content["a.weight"][1:, ::2])
    np.testing.assert_allclose(content["a.weight"][0], [1.5409961, -0.2934289, -2.1787894, 0.56843126], rtol=1e-7)
    whole = (GOLDEN / "before_1_6.pth").read_bytes()
    for length in (20, 200, len(whole) - 3):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"cut\.pth"):
            pytorch_files.read(tmp_path / "cut.pth")
    (tmp_path / "large.pth").write_bytes(whole.replace(b"K\x0cNt", b"J\x00\x00\x00\x7fNt"))  # numbers of a storage
    with pytest.raises(UsageError, match="larger than the file"):
        pytorch_files.read(tmp_path / "large.pth")


@pytest.mark.usefixtures("built_once")
def test_damaged_and_wrong_files_are_one_sentence(tmp_path, capsys):
    whole = (GOLDEN / "official_layout.pth").read_bytes()
    files = {
        "cut.pth": whole[: len(whole) // 2],
        "cut_flax": (GOLDEN / "official_layout_flax").read_bytes()[:-100],
        "empty": b"",
        "text.pth": b"<html>sign in</html>",
        "old.pth": pytorch_files.BEFORE_1_6 + b"...",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:  # as downloaded from a shared drive
        archive.writestr("exp/checkpoints/checkpoint_8.pth", whole)
    for name in (*files, "folder.zip"):
        assert run(tmp_path / name, tmp_path / "run") == 2, name
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and name in error
        assert ("unpack it first" in error) == (name == "folder.zip")
    for source, words in ((tmp_path / "none.pth", "No file"), ("", "--from=FILE is missing")):
        assert run(source, tmp_path / "run") == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("compiled_once")
def test_an_imported_run_samples_goes_on_training_and_is_not_written_over(tmp_path, tiny_config, monkeypatch):
    """The whole life of a digits run that arrives as a Flax file of the paper's code."""
    monkeypatch.setitem(MODELS, "ncsnpp", OneBlock)
    config = tiny_config("vp/digits_ddpmpp_continuous")
    shapes = Experiment(config).param_shapes
    zeros = traverse_util.path_aware_map(
        lambda _, leaf: {"grad_ema": np.zeros(leaf.shape, "f4"), "grad_sq_ema": np.ones(leaf.shape, "f4")}, shapes
    )
    params = seeded(shapes, 0)
    content = {
        "optimizer": {"target": params, "state": {"step": np.int32(2), "param_states": zeros}},
        "step": np.int32(2),
        "params_ema": params,
    }
    (tmp_path / "file").write_bytes(serialization.msgpack_serialize(content))
    folder = tmp_path / "run"
    import_checkpoint(config, tmp_path / "file", folder)
    sample(config, folder)
    config.eval.enable_bpd = False
    evaluate(config, folder)
    assert json.loads((folder / "eval/report.json").read_text())["checkpoints"][0]["step"] == 2
    train(config, folder)
    assert [line["step"] for line in metrics(folder)] == [3, 4, 4]
    config.training.update(n_iters=7, snapshot_freq=10, snapshot_freq_for_preemption=1)
    train(config, folder)
    assert steps(folder / "checkpoints") == [2, 6, 7]  # what was imported is kept
    for occupied in (folder, tmp_path / "file"):
        with pytest.raises(UsageError, match="not an empty folder"):
            import_checkpoint(config, tmp_path / "file", occupied)


CLASSIFIER = "configs/ve/cifar10_wideresnet.py"
SMALL_CLASSIFIER = ["--config.model.blocks_per_group=1", "--config.model.channel_multiplier=1"]


def test_the_classifiers_file_gives_the_papers_logits(tmp_path, capsys):
    golden = np.load(GOLDEN / "networks.npz")
    shapes = {path: tuple(shape) for path, shape in load_json("networks.json")["wideresnet"]["leaves"].items()}
    old = {path: (1, 1, 1, *s) if path.endswith(("bn/scale", "bn_2/scale")) else s for path, s in shapes.items()}
    params = {tuple(p.split("/")): weights(p, shapes[p], 0).reshape(old[p]) for p in shapes}
    content = serialization.msgpack_serialize(traverse_util.unflatten_dict(params))
    (tmp_path / "checkpoint_0").write_bytes(content)
    overrides = [
        *SMALL_CLASSIFIER,
        "--config.data.image_size=16",
        "--config.model.mean=(0.0,)",
        "--config.model.std=(1.0,)",
    ]
    assert run(tmp_path / "checkpoint_0", tmp_path / "run", CLASSIFIER, overrides) == 0
    assert "34 leaves" in capsys.readouterr().out
    classifier = score_sde.load_classifier(tmp_path / "run")
    t = jnp.log(golden["wideresnet/label"] / 0.01) / np.log(50 / 0.01)
    logits = classifier.logits(jnp.asarray(golden["wideresnet/x"]), t)
    assert relative(logits, golden["wideresnet/output"]) < 1e-4  # sigma is its own logarithm's exponential here
    with pytest.raises(UsageError, match="is a classifier"):
        score_sde.load(tmp_path / "run")
    with pytest.raises(UsageError, match="There is no run in"):
        score_sde.load_classifier(tmp_path / "nothing")
    content = serialization.msgpack_restore(content)
    edit(content, "init_conv/kernel", None)
    (tmp_path / "broken").write_bytes(serialization.msgpack_serialize(content))
    assert run(tmp_path / "broken", tmp_path / "other", CLASSIFIER, overrides) == 2
    assert "no init_conv/kernel" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_classifier_under_any_sde_sees_the_image_and_its_noise_level():
    """Scaled back to [0, 1] plus noise: under VP with data in [-1, 1] as under VE."""
    ve = config_of("ve/cifar10_wideresnet")
    ve.model.update(blocks_per_group=1, channel_multiplier=1)
    ve.data.image_size = 16
    vp = config_of("vp/cifar10_ncsnpp_continuous")
    with vp.unlocked():
        vp.model = ve.model
    vp.data.image_size = 16
    a, b = Classification(ve), Classification(vp)
    params = seeded(a.param_shapes)
    t = jnp.array([0.3, 0.6])
    mean, std = (f(t)[:, None, None, None] for f in (b.sde.alpha, b.sde.sigma))
    x = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    z = jax.random.normal(jax.random.key(1), x.shape)
    sigma = (std / mean / 2)[:, 0, 0, 0]
    t_ve = jnp.log(sigma / a.sde.sigma_min) / np.log(a.sde.sigma_max / a.sde.sigma_min)
    expected = a.logits_fn(params)(x + sigma[:, None, None, None] * z, t_ve)
    actual = b.logits_fn(params)(mean * (2 * x - 1) + std * z, t)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_the_classifier_has_the_papers_parameter_count():
    config = config_of("ve/cifar10_wideresnet")
    shapes = names(Classification(config).param_shapes)
    assert len(shapes) == 106
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 38_913_242
