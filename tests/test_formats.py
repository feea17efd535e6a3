"""Own images in zip, tar and parquet files of other programs, and what is said of those that cannot be used."""

import io
import json
import os
import shutil
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from score_sde import data
from score_sde.cli.main import main
from score_sde.data import parquet_files
from score_sde.errors import UsageError

FORMATS = Path(__file__).parent / "files" / "formats"
CONFIG = Path(__file__).parent.parent / "configs/vp/cifar10_ddpmpp_continuous.py"
NAMES = ["one", "two", "zero"]
# Path of each set, digits or names of its classes in order, where they come from, and what the summary says was read.
SETS = {
    "edm": ("edm.zip", [1, 2, 0], "0 to 2, by dataset.json", "from edm.zip, 1 held out"),
    "zip": ("digits.zip", NAMES, "one, two, zero", "from train/ of digits.zip, 6 from test/ of digits.zip"),
    "tar": ("digits.tar", NAMES, "one, two, zero", "from train/ of digits.tar, 6 from test/ of digits.tar"),
    "parquet": (
        "parquet",
        NAMES,
        "one, two, zero, by column label",
        "from 3 parquet files, 6 from test-00000",
    ),
    "webdataset": ("webdataset", [0, 1, 2], "0 to 2, by .cls", "from 3 tar files, 6 from digits-test-000000.tar"),
    "json": ("json.tar", NAMES, "one, two, zero, by .json", "from json.tar, 1 held out"),
}


@pytest.fixture(scope="module")
def digits() -> dict[bytes, int]:
    """The digit that pixels show, by scikit-learn."""
    pairs = zip(*load_digits(return_X_y=True), strict=True)
    return {np.round(255 / 16 * image).astype(np.uint8).tobytes(): int(label) for image, label in pairs}


def load(path: Path | str, *, train: bool = True, **options) -> data.Source:
    return data.load("folder", train=train, image_size=8, num_channels=1, path=str(path), **options)


def line(path: Path, **options) -> str:
    return data.summary(str(path), *(load(path, train=train, **options) for train in (True, False)))


@pytest.mark.parametrize("name", SETS)
def test_a_programs_file_is_read_with_its_pixels_and_labels(name, digits):
    path, classes, by, said = SETS[name]
    parts = [load(FORMATS / path, train=train) for train in (True, False)]
    numbers = {name: number for number, name in enumerate(["zero", "one", "two"])}
    for part in parts:
        shown = [digits[image.tobytes()] for image in part.images]
        assert shown == [numbers.get(classes[label], classes[label]) for label in part.labels]
        assert part.class_names == (classes if classes[0] in NAMES else None)
    assert len({image.tobytes() for part in parts for image in part.images}) == sum(map(len, parts))
    assert sum(map(len, parts)) == {"edm": 18, "json": 6}.get(name, 24)
    assert f"in 3 classes ({by}) {said}" in line(FORMATS / path)


def test_a_container_and_its_unpacked_folder_are_the_same_data(tmp_path):
    with zipfile.ZipFile(FORMATS / "digits.zip") as archive:
        archive.extractall(tmp_path)
    folder = load(tmp_path / "digits").digest()
    assert [load(FORMATS / name).digest() for name in ("digits.zip", "digits.tar", "parquet")] == [folder] * 3


@pytest.mark.parametrize("name", SETS)
def test_a_container_read_on_disk_by_threads_gives_the_batches_of_memory(name):
    path = FORMATS / SETS[name][0]
    memory, disk = load(path), load(path, in_memory_gib=0, num_workers=4)
    assert type(disk) is data.OnDisk and len(memory) == len(disk)
    np.testing.assert_array_equal(memory.labels, disk.labels)
    for (_, one), (_, other), _ in zip(
        data.batches(memory, 5, seed=1), data.batches(disk, 5, seed=1), range(9), strict=False
    ):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    disk.close()
    assert not [link for link in links() if link == path or path in link.parents]


def links() -> list[Path]:
    """The files that this process has open, where the system tells."""
    return [Path(os.path.realpath(link)) for link in Path("/proc/self/fd").glob("*")]


@pytest.mark.parametrize("name", ["zip", "tar", "parquet"])
def test_many_threads_read_a_container_at_once(name):
    path = FORMATS / SETS[name][0]
    memory, disk = load(path), load(path, in_memory_gib=0, num_workers=8)
    orders = [np.random.default_rng(i).permutation(18) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, batch in zip(orders, pool.map(disk.take, orders), strict=True):
            np.testing.assert_array_equal(batch.images, memory.images[order])
    disk.close()


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
@pytest.mark.parametrize("packed", [False, True])
def test_labels_are_those_of_a_metadata_file_also_inside_of_a_zip(name, packed, digits, tmp_path):
    with zipfile.ZipFile(FORMATS / "digits.zip") as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "digits/train"
    shutil.copy(FORMATS / "metadata" / name, path)
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", path))
    source = load(path, held_out=0)
    shown = [["zero", "one", "two"][digits[image.tobytes()]] for image in source.images]
    assert shown == [source.class_names[label] for label in source.labels]
    assert f"in 3 classes (one, two, zero, by {name})" in line(path, held_out=0)


def png(level: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, level).save(file, "png")
    return file.getvalue()


def rewrite(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], **options) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    return path


def zipped(path: Path, *names: str, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for i, name in enumerate(names):
            archive.writestr(name, png(i) if name.endswith(".png") else "")
    return path


def tarred(path: Path, *names: str, **of_last) -> Path:
    """A tar of pictures and of empty other files; of_last: attributes of the last header."""
    with tarfile.open(path, "w") as archive:
        for i, name in enumerate(names):
            member, content = tarfile.TarInfo(name), png(i) if name.endswith(".png") else b""
            member.size = len(content)
            for key, value in of_last.items() if i == len(names) - 1 else ():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


def parquet(path: Path, columns: dict, metadata: dict | None = None, **options) -> Path:
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path, **options)
    return path


def pictures(n: int = 3) -> list[dict]:
    return [{"bytes": png(i), "path": f"{i}.png"} for i in range(n)]


def edited(path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a file with other bytes."""
    path = path / name.rpartition("/")[2]
    path.write_bytes(change((FORMATS / name).read_bytes()))
    return path


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def labels(change: Callable[[list], object]) -> Callable[[dict], dict]:
    """The members with other labels in dataset.json."""

    def changed(members):
        rows = json.loads(members["dataset.json"])["labels"]
        change(rows)
        return members | {"dataset.json": json.dumps({"labels": rows}).encode()}

    return changed


PART = "parquet/data/train-00000-of-00003.parquet"
DAMAGED = {
    "a zip cut off": (
        lambda folder: edited(folder, "edm.zip", lambda content: content[:-40]),
        r"Cannot read .*edm.zip \(File is not a zip file\); put an undamaged one in its place",
    ),
    "a zip with a flipped bit": (
        lambda folder: edited(folder, "edm.zip", lambda content: flipped(content, content.index(b"IDAT") + 30)),
        r"Cannot read .*edm.zip/00000/img00000000.png \(Bad CRC-32.*\); remove or replace it, or leave such images out",
    ),
    "a zip of which pictures are missing": (
        lambda folder: rewrite(
            edited(folder, "edm.zip", bytes), lambda members: {k: v for k, v in members.items() if "00005" not in k}
        ),
        r"edm.zip/dataset.json has a label of 00000/img00000005.png, an image that is missing there; make",
    ),
    "a zip with a picture without a label": (
        lambda folder: rewrite(edited(folder, "edm.zip", bytes), labels(lambda rows: rows.pop())),
        r"edm.zip/dataset.json has no label of .*edm.zip/00000/img00000017.png; add it",
    ),
    "a zip with labels of two kinds": (
        lambda folder: rewrite(edited(folder, "edm.zip", bytes), labels(lambda rows: rows[0].__setitem__(1, "cat"))),
        "edm.zip/dataset.json has integers and names as labels",
    ),
    "a zip with a password": (
        # The bit of the last member's flags, in the directory at the end.
        lambda folder: edited(folder, "digits.zip", lambda content: flipped(content, content.rindex(b"PK\1\2") + 8)),
        "digits.zip is encrypted; make it again without a password",
    ),
    "a zip compressed by LZMA": (
        lambda folder: zipped(folder / "a.zip", "0.png", compression=zipfile.ZIP_LZMA),
        "a.zip is compressed by lzma; make it again with deflation",
    ),
    "a zip with a path that leads out": (
        lambda folder: zipped(folder / "a.zip", "0.png", "x/../../1.png"),
        r"a.zip has a member x/../../1.png, which lies outside of it",
    ),
    "a zip with a path of Windows that leads out": (
        lambda folder: zipped(folder / "a.zip", "0.png", "..\\1.png"),
        r"a.zip has a member ../1.png, which lies outside of it",
    ),
    "a zip with an absolute path": (
        lambda folder: zipped(folder / "a.zip", "0.png", "/etc/1.png"),
        r"a.zip has a member /etc/1.png, which lies outside of it",
    ),
    "a zip without images": (
        lambda folder: zipped(folder / "a.zip", "0.txt", "1.txt"),
        r"No images in .*a.zip \(PNG, .*\), but 2 .txt; give the folder or file that holds them",
    ),
    "an empty zip": (lambda folder: zipped(folder / "a.zip"), r"No images in .*a.zip"),
    "an empty tar": (lambda folder: tarred(folder / "a.tar"), r"No images in .*a.tar"),
    "a tar cut off in a picture": (
        lambda folder: edited(folder, "json.tar", lambda content: content[: 512 * 7 + 60]),
        r"Cannot read .*json.tar \(.*\); put an undamaged one in its place",
    ),
    "a tar cut off between two": (
        lambda folder: edited(folder, "webdataset/digits-train-000000.tar", lambda content: content[: 512 * 12]),
        r"digits-train-000000.tar \(its end is missing, or it is damaged at byte 6,144\)",
    ),
    "a tar with a damaged header": (
        lambda folder: edited(
            folder, "webdataset/digits-train-000000.tar", lambda content: content[:6144] + b"\1" * 512 + content[6656:]
        ),
        r"digits-train-000000.tar \(its end is missing, or it is damaged at byte 6,144\)",
    ),
    "no tar at all": (lambda folder: edited(folder, "edm.zip", bytes).rename(folder / "a.tar"), r"Cannot read .*a.tar"),
    "a tar of gzip": (
        lambda folder: Path(shutil.make_archive(str(folder / "a"), "gztar", FORMATS)),
        r"a.tar.gz is compressed as a whole, so that no picture in it can be read alone; decompress it",
    ),
    "a tar of gzip by another name": (
        lambda folder: Path(shutil.make_archive(str(folder / "a"), "gztar", FORMATS)).rename(folder / "b.tar"),
        r"b.tar is compressed, so that no picture can be read alone; decompress it",
    ),
    "a tar with a link": (
        lambda folder: tarred(folder / "a.tar", "0.png", "1.png", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        r"a.tar has a member 1.png, which is a link, a device or a sparse file",
    ),
    "a tar with a device": (
        lambda folder: tarred(folder / "a.tar", "0.png", "1.png", type=tarfile.CHRTYPE, size=0),
        r"a.tar has a member 1.png, which is a link, a device",
    ),
    "a tar with a path that leads out": (
        lambda folder: tarred(folder / "a.tar", "0.png", "../1.png"),
        r"a.tar has a member ../1.png, which lies outside of it",
    ),
    "a tar with a name twice": (
        lambda folder: tarred(folder / "a.tar", "0.png", "0.png"),
        r"a.tar has two members 0.png; make it again",
    ),
    "a tar with two pictures of a key": (
        lambda folder: tarred(folder / "a.tar", "0.png", "0.PNG", "0.mask.png"),
        r"a.tar has two pictures of one key, 0.png and 0.PNG; leave one out",
    ),
    "a tar with a label that is none": (
        lambda folder: tarred(folder / "a.tar", "0.png", "0.cls"),
        'the label "", which',
    ),
    "a tar with a label of a missing picture": (
        lambda folder: tar_of(folder, {"0.png": png(), "0.cls": b"3", "1.cls": b"2"}),
        r"a.tar has a label of 1.cls, an image that is missing there",
    ),
    "a tar with a picture without a label": (
        lambda folder: tar_of(folder, {"0.png": png(), "0.cls": b"3", "1.png": png()}),
        r"a.tar/1.png has no label, as others of .*a.tar do; add it",
    ),
    "a tar with labels of two kinds": (
        lambda folder: tar_of(folder, {"0.png": png(), "0.cls": b"3", "1.png": png(), "1.cls": b"cat"}),
        "a.tar has integers and names as labels",
    ),
    "a tar with damaged JSON": (
        lambda folder: tar_of(folder, {"0.png": png(), "0.json": b'{"label": '}),
        r"Cannot read .*a.tar/0.json \(.*\); mend it, or set config.data.labels=none",
    ),
    "a parquet file cut off": (
        lambda folder: edited(folder, PART, lambda content: content[:-9]),
        r"Cannot read .*train-00000-of-00003.parquet \(.*\); put an undamaged one in its place",
    ),
    "a parquet file with damaged pages": (
        lambda folder: edited(
            folder,
            "parquet/data/train-00000-of-00003.parquet",
            lambda content: content[:30] + b"\xff" * 60 + content[90:],
        ),
        r"Cannot read row \d of .*train-00000-of-00003.parquet \(.*\); remove or replace it",
    ),
    "a parquet file without images": (
        lambda folder: parquet(folder / "a.parquet", {"text": ["a"], "n": [1]}),
        r"a.parquet has no column of images, .* but text \(string\), n \(int64\)",
    ),
    "a parquet file of addresses": (
        lambda folder: parquet(folder / "a.parquet", {"URL": ["http://a.b/c.png"], "TEXT": ["a cat"]}),
        r"a.parquet has addresses of images, and not images",
    ),
    "a parquet file of paths": (
        lambda folder: parquet(
            folder / "a.parquet", {"image": pa.array([{"bytes": None, "path": "x/0.png"}] * 3, pa.struct(IMAGE))}
        ),
        r"Cannot read row \d of .*a.parquet \(it has no bytes, only the path x/0.png\); remove or replace it",
    ),
    "a parquet file of two columns of images": (
        lambda folder: parquet(folder / "a.parquet", {"left": pictures(), "right": pictures()}),
        r"a.parquet has 2 columns of images, left, right; rename the one to read to image",
    ),
    "a parquet file of two columns of classes": (
        lambda folder: parquet(folder / "a.parquet", {"img": pictures(), "fine": [0] * 3, "coarse": [0] * 3}, TWO),
        r"a.parquet has 2 columns of classes, fine, coarse; rename .* to label, or set config.data.labels=none",
    ),
    "a parquet file of labels that no class has": (
        lambda folder: parquet(folder / "a.parquet", {"image": pictures(), "label": [0, 1, 2]}, ONE),
        r"Row 2 of .*a.parquet has the label 2, and there are names of 2 classes",
    ),
    "a parquet file of labels that are none": (
        lambda folder: parquet(folder / "a.parquet", {"image": pictures(), "label": [0.5, 1, 2]}),
        r"a.parquet gives row 0 of .*a.parquet the label 0.5, which is no integer or name",
    ),
    "a parquet file in which a label is missing": (
        lambda folder: parquet(folder / "a.parquet", {"image": pictures(), "label": [0, -1, 1]}, ONE),
        r"row 1 of .*a.parquet has no label, as others",
    ),
    "an empty parquet file": (
        lambda folder: parquet(folder / "a.parquet", {"image": pa.array([], pa.struct(IMAGE))}),
        r"No images in .*a.parquet",
    ),
    "a pointer of Git LFS": (
        lambda folder: edited(
            folder, PART, lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        r"train-00000-of-00003.parquet is a pointer of Git LFS, not the file; get the file by git lfs pull",
    ),
    "an array": (
        lambda folder: edited(folder, "edm.zip", bytes).rename(folder / "a.npz"),
        r"a.npz holds arrays; set config.data.dataset=array, which reads it",
    ),
    "one picture": (
        lambda folder: Path(folder / "a.png") if (folder / "a.png").write_bytes(png()) else None,
        r"a.png is one image; give the folder that holds the images",
    ),
    "another file": (
        lambda folder: Path(folder / "a.txt") if (folder / "a.txt").write_bytes(b"x") else None,
        r"a.txt is no folder and no file of images \(.zip, .tar, .parquet\)",
    ),
}
IMAGE = [("bytes", pa.binary()), ("path", pa.string())]
CLASSES = {"_type": "ClassLabel", "names": ["cat", "dog"]}
ONE = {"image": {"_type": "Image"}, "label": CLASSES}
TWO = {"img": {"_type": "Image"}, "fine": CLASSES, "coarse": CLASSES}


def tar_of(folder: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "a.tar"


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("in_memory_gib", [8, 0])
def test_a_file_that_cannot_be_used_is_named_in_one_sentence(name, in_memory_gib, tmp_path):
    make, words = DAMAGED[name]
    path = make(tmp_path)
    before = {file: file.stat().st_mtime for file in tmp_path.parent.rglob("*")}
    with pytest.raises(UsageError, match=words) as raised:
        load(path, held_out=0, in_memory_gib=in_memory_gib)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")
    assert {file: file.stat().st_mtime for file in tmp_path.parent.rglob("*")} == before  # nothing is unpacked


def of_size(content: bytes, size: int) -> bytes:
    """A zip whose directory claims this size of its last member."""
    place = content.rindex(b"PK\1\2") + 24
    return content[:place] + size.to_bytes(4, "little") + content[place + 4 :]


def bomb(folder: Path, claimed: int) -> Path:
    """A zip of a member of 10 kB that expands to 10 MB."""
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", png())
        archive.writestr("1.png", bytes(10_000_000))
    path.write_bytes(of_size(path.read_bytes(), claimed))
    return path


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [(2**31, "its 2,147,483,648 bytes or more are over the limit"), (100, "Bad CRC-32"), (10_000_000, "none of PNG")],
)
def test_no_more_of_a_zip_is_expanded_than_a_picture_may_take(claimed, reason, tmp_path, capsys):
    path = bomb(tmp_path, claimed)
    with pytest.raises(UsageError, match=rf"Cannot read .*bomb.zip/1.png \({reason}.*\); remove or replace it"):
        load(path, held_out=0)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"Cannot read .*bomb.zip/1.png"):
        load(path, held_out=0, in_memory_gib=0, num_workers=1)  # which looks at the beginning of each picture
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3_000_000


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    wide = bytearray(png())
    wide[16:24] = (9_000).to_bytes(4, "big") * 2  # in its header
    wide[29:33] = zlib.crc32(wide[12:29]).to_bytes(4, "big")
    shutil.copy(FORMATS / "digits.tar", tmp_path / "a.tar")
    for path in (tar_of(tmp_path, {"0.png": bytes(wide)}), parquet(tmp_path / "a.parquet", {"image": [bytes(wide)]})):
        with pytest.raises(UsageError, match="9000x9000 pixels are more than"):
            load(path, held_out=0)


def test_a_group_of_rows_is_no_bomb(tmp_path, monkeypatch):
    once = {"image": [png(1, (64, 64)) + bytes(20_000)] * 100}  # stored once
    path = parquet(tmp_path / "a.parquet", once)
    assert len(load(path, held_out=0)) == 100
    monkeypatch.setattr(parquet_files, "GROUP_BYTES", 100_000)
    with pytest.raises(UsageError, match=r"Cannot read row .*in its group of rows: there are more than 100,000 bytes"):
        load(path, held_out=0)
    parquet(path, {"image": [png(i) + bytes(20_000) for i in range(10)]}, compression="none")
    with pytest.raises(UsageError, match=r"a.parquet has a group of rows of 20\d,\d+ bytes, .*row_group_size=100"):
        load(path, held_out=0)
    parquet(path, {"image": pa.array([None] * 100_000, pa.binary())})
    with pytest.raises(UsageError, match="claims 100,000 rows, more than its bytes"):
        load(path)


@pytest.mark.parametrize("name", ["edm.zip", "json.tar", PART])
def test_pictures_that_cannot_be_read_are_left_out_as_of_a_folder(name, tmp_path, capsys):
    whole = load(FORMATS / name, held_out=0)
    path = edited(tmp_path, name, lambda content: content.replace(b"\x89PNG", b"what", 1))
    if name == "edm.zip":  # whose members have checksums
        rewrite(path := edited(tmp_path, name, bytes), lambda members: members | {"00000/img00000000.png": b"what"})
    capsys.readouterr()
    for in_memory_gib in (8, 0):
        source = load(path, held_out=0, corrupt="skip", in_memory_gib=in_memory_gib)
        assert len(source) == len(whole) - 1
        assert (
            f"1 of {len(whole)} images of folder (training) cannot be read and are left out" in capsys.readouterr().err
        )
    assert set(map(bytes, load(path, held_out=0, corrupt="skip").images)) < set(map(bytes, whole.images))


@pytest.mark.parametrize("name", ["edm.zip", "json.tar", "webdataset/digits-train-000000.tar", PART])
def test_a_container_of_other_content_has_another_digest(name, tmp_path):
    """Two pictures, or two labels, change their places."""
    path = edited(tmp_path, name, bytes)
    if name == "edm.zip":
        one, other = "00000/img00000000.png", "00000/img00000001.png"
        rewrite(path, lambda members: members | {one: members[other], other: members[one]})
    elif name == PART:
        table = pq.read_table(path)
        pq.write_table(table.take([1, 0, *range(2, len(table))]), path, row_group_size=4)
    else:
        with tarfile.open(path) as archive:
            members = {member: archive.extractfile(member).read() for member in archive.getnames()}
        kind = "png" if name == "json.tar" else "cls"
        one, other = [member for member in sorted(members) if member.endswith(kind)][1:3]  # of two digits
        tar_of(tmp_path, members | {one: members[other], other: members[one]}).rename(path)
    for in_memory_gib in (8, 0):
        options = dict(held_out=0, in_memory_gib=in_memory_gib)
        assert load(path, **options).digest() != load(FORMATS / name, **options).digest()


def test_labels_can_be_left_out(tmp_path):
    for name in ("edm.zip", "json.tar", "parquet"):
        assert load(FORMATS / name, labels="none").labels is None
    assert load(FORMATS / "json.tar", labels="folders", held_out=0).class_names == NAMES
    with pytest.raises(UsageError, match="has its labels in a column, not in folders"):
        load(FORMATS / "parquet", labels="folders")
    unlabelled = {"image": pictures(), "label": [-1] * 3}
    assert load(parquet(tmp_path / "a.parquet", unlabelled, ONE)).labels is None  # as tests of contests have them


def test_splits_are_those_of_the_files_names(tmp_path):
    for split, name in (("train", "edm.zip"), ("TEST", "edm_test.zip")):
        shutil.copy(FORMATS / name, tmp_path / f"pets-{split}.zip")
    assert [len(load(tmp_path, train=train)) for train in (True, False)] == [18, 6]
    assert "18 images in 3 classes (0 to 2, by dataset.json) from pets-train.zip, 6 from pets-TEST.zip" in line(
        tmp_path
    )
    pattern = tmp_path / "pets-{train,TEST}.zip"
    assert [len(load(pattern, train=train)) for train in (True, False)] == [18, 6]
    assert len(load(tmp_path / "pets-TEST.zip", held_out=0)) == 6  # which is named alone
    (tmp_path / "pets-TEST.zip").rename(tmp_path / "more.zip")
    with pytest.raises(UsageError, match=r"has pets-train.zip, by its name of a split, and no file of a split test"):
        load(tmp_path)
    (tmp_path / "pets-train.zip").rename(tmp_path / "pets.zip")
    with pytest.raises(UsageError, match=r"has zip files more.zip and pets.zip; give one of them"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["test.parquet"], "has test.parquet, by its name of a split, and no file of a split train"),
        (["train.parquet", "rest.parquet"], "has train.parquet, by its name of a split, and no file of a split test"),
        (["train-test.parquet"], "train-test.parquet has two splits in its name; rename it"),
        (["en/train.parquet", "fr/train.parquet"], "has en/train.parquet and fr/train.parquet, in folders that are no"),
        (["a.parquet", "b.tar"], "has a.parquet and b.tar, of different kinds; give one"),
        (["a.tar.gz"], "a.tar.gz is compressed as a whole"),
        (["a.npy"], "a.npy holds arrays; set config.data.dataset=array"),
    ],
)
def test_files_that_could_be_meant_in_two_ways_are_refused(names, words, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FORMATS / PART, tmp_path / name)
    with pytest.raises(UsageError, match=words):
        load(tmp_path)


def test_splits_may_be_folders_of_files(tmp_path):
    for split, name in (("train", PART), ("validation", "parquet/data/test-00000-of-00001.parquet")):
        (tmp_path / "default" / split).mkdir(parents=True)
        shutil.copy(FORMATS / name, tmp_path / "default" / split / "0000.parquet")
    assert [len(load(tmp_path, train=train)) for train in (True, False)] == [6, 6]
    shutil.copytree(tmp_path / "default/train", tmp_path / "other/train")
    with pytest.raises(UsageError, match=r"in folders that are no splits; give config.data.path=.*default to read one"):
        load(tmp_path)
    assert len(load(tmp_path / "default")) == 6


def test_captions_are_read_or_left_out_and_the_summary_says_so(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"img": pictures(), "text": ["x"] * 3, "labels": ["b", "a", "b"]})
    source = load(path, held_out=0)
    assert (source.labels.tolist(), source.class_names) == ([1, 0, 1], ["a", "b"])
    assert line(path, held_out=0).endswith("; captions by column text")
    assert line(path, held_out=0, captions="none").endswith("; left out: 1 column text")
    assert line(FORMATS / "webdataset").endswith("; captions by .txt")
    assert line(FORMATS / "webdataset", captions="none").endswith("; left out: 24 .txt")


def test_files_of_one_table_have_its_classes_or_no_labels(tmp_path):
    shutil.copy(FORMATS / PART, tmp_path / "train.parquet")
    parquet(tmp_path / "test.parquet", {"image": pictures()}, {"image": {"_type": "Image"}})
    assert ", 3 without classes from test.parquet to evaluate on" in line(tmp_path)
    parquet(tmp_path / "test.parquet", {"image": pictures(), "label": [0, 1, 0]}, ONE)
    with pytest.raises(
        UsageError, match=r"train.parquet has other columns of images and labels, or other classes, than"
    ):
        load(tmp_path)


def test_a_pattern_names_its_files(tmp_path):
    shards = FORMATS / "webdataset/digits-train-{000000..000002}.tar"
    assert len(load(shards, held_out=0)) == 18
    assert "from 3 tar files, which are evaluated on as well" in line(shards, held_out=0)
    with pytest.raises(UsageError, match=r"Missing .*train-000003.tar and 4 more, by config.data.path=.*000007..tar"):
        load(FORMATS / "webdataset/digits-train-{000000..000007}.tar")
    with pytest.raises(UsageError, match="is a pattern of 100,001 files or more; give at most 100,000"):
        load(tmp_path / "{0..99999999999999999999}.tar")


def test_a_folder_in_an_archive_is_a_path():
    assert len(load(FORMATS / "digits.zip/digits/train/zero", held_out=0)) == 6
    assert len(load(FORMATS / "digits.tar/digits/test", held_out=0)) == 6
    with pytest.raises(UsageError, match=r"No images in .*digits.zip/digits/dev"):
        load(FORMATS / "digits.zip/digits/dev")
    with pytest.raises(UsageError, match=r"edm.txt is no folder and no file of images"):
        load(FORMATS / "edm.txt")


def test_shards_may_have_the_same_names(tmp_path):
    for i in range(2):
        tar_of(tmp_path, {"0.png": png(i), "0.cls": b"%d" % i, "1.png": png(i + 2), "1.cls": b"2"})
        (tmp_path / "a.tar").rename(tmp_path / f"{i}.tar")
    source = load(tmp_path, held_out=0)
    assert source.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and source.labels.tolist() == [0, 1, 2, 2]
    with pytest.raises(UsageError, match=r"Cannot read .*1.tar/0.png"):
        edit = tmp_path / "1.tar"
        edit.write_bytes(edit.read_bytes().replace(b"\x89PNG", b"what", 1))
        load(tmp_path, held_out=0)


def test_pictures_in_a_folder_are_read_before_files_beside_them(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    shutil.copy(FORMATS / "edm.zip", tmp_path)
    assert line(tmp_path, held_out=0).endswith(
        "1 image without classes, which are evaluated on as well; left out: 1 .zip"
    )


def test_hidden_files_of_an_archive_are_left_out(tmp_path):
    zipped(tmp_path / "a.zip", "pets/cat/0.png", "pets/dog/1.png", "__MACOSX/pets/cat/._0.png", "pets/.DS_Store")
    assert line(tmp_path / "a.zip", held_out=0).endswith(
        "2 images in 2 classes (cat, dog) from a.zip, which are evaluated on as well; left out: 1 hidden"
    )


def test_the_program_says_how_a_container_was_read(tmp_path, capsys):
    values = {"dataset": "folder", "path": FORMATS / "parquet", "image_size": 8, "num_channels": 1}
    overrides = [f"--config.data.{key}={value}" for key, value in values.items()]
    config = f"--config={CONFIG}"
    assert main(["score_sde", "--mode=data", config, *overrides, f"--out={tmp_path / 'sheet.png'}"]) == 0
    output = capsys.readouterr().out
    assert "18 images in 3 classes (one, two, zero, by column label) from 3 parquet files, 6 from" in output
    assert "one 6, two 6, zero 6" in output and (tmp_path / "sheet.png").is_file()
