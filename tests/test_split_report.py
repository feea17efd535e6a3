"""Reading of the user's own images: splits, labels, formats; refusals, and the line that says how they were read."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from score_sde import data
from score_sde.cli.main import main
from score_sde.data import decoding
from score_sde.data.decoding import decode
from score_sde.errors import UsageError

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def make(root: Path, *paths: str) -> Path:
    """Images of one colour each, which tells them apart."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / path)
    return root


def load(root: Path, *, train: bool = True, **options) -> data.Source:
    return data.load("folder", train=train, image_size=4, num_channels=3, path=str(root), **options)


def numbers(source: data.Source) -> list[int]:
    return source.images[:, 0, 0, 0].tolist()


def line(root: Path, dataset: str = "folder", **options) -> str:
    common = dict(image_size=4, num_channels=3, path=str(root), **options)
    said = data.summary(str(root), *(data.load(dataset, train=train, **common) for train in (True, False)))
    return said.removeprefix(f"{root}: ")


@pytest.mark.parametrize("of_train", ["train", "Training"])
@pytest.mark.parametrize("other", ["test", "TESTING", "val", "Valid", "validation", "eval", "evaluation", "dev"])
def test_split_folders_of_any_usual_name_are_splits_and_no_classes(of_train, other, tmp_path):
    make(tmp_path, f"{of_train}/a/0.png", f"{of_train}/b/1.png", f"{other}/b/2.png")
    source, evaluation = load(tmp_path), load(tmp_path, train=False)
    assert (numbers(source), source.labels.tolist(), source.class_names) == ([0, 1], [0, 1], ["a", "b"])
    assert (numbers(evaluation), evaluation.labels.tolist()) == ([2], [1])
    assert line(tmp_path) == f"2 images in 2 classes (a, b) from {of_train}/, 1 from {other}/ to evaluate on"


def test_test_is_evaluated_on_before_validation_and_the_rest_is_said(tmp_path):
    make(tmp_path, "train/0.png", "test/1.png", "valid/2.png", "extra/3.png", "cover.png")
    assert (numbers(load(tmp_path)), numbers(load(tmp_path, train=False))) == ([0], [1])
    said = "1 image without classes from train/, 1 from test/ to evaluate on; left out: "
    assert line(tmp_path) == said + "1 in extra/, 1 in valid/, 1 outside of these"


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["Train/0.png", "train/1.png", "test/2.png"], "folders Train and train, the same split"),
        (["train/0.png", "val/1.png", "valid/2.png"], "folders val and valid, the same split"),
        (["train/0.png", "cat/1.png"], "folder train beside cat, by its name a split, and no folder test"),
        (["train/0.png", "1.png"], "folder train beside 1.png, by its name a split, and no folder test"),
        (["test/0.png", "cat/1.png"], "folder test beside cat, by its name a split, and no folder train"),
        (["Valid/0.png"], "folder Valid, by its name a split, and no folder train"),
        (["photos/train/0.png", "photos/val/1.png"], "photos has folders train and val, which would become one"),
        (["cat/Train/0.png", "cat/Test/1.png", "dog/Train/2.png"], "cat has folders Train and Test, which would"),
        (["train/train/0.png", "train/test/1.png"], "train has folders train and test, which would become one"),
        (["cat/0.png", "dog/1.png", "stray.png"], "stray.png is in no class folder, where others are"),
        (["cat/0.png", "dog/1.png", "dog/more/2.png"], "dog/more/2.png is deeper than other images in class folders"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(paths, words, tmp_path):
    if "Train/0.png" in paths:
        (tmp_path / "a").touch()
        if (tmp_path / "A").exists():
            pytest.skip("names here do not differ by case")
    for is_train in (True, False):
        with pytest.raises(UsageError, match=words):
            load(make(tmp_path, *paths), train=is_train)


def test_a_training_split_alone_is_trained_on_and_some_of_it_held_out(tmp_path):
    make(tmp_path, *(f"train/{'ab'[i % 2]}/{i}.png" for i in range(40)))
    parts = load(tmp_path), load(tmp_path, train=False)
    assert sorted(numbers(parts[0]) + numbers(parts[1])) == list(range(40))
    assert all(part.labels.tolist() == [number % 2 for number in numbers(part)] for part in parts)
    held_out = len(parts[1])
    assert (
        line(tmp_path) == f"{40 - held_out} images in 2 classes (a, b) from train/, {held_out} held out to evaluate on"
    )


def test_a_key_says_what_folders_cannot(tmp_path):
    make(tmp_path / "stray", "cat/0.png", "dog/more/1.png", "2.png")
    assert load(tmp_path / "stray", labels="none", held_out=0).labels is None
    assert line(tmp_path / "stray", labels="none", held_out=0) == (
        "3 images without classes, by data.labels=none, which are evaluated on as well"
    )
    make(tmp_path / "vehicles", "bus/a/b/0.png", "car/1.png", "train/2.png")
    source = load(tmp_path / "vehicles", labels="folders", held_out=0)
    assert (source.labels.tolist(), source.class_names) == ([0, 1, 2], ["bus", "car", "train"])
    with pytest.raises(UsageError, match="choose from: auto, folders, none"):
        load(tmp_path, labels="all")
    with pytest.raises(UsageError, match=r"data.labels=none is for data.dataset=folder"):
        data.load("cifar10", train=True, image_size=4, num_channels=3, labels="none")


def edm(root: Path) -> None:
    labels = [["00000/img00000000.png", 6], ["00000\\img00000001.png", 0], ["00001/img00000002.png", 9]]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))


def jsonl(root: Path) -> None:
    rows = [
        {"file_name": f"{i // 2:05}/img{i:08}.png", "label": label, "text": "\u2028"} for i, label in enumerate("609")
    ]
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")


def csv(root: Path) -> None:
    rows = [f"{label},{i // 2:05}/img{i:08}.png" for i, label in enumerate("609")]
    (root / "metadata.csv").write_text("\n".join(["\ufefflabel,file_name", *rows]))


SHARDS = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png"]


@pytest.mark.parametrize("write", [edm, jsonl, csv])
@pytest.mark.parametrize("in_memory_gib", [8, 0])
def test_labels_are_those_of_a_file_and_shards_are_no_classes(write, in_memory_gib, tmp_path):
    write(make(tmp_path, *SHARDS))
    source = load(tmp_path, held_out=0, in_memory_gib=in_memory_gib)
    assert (source.labels.tolist(), source.class_names, source.num_classes) == ([6, 0, 9], None, 10)
    name = next(path.name for path in tmp_path.iterdir() if path.is_file())
    assert line(tmp_path, held_out=0).startswith(f"3 images in 10 classes (0 to 9, by {name}), which")
    path, digest = tmp_path / name, source.digest()
    path.write_text(path.read_text().replace("9", "8"))
    assert load(tmp_path, held_out=0, in_memory_gib=in_memory_gib).digest() != digest
    folders = load(tmp_path, held_out=0, labels="folders")
    assert (folders.labels.tolist(), folders.class_names) == ([0, 0, 1], ["00000", "00001"])


def test_labels_may_be_names_in_each_split_or_above_both(tmp_path):
    make(tmp_path, "train/0.png", "train/1.png", "valid/2.png")
    (tmp_path / "train/metadata.csv").write_text("file_name,label\n0.png,owl\n1.png,cat\n2.png,dog\n")
    (tmp_path / "valid/metadata.csv").write_text("file_name,label\n2.png,owl\n")
    source, evaluation = load(tmp_path), load(tmp_path, train=False)
    assert (source.class_names, source.labels.tolist(), evaluation.labels.tolist()) == (["cat", "owl"], [1, 0], [1])
    assert line(tmp_path).endswith("1 from valid/ to evaluate on; left out: 1 of train/metadata.csv without an image")
    (tmp_path / "valid/metadata.csv").write_text("file_name,label\n2.png,dog\n")
    with pytest.raises(UsageError, match=r"a label dog that .*train has not"):
        load(tmp_path, train=False)
    for split in ("train", "valid"):
        (tmp_path / split / "metadata.csv").unlink()
    rows = [
        json.dumps({"file_name": f"{split}.png", "label": i})
        for i, split in enumerate(["train/0", "train/1", "valid/2"])
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    assert (load(tmp_path).labels.tolist(), load(tmp_path, train=False).labels.tolist()) == ([0, 1], [2])
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows[:2]))
    with pytest.raises(UsageError, match=r"metadata.jsonl has no label of .*valid/2.png; add it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.json", '{"labels": null}'),
        ("metadata.csv", "file_name,author\n00000/img00000000.png,Ann\n"),
        ("metadata.jsonl", '{"file_name": "00000/img00000000.png", "author": "Ann"}\n'),
    ],
)
def test_a_file_without_labels_means_that_there_are_none(name, content, tmp_path):
    (make(tmp_path, *SHARDS) / name).write_text(content)
    assert load(tmp_path, held_out=0).labels is None
    assert line(tmp_path, held_out=0).startswith(f"3 images without classes, by {name}, which")


@pytest.mark.parametrize(("name", "content"), [("dataset.json", '{"name": "mine"}'), ("metadata.csv", "a,b\n1,2\n")])
def test_another_programs_file_says_nothing(name, content, tmp_path):
    (make(tmp_path, *SHARDS) / name).write_text(content)
    assert load(tmp_path, held_out=0).class_names == ["00000", "00001"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("dataset.json", '{"labels": [["00000/img00000000.png", 6]]}', "has no label of .*00000/img00000001.png"),
        ("dataset.json", '{"labels": [["00000/img00000000.png", [0, 1]]]}', r"the label \[0, 1\], which is no integer"),
        ("dataset.json", '{"labels": [[', "Cannot read .*dataset.json"),
        ("dataset.json", "[" * 100_000, "Cannot read .*dataset.json"),
        ("dataset.json", '{"labels": [["a", 0], ["a", 1]]}', "gives a two labels"),
        ("dataset.json", '{"labels": [["a", 0], ["b", "x"]]}', "integers and names as labels"),
        ("metadata.jsonl", '{"file_name": "a", "label": 0}\n{"file_name": "b"}', "gives b the label null"),
        ("metadata.parquet", "PAR1", "Cannot read .*metadata.parquet"),
    ],
)
def test_a_file_of_labels_that_cannot_be_used_is_one_sentence(name, content, words, tmp_path):
    (make(tmp_path, *SHARDS) / name).write_text(content)
    with pytest.raises(UsageError, match=f"{words}.*config.data.labels=folders, or none"):
        load(tmp_path)


def test_of_two_files_of_labels_neither_is_chosen(tmp_path):
    make(tmp_path, *SHARDS)
    for write in (edm, csv):
        write(tmp_path)
    with pytest.raises(UsageError, match=r"has dataset.json and metadata.csv; keep the one"):
        load(tmp_path)


def test_usual_formats_are_read_and_others_are_counted(tmp_path):
    names = ["a.png", "b.jpg", "c.jpeg", "d.JPE", "e.jfif", "f.webp", "g.bmp", "h.gif", "i.tif", "j.TIFF"]
    names += ["k.avif"] * ("AVIF" in decoding.FORMATS)
    for name in names:
        format = "jpeg" if name.endswith(("JPE", "jfif")) else None
        Image.new("RGB", (4, 4), "white").save(tmp_path / name, format=format)
    for name in ("1.heic", "2.HEIC", "3.svg", "notes", ".hidden.png", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / ".thumbnails").mkdir()
    source = load(tmp_path, held_out=0)
    assert len(source) == len(names) and source.images.min() > 250
    assert line(tmp_path, held_out=0).endswith("; left out: 2 .heic, 2 hidden, 1 .svg, 1 without a suffix")
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match=r"No images in .*, but 2 \.heic, 1 "):
        load(tmp_path)


def stored(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["bmp", "gif", "tiff"])
@pytest.mark.parametrize("side", [16, 30])  # the rows of a BMP of 16 are as many bytes
def test_pixels_and_palettes_of_other_formats_are_those_of_png(format, side):
    pixels = RNG.integers(0, 256, (side, side, 3)).astype(np.uint8)
    coloured = Image.fromarray(pixels).quantize(30)
    grey = Image.fromarray(pixels[..., 0])
    for image, channels in ((coloured, 3), (grey.convert("P"), 1), (grey, 1), (grey.convert("1"), 1)):
        expected = decode(stored(image, "png"), channels=channels)
        np.testing.assert_array_equal(decode(stored(image, format), channels=channels), expected)
    with pytest.raises(UsageError, match="is RGB of 8 bits"):
        decode(stored(coloured, format), channels=1)


def test_which_frame_is_meant_nobody_knows(tmp_path):
    frames = [Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)) for _ in range(3)]
    for format in ("gif", "png", "webp", "tiff", *["avif"] * ("AVIF" in decoding.FORMATS)):
        with pytest.raises(UsageError, match="it has several frames"):
            decode(stored(frames[0], format, save_all=True, append_images=frames[1:]))
        alone = stored(frames[0], format, save_all=True, **({"lossless": True} if format == "webp" else {}))
        assert decode(alone, channels=1, convert=True).shape == (8, 8, 1)
    camera = stored(frames[0], "mpo", save_all=True, append_images=frames[1:])  # its others are views or depths
    np.testing.assert_array_equal(decode(camera), decode(stored(frames[0], "jpeg")))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_whose_black_and_white_are_unknown_are_refused(mode):
    with pytest.raises(UsageError, match="its numbers are not of 8 or 16 bits"):
        decode(stored(Image.new(mode, (4, 4)), "tiff"), channels=1, convert=True)


@pytest.mark.parametrize("format", ["gif", "tiff", "bmp"])
def test_other_formats_hold_no_bombs(format, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63)
    with pytest.raises(UsageError, match="8x8 pixels are more than 63"):
        decode(stored(Image.new("L", (8, 8)), format))


def test_what_an_array_was_taken_as_is_said(tmp_path):
    images = np.zeros((4, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(4), y=np.zeros(3))
    assert line(tmp_path / "a.npz", "array", held_out=0) == (
        "4 images in 4 classes (0 to 3), which are evaluated on as well; left out: 1 array y"
    )
    np.save(tmp_path / "one.npy", images[0])
    with pytest.raises(UsageError, match=r"shape \(4, 4, 3\), one image or many of width 3"):
        line(tmp_path / "one.npy", "array", convert=True)


def test_a_plain_folder_is_what_it_was(tmp_path):
    """Its digests are those of version 0.1.0, so that a run goes on."""
    for i in range(12):
        path = tmp_path / ("ant", "bee", "cat")[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((np.arange(192).reshape(8, 8, 3) * (i + 1) % 256).astype(np.uint8)).save(path)
    common = dict(image_size=8, num_channels=3, path=str(tmp_path))
    digests = [data.load("folder", train=is_train, **common).digest() for is_train in (True, False)]
    assert digests == ["d44ed30c3de4427da119e615dc491ca9", "438fccb76da4f27c56d9d2368f707d45"]
    on_disk = data.load("folder", train=False, in_memory_gib=0, **common)
    (name,) = [path for path in tmp_path.rglob("*.png") if str(path) == on_disk.pictures.name(0)]
    (found,) = on_disk.pictures.fingerprint()
    assert found[:2] == (str(name.relative_to(tmp_path)), name.stat().st_size)


@pytest.fixture
def not_utf8(tmp_path) -> Path:
    """Twenty images in class folders, with names of bytes that are no UTF-8."""
    root = os.fsencode(tmp_path / "photos")
    try:
        for i in range(20):
            folder = root + (b"/caf\xe9", b"/th\xe9")[i % 2]
            os.makedirs(folder, exist_ok=True)
            Image.new("L", (4, 4), i).save(os.fsdecode(folder + b"/\xff%d.png" % i))
    except OSError:
        pytest.skip("names are UTF-8 on this file system")
    return tmp_path / "photos"


def test_file_names_need_be_no_utf8(not_utf8, tmp_path, capsys):
    config = f"--config={ROOT / 'configs/vp/cifar10_ddpmpp_continuous.py'}"
    values = dict(path=not_utf8, image_size=4, num_channels=1, in_memory_gib=0, held_out=0.4)
    overrides = [f"--config.data.{key}={value}" for key, value in {"dataset": "folder", **values}.items()]
    assert main(["score_sde", "--mode=data", config, *overrides, f"--out={tmp_path / 'sheet.png'}"]) == 0
    output = capsys.readouterr().out
    output.encode()  # which names as they are could not be
    assert "2 classes (caf\\udce9, th\\udce9)" in output and output.count("digest") == 2
    next(not_utf8.glob("*/*5.png")).write_bytes(b"what")
    with pytest.raises(UsageError, match=r"Cannot read .*.udce9/.udcff.*5\.png"):
        data.load("folder", train=True, **{**values, "path": str(not_utf8), "held_out": 0})
