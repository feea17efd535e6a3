"""Samples as files for other programs, and samples of files: through workdirs and the command line."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_conditional import saved

from score_sde.config import KEYS
from score_sde.errors import UsageError
from score_sde.evaluation import exports
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.evaluation.exports import check_forms, export
from score_sde.inference.start_images import read_images
from score_sde.training.run import train

pytestmark = pytest.mark.usefixtures("one_block")
RNG = np.random.default_rng(0)
ROUNDS = [RNG.integers(0, 256, (n, 4, 4, 3)).astype(np.uint8) for n in (3, 3, 1)]
SAMPLES, READ = np.concatenate(ROUNDS), [lambda pixels=pixels: pixels for pixels in ROUNDS]


def pictures(folder):
    """All pictures beneath a folder, in the order of their paths."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])


def test_samples_are_written_as_others_read_them(tmp_path, monkeypatch):
    monkeypatch.setitem(exports.PLACES, "png_1000", lambda n: exports.PLACES["png"](n - n % 3)[:-4] + f"/{n:06d}.png")
    for form in ("png", "png_1000"):
        folder, array = export([form, "arr_0"], tmp_path, form, READ, 7, np.arange(7) % 3)
        np.testing.assert_array_equal(pictures(folder), SAMPLES)
        with np.load(array, allow_pickle=False) as stored:
            np.testing.assert_array_equal(stored["arr_0"], SAMPLES)
            assert stored["arr_0"].dtype == np.uint8 and stored["arr_1"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert len(list((tmp_path / "png").iterdir())) == 7 and len(list((tmp_path / "png_1000").iterdir())) == 3


def test_folders_are_of_a_thousand():
    assert exports.PLACES["png_1000"](49_999) == "049000/049999.png" and exports.PLACES["png"](7) == "000007.png"


def test_a_killed_export_goes_on_and_has_no_half_of_a_file(tmp_path, monkeypatch):
    written, png = [], exports.png

    def killed(image):
        written.append(image)
        if len(written) == 4:
            raise KeyboardInterrupt
        return png(image)

    monkeypatch.setattr(exports, "png", killed)
    with pytest.raises(KeyboardInterrupt):
        export(["png"], tmp_path, "x", READ, 7)
    np.testing.assert_array_equal(pictures(tmp_path), SAMPLES[:3])
    export(["png"], tmp_path, "x", READ, 7)
    np.testing.assert_array_equal(pictures(tmp_path), SAMPLES)
    assert len(written) == 4 + 4  # those that were there are not written again


def test_a_picture_of_one_channel_is_grey():
    image = Image.open(io.BytesIO(exports.png(ROUNDS[0][0][..., :1])))
    assert image.mode == "L"
    np.testing.assert_array_equal(image, ROUNDS[0][0][..., 0])


def test_forms_that_make_no_sense_are_one_sentence():
    for forms, channels, words in ((["png"], 2, "1, 3 or 4 channels"), (["png", "png_1000"], 3, "choose one")):
        with pytest.raises(UsageError, match=words):
            check_forms(forms, channels)
    with pytest.raises(UsageError, match=r"Unknown sampling\.save 'jpg'.*choose from: png, png_1000, arr_0"):
        KEYS["sampling.save"].check(("png", "jpg"))
    assert KEYS["sampling.save"].plain(("(png, arr_0)",)) == ("png", "arr_0")  # of a command line


# Of a workdir.


@pytest.fixture
def few(tiny_config):
    config = tiny_config()
    config.sampling.update(method="ddim", num_steps=2, num_samples=4)
    return config


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def run(workdirs, few, tmp_path):
    """A copy of the workdir of random weights."""
    if not (workdirs / "run").exists():
        saved(few, workdirs / "run")
    return shutil.copytree(workdirs / "run", tmp_path / "run")


def test_samples_of_a_run_start_from_a_file_and_a_changed_one_draws_anew(run, few, tmp_path):
    starts = RNG.integers(60, 200, (2, 8, 8, 1)).astype(np.uint8)
    few.sampling.update(start=str(tmp_path / "starts.npy"), start_time=0.01, save=("png",))
    names = []
    for images in (starts, starts, starts[::-1]):
        np.save(tmp_path / "starts.npy", images)
        sample(few, run)
        index = json.loads((run / "samples" / "index.json").read_text())
        names += [name for name in index if name not in names]
        x = pictures(run / "samples" / names[-1])[..., None].astype(float)
        assert np.abs(x - np.concatenate([images, images])).mean() < 20  # so near the data that they resemble them
    assert len(names) == 2 and all("_start_starts.npy_0.01_" in name for name in names)
    assert index[names[-1]]["start"] == str(tmp_path / "starts.npy")
    assert index[names[-1]]["options"]["start_time"] == 0.01
    assert np.asarray(Image.open(run / "samples" / f"{names[-1]}.png")).shape[1] > 8 * 64  # starts beside samples


def test_an_evaluation_writes_its_samples_too_and_those_of_another_sampler_replace_them(run, few):
    few.eval.update(begin_ckpt=-1, enable_loss=False, enable_sampling=True, num_samples=12, batch_size=8)
    few.sampling.save = ("png", "arr_0")
    for steps in (2, 3):
        few.sampling.num_steps = steps
        evaluate(few, run)
        folder = run / "eval" / "step_00000004"
        drawn = np.concatenate([np.load(folder / f"samples.000{i}.npz")["images"] for i in range(2)])
        np.testing.assert_array_equal(pictures(folder / "samples")[..., None], drawn)
        np.testing.assert_array_equal(np.load(folder / "samples.arr_0.npz")["arr_0"], drawn)
    (entry,) = json.loads((run / "eval" / "report.json").read_text())["checkpoints"]
    assert entry["sampling"]["saved"] == [str(folder / "samples"), str(folder / "samples.arr_0.npz")]


def test_a_training_refuses_start_images_before_it_writes_anything(few, tmp_path):
    few.sampling.start = "photo.png"
    with pytest.raises(UsageError, match=r"leave them out in training"):
        train(few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_start_images_are_read_from_pictures_folders_and_arrays(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    (tmp_path / "deep").mkdir()
    for i, colour in enumerate(colours):
        Image.new("RGB", (30, 20), colour).save(tmp_path / ("deep" if i else ".") / f"{i}.png")
    expected = np.stack([np.full((8, 8, 3), colour, np.uint8) for colour in (*colours[1:], colours[0])])
    np.testing.assert_array_equal(read_images(tmp_path, (8, 8, 3)), expected[[2, 0, 1]])
    for shape in ((8, 8, 1), (8, 12, 3)):
        assert read_images(tmp_path / "0.png", shape).shape == (1, *shape)
    np.savez(tmp_path / "a.npz", images=expected / np.float32(255))
    np.testing.assert_allclose(read_images(tmp_path / "a.npz", (8, 8, 3)), expected / 255, atol=1e-7)
    for content, words in (
        (dict(images=expected[:, :4]), None),
        (dict(images=expected.astype(np.float32)), r"floats in \[0, 1\] of shape \(n, 8, 8, 3\)"),
        (dict(pictures=expected), "no array 'images' or 'arr_0'"),
    ):
        np.savez(tmp_path / "a.npz", **content)
        if words is None:
            assert read_images(tmp_path / "a.npz", (8, 8, 3)).shape == (3, 8, 8, 3)
            continue
        with pytest.raises(UsageError, match=words):
            read_images(tmp_path / "a.npz", (8, 8, 3))
    (tmp_path / "1.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match="Cannot read"):
        read_images(tmp_path / "1.npy", (8, 8, 3))
