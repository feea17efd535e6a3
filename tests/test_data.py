import io
import sys
import threading
import time
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from score_sde import data
from score_sde.data import records
from score_sde.data.decoding import resize
from score_sde.errors import UsageError

SOURCE = data.InMemory(np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2, 1), np.arange(10))


def test_the_digits_are_scikit_learns(data_dir):
    from sklearn.datasets import load_digits

    train, test = (data.load("digits", train=t, image_size=8, num_channels=1, data_dir=data_dir) for t in (True, False))
    assert (len(train), len(test)) == (1498, 299)
    expected = sorted(np.round(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images)
    assert sorted(image.tobytes() for image in np.concatenate([train.images, test.images])) == expected
    assert np.bincount(test.labels).min() > 15
    assert "tensorflow" not in sys.modules


def test_batches_are_a_function_of_seed_and_step():
    def stream(start):
        return data.batches(SOURCE, 4, seed=1, start_step=start)

    whole = [next(s) for s in [stream(0)] for _ in range(7)]
    for step, resumed in zip(range(3, 7), stream(3), strict=False):
        assert resumed[0] == whole[step][0] == step
        np.testing.assert_array_equal(resumed[1].images, whole[step][1].images)
    other = next(data.batches(SOURCE, 4, seed=2))
    assert not np.array_equal(other[1].labels, whole[0][1].labels)


def test_every_epoch_holds_every_example_once_in_another_order():
    indices = np.concatenate([data.batch_indices(10, 4, seed=0, step=step) for step in range(5)])
    first, second = indices[:10], indices[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()


def test_padded_chunks_cover_a_split_once():
    chunks = list(data.padded_chunks(10, 4))
    assert [len(indices) for indices, _ in chunks] == [4, 4, 4]
    assert np.concatenate([indices[:valid] for indices, valid in chunks]).tolist() == list(range(10))


def prepare(directory, name: str, shape=(32, 32, 3), splits=(("train", 40), ("test", 20)), labels: bool = True) -> None:
    """Random images as a data set of that name, "builder" or "builder/config", as if prepared elsewhere."""
    stock, _, config = name.partition("/")
    configs = [tfds.core.BuilderConfig(name=config, version="1.0.0")] if config else []

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = stock
        VERSION = tfds.core.Version("3.0.2")
        BUILDER_CONFIGS = configs

        def _info(self):
            features = {"image": tfds.features.Image(shape=shape)}
            if labels:
                features["label"] = tfds.features.ClassLabel(num_classes=10)
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(n) for split, n in splits}

        def _generate_examples(self, n):
            rng = np.random.default_rng(n)
            for i in range(n):
                png = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(png, format="png")
                png.seek(0)
                yield i, {"image": png} | ({"label": i % 10} if labels else {})

    options = {"config": config} if config else {}
    Prepared(data_dir=str(directory), file_format="array_record", **options).download_and_prepare()


def prepare_cifar10(directory) -> None:
    prepare(directory, "cifar10")


def test_a_stock_data_set_prepared_as_array_record_is_read(tmp_path):
    prepare_cifar10(tmp_path)
    train = data.load("CIFAR10", train=True, image_size=32, num_channels=3, data_dir=str(tmp_path))
    assert train.images.shape == (40, 32, 32, 3)
    rng = np.random.default_rng(40)
    expected = sorted(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8).tobytes() for _ in range(40))
    assert sorted(image.tobytes() for image in train.images) == expected
    test = data.load("cifar10", train=False, image_size=16, num_channels=3, data_dir=str(tmp_path))
    assert test.images.shape == (20, 16, 16, 3)
    with pytest.raises(UsageError, match="3 channel"):
        data.load("cifar10", train=False, image_size=32, num_channels=1, data_dir=str(tmp_path))


def test_resizing_averages_and_keeps_constants():
    assert np.unique(resize(np.full((32, 32, 3), 77, np.uint8), (12, 12))).tolist() == [77]
    checks = np.indices((32, 32)).sum(0) % 2 * 200
    halved = resize(checks.astype(np.uint8)[..., None], (16, 16))
    assert abs(int(halved[4:-4, 4:-4].mean()) - 100) <= 1
    assert np.ptp(halved[4:-4, 4:-4]) <= 2  # antialiased


def test_the_papers_data_sets_are_cropped_as_in_the_paper(tmp_path):
    """CelebA: 140x140 from the centre; LSUN: the largest square; CelebA-HQ and FFHQ: as they are."""
    prepare(tmp_path, "celeb_a", (218, 178, 3), (("train", 2), ("validation", 1)), labels=False)
    prepare(tmp_path, "lsun/bedroom", (20, 30, 3), (("train", 2), ("validation", 1)), labels=False)
    prepare(tmp_path, "ffhq/256", (256, 256, 3), (("train", 1),), labels=False)

    def images(name, size, train=True):
        return data.load(name, train=train, image_size=size, num_channels=3, data_dir=str(tmp_path)).images

    def originals(shape, n):
        rng = np.random.default_rng(n)
        return [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(n)]

    def expected(pictures, filter, size):
        return sorted(np.asarray(Image.fromarray(p).resize((size, size), filter)).tobytes() for p in pictures)

    celeba = [picture[39:179, 19:159] for picture in originals((218, 178, 3), 2)]
    assert sorted(i.tobytes() for i in images("CELEBA", 64)) == expected(celeba, Image.Resampling.BILINEAR, 64)
    lsun = [picture[:, 5:25] for picture in originals((20, 30, 3), 2)]
    assert sorted(i.tobytes() for i in images("lsun/bedroom", 10)) == expected(lsun, Image.Resampling.BICUBIC, 10)
    assert images("lsun/bedroom", 10, train=False).shape == (1, 10, 10, 3)
    np.testing.assert_array_equal(images("ffhq_256", 256, train=False), originals((256, 256, 3), 1))


def test_a_missing_data_set_is_one_sentence(tmp_path, monkeypatch, preparers):
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        data.dataset("cifar")
    with pytest.raises(UsageError, match="No prepared 'cifar10'"):
        data.load("cifar10", train=True, image_size=32, num_channels=3, data_dir=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="a builder of your own named 'ffhq/1024'"):
        data.load("ffhq_1024", train=True, image_size=1024, num_channels=3, data_dir=str(tmp_path / "none"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from_environment"))
    with pytest.raises(UsageError, match="from_environment"):
        data.load("cifar10", train=True, image_size=32, num_channels=3)


def of(directory, name="cifar10", *, train=True, size=32, channels=3, **options) -> data.Source:
    return data.load(name, train=train, image_size=size, num_channels=channels, data_dir=str(directory), **options)


def test_a_split_is_the_same_in_memory_and_on_disk(tmp_path):
    prepare_cifar10(tmp_path)
    memory, disk = (of(tmp_path, size=16, in_memory_gib=gib) for gib in (1, 0))
    assert (type(memory), type(disk)) == (data.InMemory, data.OnDisk)
    np.testing.assert_array_equal(memory.labels, disk.labels)
    for (_, one), (_, other), _ in zip(
        data.batches(memory, 16, seed=3), data.batches(disk, 16, seed=3), range(6), strict=False
    ):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert disk.digest() == of(tmp_path, size=16, in_memory_gib=0).digest() != of(tmp_path, in_memory_gib=0).digest()


def test_any_prepared_data_set_with_images_is_read(tmp_path):
    """Split test, else validation, else a part of train that is held out."""
    prepare(tmp_path, "caltech_birds2011", (20, 30, 3), (("train", 6), ("test", 3), ("validation", 2)))
    prepare(tmp_path, "my_pictures", (9, 9, 3), (("train", 6), ("validation", 2)))
    prepare(tmp_path, "cifar100", (9, 9, 3), (("train", 200),))  # close to a name of the table
    lengths = {
        name: [len(of(tmp_path, name, train=train, size=8)) for train in (True, False)]
        for name in ("caltech_birds2011", "my_pictures", "cifar100")
    }
    assert lengths["caltech_birds2011"] == [6, 3] and lengths["my_pictures"] == [6, 2]
    assert sum(lengths["cifar100"]) == 200 and 5 < lengths["cifar100"][1] < 40
    parts = [of(tmp_path, "cifar100", train=train, size=9).images for train in (True, False)]
    assert len({image.tobytes() for part in parts for image in part}) == 200
    assert len(of(tmp_path, "cifar100", train=False, size=8, held_out=0)) == 200

    def said(name, **options):
        return data.summary(name, *(of(tmp_path, name, train=train, size=8, **options) for train in (True, False)))

    assert "6 images in 10 classes" in said("caltech_birds2011")
    assert said("caltech_birds2011").endswith(
        ") from split train, 3 from split test to evaluate on; left out: 2 in split validation"
    )
    assert said("cifar100", held_out=0).endswith(") from split train, which are evaluated on as well")


def test_what_cannot_be_read_without_tensorflow_is_refused(tmp_path):
    prepare_cifar10(tmp_path)
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UsageError, match=r"prepared as tfrecord, which needs TensorFlow; .* in another folder"):
        of(tmp_path)
    (features,) = tmp_path.glob("cifar10/*/features.json")
    features.write_text("{")
    with pytest.raises(UsageError, match=r"Cannot read the 'cifar10' in .*; remove"):
        of(tmp_path)


def test_a_split_that_is_not_there_is_named(tmp_path):
    prepare(tmp_path, "cifar10", splits=(("train", 4),))
    with pytest.raises(UsageError, match="no images in a split test, only train"):
        of(tmp_path, train=False)


@pytest.fixture
def preparers(monkeypatch):
    """In the place of those there are: one for MNIST."""
    calls = []

    def make(name, directory, archives):
        calls.append((name, directory, archives))
        if archives:
            raise UsageError("a file is missing; put it there.")
        prepare(directory, name, (8, 8, 3))
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=str(directory))

    fake = types.SimpleNamespace(PREPARERS={"mnist": None}, prepare=make, licence=lambda name: "none")
    monkeypatch.setattr(records, "preparers", fake)
    return calls


def test_a_missing_data_set_is_prepared_where_that_is_possible(preparers, tmp_path):
    with pytest.raises(UsageError, match=r"No prepared 'mnist' in .*: a file is missing; put it there\."):
        of(tmp_path, "mnist", size=8, archives=str(tmp_path / "files"))
    killed = tmp_path / "mnist" / "incomplete.X_3.0.2"
    killed.mkdir(parents=True)
    (killed / "features.json").write_text("{}")
    assert len(of(tmp_path, "mnist", size=8)) == 40
    assert len(of(tmp_path, "mnist", train=False, size=8)) == 20
    assert preparers == [("mnist", tmp_path, tmp_path / "files"), ("mnist", tmp_path, None)]


def test_images_of_a_data_set_that_cannot_be_read_can_be_left_out(tmp_path, monkeypatch, capsys):
    prepare_cifar10(tmp_path)
    whole = of(tmp_path)
    read = records.Records.read

    def damaged(self, indices):
        return [
            s._replace(content=b"") if i in (3, 4) else s for i, s in zip(indices, read(self, indices), strict=True)
        ]

    monkeypatch.setattr(records.Records, "read", damaged)
    with pytest.raises(UsageError, match="cifar10's image number 3 of split train"):
        of(tmp_path)
    kept = [i for i in range(40) if i not in (3, 4)]
    skipping = of(tmp_path, corrupt="skip")
    np.testing.assert_array_equal(skipping.images, whole.images[kept])
    np.testing.assert_array_equal(skipping.labels, whole.labels[kept])
    disk = of(tmp_path, corrupt="skip", in_memory_gib=0)
    np.testing.assert_array_equal(disk.take(np.arange(6)).images, whole.images[[0, 1, 2, 5, 5, 5]])
    np.testing.assert_array_equal(disk.take(np.arange(6)).labels, whole.labels[[0, 1, 2, 5, 5, 5]])
    assert "2 of 40 images" in capsys.readouterr().err


def test_of_runs_that_start_together_one_prepares_the_data_set(tmp_path, monkeypatch):
    under_way, most = [], []

    def prepare(name, *_):
        under_way.append(name)
        most.append(len(under_way))
        time.sleep(0.1)
        under_way.remove(name)

    monkeypatch.setattr(records, "_prepare_ours", prepare)
    threads = [threading.Thread(target=records.find, args=("digits", str(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_the_extent_of_a_set_is_its_largest_distance(monkeypatch):
    """All of the random images are nearer to each other than the two that were put among them."""
    monkeypatch.setattr(sys.modules["score_sde.data.extent"], "BLOCK", 7)
    pixels = np.random.default_rng(0).integers(100, 150, (30, 4, 4, 3)).astype(np.uint8)
    pixels[5], pixels[23] = 10, 210
    assert data.extent(pixels, 2.0) == (pytest.approx(2 * 200 / 255 * np.sqrt(48), rel=1e-12), (5, 23), 30 * 29 // 2)
    with pytest.raises(UsageError, match="two or more"):
        data.extent(pixels[:1])
