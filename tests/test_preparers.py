"""Tiny archives of each format, made here, go through `prepare` and come back image by image."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import json
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from score_sde.data import preparers, readers
from score_sde.data.preparers import PREPARERS, licence, prepare
from score_sde.data.tfrecords import masked_crc32c
from score_sde.errors import UsageError
from score_sde.io import downloads

RNG = np.random.default_rng(0)
RECORDED = preparers.recorded


def pixels(*shape) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def encoded(image: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=format)
    return file.getvalue()


def write_tar(path, members, mode="w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path, members) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tfrecords(path, images) -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    with path.open("wb") as file:
        for image in images:
            example = tf_example_pb2.Example()
            chw = image.transpose(2, 0, 1)
            example.features.feature["shape"].int64_list.value.extend(chw.shape)
            example.features.feature["data"].bytes_list.value.append(chw.tobytes())
            record, length = example.SerializeToString(), struct.pack("<Q", len(example.SerializeToString()))
            file.write(b"".join((length, masked_crc32c(length), record, masked_crc32c(record))))


# What makes the archives of a data set, and says what is in them: split -> [(pixels or encoded bytes, features)].


def make_cifar10(folder):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {f"data_batch_{i}.bin": "train" for i in (3, 1, 2, 5, 4)} | {"test_batch.bin": "test"}
    contents = {name: [(pixels(32, 32, 3), int(RNG.integers(10))) for _ in range(3)] for name in batches}

    def rows(examples):
        return b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in examples)

    members = {f"cifar-10-batches-bin/{name}": rows(examples) for name, examples in contents.items()}
    members["cifar-10-batches-bin/batches.meta.txt"] = ("\n".join(names) + "\n\n").encode()
    write_tar(folder / "cifar-10-binary.tar.gz", members, "w:gz")
    expected = {"train": [], "test": []}
    for name in sorted(batches):
        split = expected[batches[name]]
        for image, label in contents[name]:
            split.append((image, {"label": label, "id": f"{batches[name]}_{len(split):05d}".encode()}))
    return expected


def make_mnist(folder):
    expected = {}
    for split, stem, n in (("train", "train", 7), ("test", "t10k", 4)):
        images, labels = pixels(n, 28, 28, 1), RNG.integers(0, 10, n).astype(np.uint8)
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
        expected[split] = [(image, {"label": int(label)}) for image, label in zip(images, labels, strict=True)]
    return expected


def make_svhn(folder):
    from scipy.io import savemat

    expected = {}
    for split in ("train", "test", "extra"):
        images, labels = pixels(5, 32, 32, 3), np.array([[10], [1], [9], [10], [3]], np.uint8)
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels})
        expected[split] = [
            (image, {"label": int(label) % 10, "id": f"{split}_{i:06d}".encode()})
            for i, (image, (label,)) in enumerate(zip(images, labels, strict=True))
        ]
    return expected


def make_celeb_a(folder):
    stock = tfds.builder_cls("celeb_a")
    module = sys.modules[stock.__module__]
    names = [f"{i:06d}.jpg" for i in range(1, 7)]
    images = {name: encoded(pixels(218, 178, 3), "jpeg") for name in names}
    write_zip(folder / "img_align_celeba.zip", {f"img_align_celeba/{name}": jpeg for name, jpeg in images.items()})
    attributes = {name: RNG.choice([-1, 1], len(module.ATTR_HEADINGS)) for name in names}
    landmarks = {name: RNG.integers(0, 200, len(module.LANDMARK_HEADINGS)) for name in names}
    splits = dict(zip(names, (2, 0, 1, 0, 0, 2), strict=True))

    def table(file, rows, headings=None):
        head = [] if headings is None else [str(len(rows)), " ".join(headings) + " "]
        lines = [f"{name}  {' '.join(map(str, np.atleast_1d(values)))}" for name, values in rows.items()]
        (folder / file).write_text("\n".join([*head, *lines]) + "\n")

    table("list_eval_partition.txt", splits)
    table("list_attr_celeba.txt", attributes, module.ATTR_HEADINGS)
    table("list_landmarks_align_celeba.txt", landmarks, module.LANDMARK_HEADINGS)
    table("identity_CelebA.txt", {name: i * 11 for i, name in enumerate(names)})
    expected = {"train": [], "validation": [], "test": []}
    for i, name in enumerate(names):
        features = {
            "attributes": dict(zip(module.ATTR_HEADINGS, (attributes[name] > 0).tolist(), strict=True)),
            "landmarks": dict(zip(module.LANDMARK_HEADINGS, landmarks[name].tolist(), strict=True)),
            "identity": {"Identity_No": i * 11},
        }
        expected[list(expected)[splits[name]]].append((images[name], features))
    return expected


class StandIn:
    """Reads what `make_lsun` writes where there is no LMDB: names and contents in turn, each after its length."""

    def __init__(self, folder, *, readonly, lock):
        self.file = (Path(folder) / "data.mdb").open("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def begin(self):
        return contextlib.nullcontext(self)

    def cursor(self):
        while length := self.file.read(4):
            key = self.file.read(struct.unpack("<I", length)[0])
            yield key, self.file.read(struct.unpack("<I", self.file.read(4))[0])


SCENE = {"train": "church_outdoor_train_lmdb", "validation": "church_outdoor_val_lmdb"}


def make_lsun(folder, lmdb=None, stems=SCENE):
    expected = {}
    for n, (split, stem) in enumerate(stems.items(), start=2):
        images = {f"{i:040x}".encode(): encoded(pixels(20, 30, 3), "webp") for i in RNG.permutation(1000)[:n]}
        if lmdb is None:
            content = b"".join(struct.pack("<I", len(c)) + c for item in images.items() for c in item)
        else:
            with (
                lmdb.open(str(folder / "lmdb" / split), map_size=2**20) as environment,
                environment.begin(write=True) as t,
            ):
                for key, image in images.items():
                    t.put(key, image)
            content = (folder / "lmdb" / split / "data.mdb").read_bytes()
        write_zip(folder / f"{stem}.zip", {f"{stem}/data.mdb": content, f"{stem}/lock.mdb": b"\0" * 64})
        expected[split] = [(image, {"id": key}) for key, image in images.items()]
    return expected


def make_downsampled_imagenet(folder):
    expected = {}
    for split, stem, n in (("train", "train", 6), ("validation", "valid", 3)):
        images = [encoded(pixels(32, 32, 3), "png") for _ in range(n)]
        members = {f"./{stem}_32x32/{i:07d}.png": image for i, image in enumerate(images)}
        hidden = {f"./{stem}_32x32/._0.png": b"macOS", "../../outside.png": b"no path", "/outside.png": b"nor this"}
        write_tar(folder / f"{stem}_32x32.tar", hidden | members)
        expected[split] = [(image, {}) for image in images]
    return expected


def make_imagenet_resized(folder, size=32, parts=("train", "val")):
    expected = {"train": [], "validation": []}
    for part in parts:
        members = {}
        for i in range(2):
            images, labels = pixels(3, size, size, 3), RNG.integers(1, 1001, 3)
            file = io.BytesIO()
            np.savez(file, data=images.transpose(0, 3, 1, 2).reshape(3, -1), labels=labels, mean=np.zeros(3))
            members[f"{part}_data_batch_{i}.npz"] = file.getvalue()
            examples = [(image, {"label": int(label) - 1}) for image, label in zip(images, labels, strict=True)]
            expected["train" if part.startswith("train") else "validation"] += examples
        write_zip(folder / f"Imagenet{size}_{part}_npz.zip", members)
    return expected


def make_celeb_a_hq(folder):
    images = {f"{i:05d}.png": encoded(pixels(256, 256, 3), "png") for i in range(2)}
    write_tar(folder / "data256x256.tar", images)
    return {"train": [(image, {"image/filename": name.encode()}) for name, image in images.items()]}


def make_celeb_a_hq_records(folder):
    images = pixels(2, 256, 256, 3)
    write_tfrecords(folder / "celebahq-r08.tfrecords", images)
    names = (f"celebahq-r08.tfrecords/{i:05d}".encode() for i in range(2))
    return {"train": [(image, {"image/filename": name}) for image, name in zip(images, names, strict=True)]}


def make_ffhq(folder):
    images = pixels(2, 256, 256, 3)
    write_tfrecords(folder / "ffhq-r08.tfrecords", images)
    return {"train": [(image, {}) for image in images]}


MAKERS = {
    "cifar10": make_cifar10,
    "mnist": make_mnist,
    "fashion_mnist": make_mnist,
    "svhn_cropped": make_svhn,
    "celeb_a": make_celeb_a,
    "lsun/church_outdoor": make_lsun,
    "lsun/cat": functools.partial(make_lsun, stems={"train": "cat"}),
    "downsampled_imagenet/32x32": make_downsampled_imagenet,
    "imagenet_resized/32x32": make_imagenet_resized,
    "imagenet_resized/64x64": functools.partial(
        make_imagenet_resized, size=64, parts=("train_part1", "train_part2", "val")
    ),
    "celeb_a_hq/256": make_celeb_a_hq,
    "ffhq/256": make_ffhq,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of archives that are the recorded ones, as far as their sums go."""
    folder = tmp_path / "archives"
    folder.mkdir()

    def recorded(builder):
        found = {}
        for name, archive in RECORDED(builder).items():
            content = (folder / name).read_bytes() if (folder / name).exists() else b""
            found[name] = archive._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        return found

    monkeypatch.setattr(preparers, "recorded", recorded)
    monkeypatch.setattr(preparers, "IMAGES", {"celeb_a_hq": 2, "ffhq": 2})
    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *_, **__: pytest.fail("a download"))
    return folder


def contents(builder, split):
    """What a split holds, in an order of its own: images as bytes in PNG, JPEG or WebP, and features."""
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return [(example.pop("image"), example) for example in source]


def assert_holds(builder, expected) -> None:
    assert set(builder.info.splits) == set(expected)
    for split, examples in expected.items():
        found = contents(builder, split)
        assert len(found) == len(examples)
        if isinstance(examples[0][0], np.ndarray):
            for image, _ in found:
                assert image.startswith(b"\x89PNG")
            found = [(np.asarray(Image.open(io.BytesIO(image))).tobytes(), features) for image, features in found]
            examples = [(image.tobytes(), features) for image, features in examples]
        assert sorted(found, key=lambda e: e[0]) == sorted(examples, key=lambda e: e[0])


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_in_the_archives_is_what_is_read(name, folder, tmp_path, monkeypatch):
    expected = MAKERS[name](folder)
    monkeypatch.setattr(readers, "lmdb", lambda: types.SimpleNamespace(open=StandIn))
    builder = prepare(name, tmp_path / "data", folder)
    assert_holds(builder, expected)
    stock, _, config = name.partition("/")
    if stock != "ffhq":
        stock = tfds.builder_cls(stock)(config=config or None, data_dir=str(tmp_path / "none"))
        assert builder.info.full_name == stock.info.full_name
        assert str(builder.info.features) == str(stock.info.features)
        assert builder.info.citation == stock.info.citation
    assert builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD
    shutil.rmtree(folder)
    assert_holds(prepare(name, tmp_path / "data", folder), expected)  # needs the archives no more
    assert "tensorflow" not in sys.modules
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # no member of an archive became a path


def test_celeb_a_hq_is_read_from_its_authors_records(folder, tmp_path):
    expected = make_celeb_a_hq_records(folder)
    assert_holds(prepare("celeb_a_hq/256", tmp_path / "data", folder), expected)


def test_lsun_is_read_from_lmdb(folder, tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is an optional dependency")
    (folder / "lmdb").mkdir()
    expected = make_lsun(folder, lmdb)
    assert_holds(prepare("lsun/church_outdoor", tmp_path / "data", folder), expected)


def test_cifar10_has_the_names_of_its_classes(folder, tmp_path):
    make_cifar10(folder)
    assert prepare("cifar10", tmp_path / "data", folder).info.features["label"].names[8:] == ["ship", "truck"]


def test_many_images_become_png_in_their_order():
    images = pixels(100, 4, 4, 3)
    decoded = [np.asarray(Image.open(io.BytesIO(image))) for image in readers.pngs(iter(images))]
    np.testing.assert_array_equal(decoded, images)


def test_crc32c_is_that_of_rfc_3720():
    assert google_crc32c.value(bytes(32)) == 0x8A9136AA
    assert google_crc32c.value(bytes(range(32))) == 0x46DD794E
    assert google_crc32c.value(b"123456789") == 0xE3069283


# Archives and where they come from.


@pytest.fixture
def server(tmp_path):
    """An address, and the folder that is served there."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", served
        httpd.shutdown()
        thread.join()


def fetched(archive, folder):
    return downloads.fetch(archive, folder, "config.data.archives")


def archive_of(content: bytes, url: str, name: str = "some.zip") -> downloads.Download:
    return downloads.Download(name, f"{url}/{name}", len(content), hashlib.sha256(content).hexdigest())


def test_an_archive_that_is_not_there_is_downloaded(server, tmp_path, monkeypatch):
    url, served = server
    monkeypatch.setattr(downloads, "CHUNK", 1000)
    content = pixels(12_345).tobytes()
    (served / "some.zip").write_bytes(content)
    path = fetched(archive_of(content, url), tmp_path / "new" / "folder")
    assert path.read_bytes() == content
    (served / "some.zip").unlink()
    assert fetched(archive_of(content, url), path.parent) == path  # and then it is
    assert [path] == list(path.parent.iterdir())


def test_a_data_set_is_prepared_from_its_publisher(server, tmp_path, monkeypatch):
    url, served = server
    expected = make_mnist(served)
    known = {path.name: archive_of(path.read_bytes(), url, path.name) for path in served.iterdir()}
    monkeypatch.setattr(preparers, "recorded", lambda _: known)
    assert_holds(prepare("mnist", tmp_path / "data"), expected)
    assert {path.name for path in (tmp_path / "data" / "downloads" / "manual").iterdir()} == set(known)


def test_google_drive_is_asked_not_to_ask():
    url = "https://drive.google.com/uc?export=download&id=ABC"
    assert downloads._direct(url) == "https://drive.usercontent.google.com/download?confirm=t&export=download&id=ABC"
    assert downloads._direct("http://other.org/uc?id=ABC") == "http://other.org/uc?id=ABC"


@pytest.mark.parametrize("sent", [b"shorter", b"longer than it is", b"<a page!>"])
def test_what_is_sent_instead_of_an_archive_is_not_kept(sent, server, tmp_path):
    url, served = server
    (served / "some.zip").write_bytes(sent)
    with pytest.raises(
        UsageError, match=rf"The download from {url}/some.zip is not .* put some.zip in .*config.data.archives"
    ):
        fetched(archive_of(b"right one", url), tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_no_network_is_one_sentence(server, tmp_path):
    url, _ = server
    with pytest.raises(UsageError, match=rf"Cannot download {url}/some.zip .*404.*; put some.zip in {tmp_path}"):
        fetched(archive_of(b"right one", url), tmp_path / "new")
    with pytest.raises(UsageError, match=r"Cannot download http://127.0.0.1:1/some.zip .*config.data.archives"):
        fetched(archive_of(b"right one", "http://127.0.0.1:1"), tmp_path / "new")


def test_no_space_or_no_folder_is_one_sentence(tmp_path, monkeypatch):
    archive = archive_of(b"right one", "http://127.0.0.1:1")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"Cannot write .*some.zip .* free space, or put some.zip in"):
        fetched(archive, tmp_path / "file" / "below")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=5))
    with pytest.raises(UsageError, match="5 bytes are free, 9 needed"):
        fetched(archive, tmp_path)


def test_another_file_of_that_name_is_one_sentence_and_stays(tmp_path):
    archive, path = archive_of(b"right one", "http://127.0.0.1:1"), tmp_path / "some.zip"
    for wrong, fault in ((b"right", "5 bytes, not 9"), (b"wrong one", "SHA-256 is")):
        path.write_bytes(wrong)
        with pytest.raises(
            UsageError, match=f"{path} is not the file from .*{fault}.*remove it .*config.data.archives"
        ):
            fetched(archive, tmp_path)
        assert path.read_bytes() == wrong


# What else can go wrong.


def assert_not_found(name, directory) -> None:
    with pytest.raises(tfds.core.registered.DatasetNotFoundError):
        tfds.core.read_only_builder.builder_from_files(name, data_dir=str(directory))


def assert_nothing_prepared(name, directory) -> None:
    assert_not_found(name, directory)
    assert not list(directory.rglob("incomplete*"))


def test_names_that_are_none_are_one_sentence(tmp_path):
    for name, nearest in (("cifar", "cifar10"), ("celeb_a_hq/257", "celeb_a_hq/256"), ("cifar10/x", "cifar10")):
        with pytest.raises(UsageError, match=f"Unknown data set to prepare .*did you mean '{nearest}'"):
            prepare(name, tmp_path)
    with pytest.raises(UsageError, match="Unknown data set to prepare 'lsun'"):
        prepare("lsun", tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_downloaded_are_asked_for(tmp_path):
    with pytest.raises(UsageError, match=r"ffhq-r10.tfrecords is not in .*manual.*github.com/NVlabs.*data.archives"):
        prepare("ffhq/1024", tmp_path)
    with pytest.raises(UsageError, match=r"data256x256.tar or celebahq-r08.tfrecords is not in"):
        prepare("celeb_a_hq/256", tmp_path)
    assert_nothing_prepared("ffhq/1024", tmp_path)


def test_a_damaged_file_is_one_sentence_and_nothing_is_prepared(folder, tmp_path):
    make_ffhq(folder)
    path = folder / "ffhq-r08.tfrecords"
    whole = path.read_bytes()
    half = len(whole) // 2
    swapped = bytes([*whole[:3], whole[3] ^ 1, *whole[4:]])
    damaged = bytes([*whole[:-99], whole[-99] ^ 1, *whole[-98:]])  # a pixel
    write_tfrecords(path, [pixels(256, 128, 3)])
    other = path.read_bytes()
    for content, reason in (
        (whole[:half], "1 images, not 2"),
        (whole[: half + 7], "no TFRecord at byte"),
        (whole[:-9], "cut short"),
        (swapped, "no TFRecord at byte 0"),
        (b"<html>not here", "no TFRecord at byte 0"),
        (b"", "0 images, not 2"),
        (other, r"an image of shape \[3, 256, 128\]"),
        (damaged, "a damaged record at byte"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"Cannot read {path} .*{reason}.*undamaged"):
            prepare("ffhq/256", tmp_path / "data", folder)
        assert_nothing_prepared("ffhq/256", tmp_path / "data")


def test_archives_of_other_contents_are_one_sentence(folder, tmp_path):
    write_tar(folder / "data256x256.tar", {"0.png": encoded(pixels(8, 8, 3), "png")})
    with pytest.raises(UsageError, match=r"data256x256.tar .0.png is 8x8 pixels"):
        prepare("celeb_a_hq/256", tmp_path / "data", folder)
    make_mnist(folder)
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte.gz .*shorter"):
        prepare("mnist", tmp_path / "data", folder)
    make_imagenet_resized(folder)
    run = io.BytesIO()
    np.savez(run, data=np.array([print], object), labels=np.zeros(1))
    write_zip(folder / "Imagenet32_train_npz.zip", {"train_data_batch_1.npz": run.getvalue()})
    with pytest.raises(UsageError, match=r"Imagenet32_train_npz.zip .*allow_pickle"):
        prepare("imagenet_resized/32x32", tmp_path / "data", folder)
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_a_missing_lmdb_is_said_before_anything_is_downloaded(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UsageError, match="pip install lmdb"):
        prepare("lsun/bedroom", tmp_path / "data", folder)


def test_a_folder_that_cannot_be_written_is_one_sentence(folder, tmp_path):
    make_mnist(folder)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"Cannot prepare mnist in .*file .*config.data.data_dir"):
        prepare("mnist", tmp_path / "file", folder)


def test_a_full_disk_is_one_sentence(folder, tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("write() failed: No space left on device")

    make_mnist(folder)
    monkeypatch.setattr(tfds.core.file_adapters.ArrayRecordFileAdapter, "write_examples", full)
    with pytest.raises(UsageError, match=r"Cannot prepare mnist in .*No space left.*free space, or set config.data"):
        prepare("mnist", tmp_path / "data", folder)
    assert_nothing_prepared("mnist", tmp_path / "data")


def test_a_set_prepared_for_tensorflow_is_one_sentence(folder, tmp_path):
    make_mnist(folder)
    path = prepare("mnist", tmp_path / "data", folder).data_path / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(UsageError, match=r"mnist/3.0.1 holds mnist as tfrecord.*config.data.data_dir"):
        prepare("mnist", tmp_path / "data", folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from score_sde.data import preparers, readers

assert "tensorflow_datasets" not in sys.modules  # which takes seconds, is imported when it is needed

def stop(number, things):
    yield 0, next(iter(things))
    os.kill(os.getpid(), signal.SIGKILL)

readers.exactly = stop
preparers.prepare("ffhq/256", Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_leaves_nothing_that_is_taken_for_whole(folder, tmp_path):
    expected = make_ffhq(folder)
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "data", folder], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert list((tmp_path / "data").rglob("incomplete*"))
    assert_not_found("ffhq/256", tmp_path / "data")
    assert_holds(prepare("ffhq/256", tmp_path / "data", folder), expected)


@pytest.mark.parametrize("name", PREPARERS)
def test_every_data_set_says_its_terms_and_whom_to_cite(name):
    assert 40 < len(licence(name)) < 200
    assert licence(name).endswith(".") and "(20" in licence(name)


def test_every_data_set_of_the_paper_can_be_prepared():
    from score_sde.data import DATASETS

    ours = {e.builder.partition("/")[0] for e in DATASETS.values() if e.builder and ":" not in e.builder}
    assert ours <= set(PREPARERS)
