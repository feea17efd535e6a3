"""The user's own images: folders and arrays, and what is said of those that cannot be used."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from older_workdir import older
from PIL import Image

from score_sde import data
from score_sde.cli.main import main
from score_sde.data import held_out
from score_sde.data.decoding import cropped, decode, resize
from score_sde.data.directory import Directory
from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.training.run import train

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **options)


def load(path: Path, *, train: bool = True, size: int = 8, channels: int = 3, dataset: str = "folder", **options):
    return data.load(dataset, train=train, image_size=size, num_channels=channels, path=str(path), **options)


def test_images_of_mixed_sizes_and_formats_are_read_in_the_order_of_their_paths(tmp_path):
    wide, tall = picture(10, 30), picture(25, 12)
    save(tmp_path / "b.PNG", wide)
    save(tmp_path / "a" / "deep" / "tall.webp", tall, lossless=True)
    save(tmp_path / "c.jpeg", np.full((9, 9, 3), 128, np.uint8))
    save(tmp_path / ".hidden" / "x.png", wide)
    (tmp_path / "notes.txt").write_text("no image")
    source = load(tmp_path, held_out=0)
    assert (len(source), source.labels) == (3, None)
    np.testing.assert_array_equal(source.images[0], resize(tall[6:18], (8, 8)))
    np.testing.assert_array_equal(source.images[1], resize(wide[:, 10:20], (8, 8)))
    assert np.abs(source.images[2].astype(int) - 128).max() <= 1
    np.testing.assert_array_equal(load(tmp_path, train=False, held_out=0).images, source.images)


def test_folders_of_classes_are_labels(tmp_path):
    for name, n in (("zebra", 3), ("ant", 2)):
        for i in range(n):
            save(tmp_path / name / f"{i}.png", picture(8, 8))
    source = load(tmp_path, held_out=0)
    assert source.labels.tolist() == [0, 0, 1, 1, 1]
    assert source.class_names == ["ant", "zebra"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"class folder .*empty has no images"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["test", "validation", "val"])
def test_a_folder_says_its_splits(name, tmp_path):
    for split, classes in (("train", "abc"), (name, "ac")):
        for letter in classes:
            save(tmp_path / split / letter / "1.png", picture(8, 8))
    assert load(tmp_path).labels.tolist() == [0, 1, 2]
    assert load(tmp_path, train=False).labels.tolist() == [0, 2]
    save(tmp_path / name / "d" / "1.png", picture(8, 8))
    with pytest.raises(UsageError, match=r"class folder d that .*train has not"):
        load(tmp_path, train=False)


def test_held_out_images_stay_so_when_others_come():
    def split(names):
        return {
            train: [names[i] for i in held_out.side(names, 0.1, train=train, source="x")] for train in (True, False)
        }

    names = [f"{i}.png" for i in range(2000)]
    few, many = split(names[::2]), split(names)
    assert sorted(many[True] + many[False]) == sorted(names)
    assert set(few[False]) == set(many[False]) & set(names[::2])
    assert 150 < len(many[False]) < 250
    assert [len(part) for part in split(names[:2]).values()] == [1, 1]
    with pytest.raises(UsageError, match="has one image"):
        split(names[:1])


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    pixels = picture(8, 8)
    save(tmp_path / "a.png", pixels, exif=exif)
    np.testing.assert_array_equal(load(tmp_path, held_out=0).images[0], np.rot90(pixels, -1))


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format="png", **options)
    return file.getvalue()


def test_palettes_and_single_bits_are_looked_up():
    coloured = Image.fromarray(picture(6, 5)).quantize(30)
    np.testing.assert_array_equal(decode(encoded(coloured), channels=3), np.asarray(coloured.convert("RGB")))
    grey = picture(6, 5, 1)
    palette = Image.fromarray(grey[..., 0]).convert("P")
    np.testing.assert_array_equal(decode(encoded(palette), channels=1), grey)
    np.testing.assert_array_equal(decode(encoded(palette), channels=3), np.repeat(grey, 3, axis=-1))
    bits = picture(6, 5, 1) > 127
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(bits[..., 0])), channels=1), bits * np.uint8(255))
    opaque = encoded(coloured, transparency=b"\xff" * 30)
    np.testing.assert_array_equal(decode(opaque, channels=3), np.asarray(coloured.convert("RGB")))
    with pytest.raises(UsageError, match="transparency"):
        decode(encoded(coloured, transparency=3), channels=3)


GREY = picture(9, 9, 1)
ALPHA = np.dstack([picture(9, 9), np.where(np.arange(81).reshape(9, 9, 1) % 2, 255, 0).astype(np.uint8)])
DEEP = RNG.integers(0, 2**16, (9, 9)).astype(np.uint16)
OTHERS = {
    "greyscale of 8 bits": (Image.fromarray(GREY[..., 0]), np.repeat(GREY, 3, axis=-1)),
    "RGB with transparency": (Image.fromarray(ALPHA), np.where(ALPHA[..., 3:] > 0, ALPHA[..., :3], 255)),
    "greyscale of 16 bits": (Image.fromarray(DEEP), np.repeat(DEEP[..., None] >> 8, 3, axis=-1)),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("in_memory_gib", [8, 0])
def test_images_of_other_colours_are_refused_by_name_or_converted(kind, in_memory_gib, tmp_path):
    image, expected = OTHERS[kind]
    save(tmp_path / "a.png", picture(9, 9))
    image.save(tmp_path / "b.png")
    options = dict(size=9, held_out=0, in_memory_gib=in_memory_gib)
    for corrupt in ("refuse", "skip"):
        with pytest.raises(UsageError, match=rf"b\.png is {kind}.* set config.data.convert=True"):
            load(tmp_path, corrupt=corrupt, **options)
    found = load(tmp_path, convert=True, **options).take(np.array([1])).images[0]
    np.testing.assert_array_equal(found, expected)


def test_rgb_becomes_grey_by_its_luma():
    pixels = picture(6, 5)
    with pytest.raises(UsageError, match=r"3 channel.*or config.data.num_channels=3"):
        decode(encoded(Image.fromarray(pixels)), channels=1)
    found = decode(encoded(Image.fromarray(pixels)), channels=1, convert=True)
    assert np.abs(found[..., 0] - pixels @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.fixture
def damaged(tmp_path):
    """Six images; the second is no image, the fifth ends in the middle."""
    for i in range(6):
        save(tmp_path / f"{i}.png", np.full((40, 40, 3), 40 * i, np.uint8) ^ picture(40, 40) % 8)
    (tmp_path / "1.png").write_bytes(b"what")
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def levels(images: np.ndarray) -> list[int]:
    return np.round(images.mean(axis=(1, 2, 3)) / 40).astype(int).tolist()


def test_corrupt_images_are_refused_by_name_or_left_out(damaged, capsys):
    with pytest.raises(UsageError, match=r"Cannot read .*1\.png \(none of PNG, JPEG, .*\); remove or replace it"):
        load(damaged, held_out=0)
    assert levels(load(damaged, held_out=0, corrupt="skip").images) == [0, 2, 3, 5]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "2 of 6 images" in error and "1.png" in error and "4.png" in error
    for name in ("0", "2", "3", "5"):
        (damaged / f"{name}.png").write_bytes(b"")
    with pytest.raises(UsageError, match="None of the 6 images"):
        load(damaged, held_out=0, corrupt="skip")


def test_on_disk_headers_are_checked_before_and_the_next_image_takes_the_place_of_others(damaged, capsys):
    with pytest.raises(UsageError, match=r"Cannot read .*1\.png"):
        load(damaged, held_out=0, in_memory_gib=0)
    source = load(damaged, held_out=0, in_memory_gib=0, corrupt="skip")
    assert "1 of 6 images" in capsys.readouterr().err
    assert len(source) == 5
    for _ in range(2):
        assert levels(source.take(np.array([0, 1, 2, 3, 4, 3])).images) == [0, 2, 3, 5, 5, 5]
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "4.png" in error and "the next one takes its place" in error


def test_sources_in_memory_and_on_disk_are_the_same(tmp_path):
    for i in range(30):
        save(tmp_path / "xyz"[i % 3] / f"{i}.png", picture(*RNG.integers(8, 20, 2)))
    memory, disk = (load(tmp_path, in_memory_gib=gib, num_workers=3) for gib in (8, 0))
    assert type(memory) is data.InMemory and type(disk) is data.OnDisk
    assert len(memory) == len(disk) < 30
    np.testing.assert_array_equal(memory.labels, disk.labels)
    for (_, one), (_, other), _ in zip(
        data.batches(memory, 7, seed=1), data.batches(disk, 7, seed=1), range(9), strict=False
    ):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_digests_are_of_the_images(tmp_path):
    for i in range(4):
        save(tmp_path / "a" / f"{i}.png", picture(8, 8))
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def digest(name, **options):
        return load(tmp_path / name, held_out=0, **options).digest()

    before = {gib: digest("a", in_memory_gib=gib) for gib in (0, 8)}
    assert {gib: digest("b", in_memory_gib=gib) for gib in (0, 8)} == before
    assert before[0] != before[8] and digest("b", in_memory_gib=0, size=4) != before[0]
    save(tmp_path / "b" / "0.png", picture(8, 9))
    assert all(digest("b", in_memory_gib=gib) != before[gib] for gib in (0, 8))


@pytest.mark.parametrize("names", [("images", "labels"), ("arr_0", "arr_1")])
def test_arrays_are_read_from_npz_files(names, tmp_path):
    pixels, labels = picture(200, 12, 3 * 12).reshape(200, 12, 12, 3), np.arange(200)
    np.savez(tmp_path / "a.npz", **dict(zip(names, (pixels, labels), strict=True)))
    parts = [load(tmp_path / "a.npz", dataset="array", size=12, train=train) for train in (True, False)]
    assert 0 < len(parts[1]) < 50
    for part in parts:
        np.testing.assert_array_equal(part.images, pixels[part.labels])
    assert sorted(np.concatenate([part.labels for part in parts])) == list(range(200))


def test_an_npy_is_mapped(tmp_path):
    pixels = picture(10, 6, 6)  # ten grey images
    np.save(tmp_path / "a.npy", pixels)
    source = load(tmp_path / "a.npy", dataset="array", size=6, channels=1, held_out=0, in_memory_gib=0)
    np.testing.assert_array_equal(source.take(np.arange(10)).images[..., 0], pixels)
    assert isinstance(source.pictures.read([3])[0].content, np.memmap)
    converted = load(tmp_path / "a.npy", dataset="array", size=3, held_out=0, convert=True)
    np.testing.assert_array_equal(converted.images[3, ..., 1], resize(pixels[3, ..., None], (3, 3))[..., 0])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((3, 4, 4, 3))}, "float64 of shape"),
        ({"images": np.zeros((3, 4), np.uint8)}, "images are uint8 of shape"),
        ({"pictures": np.zeros((3, 4, 4, 3), np.uint8)}, "no array 'images' or 'arr_0', but pictures"),
        ({"images": np.array([None] * 3)}, "Cannot read"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": np.zeros(2, int)}, "one for each of the 3 images"),
        ({"images": np.zeros((3, 4, 4, 1), np.uint8)}, "greyscale of 8 bits"),
        ({"images": np.zeros((3, 4, 4, 5), np.uint8)}, "in other colours"),
        (b"PK what", "Cannot read"),
    ],
)
def test_arrays_that_are_no_images_are_one_sentence(arrays, words, tmp_path):
    if isinstance(arrays, bytes):
        (tmp_path / "a.npz").write_bytes(arrays)
    else:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=words):
        load(tmp_path / "a.npz", dataset="array", size=4)


def test_a_loop_of_links_is_walked_once(tmp_path):
    save(tmp_path / "a" / "1.png", picture(8, 8))
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert [entry.path for entry in Directory(tmp_path).listing.images] == ["a/1.png"]
    (tmp_path / "a").rename(tmp_path / "train")
    (tmp_path / "valid").symlink_to("train")  # as a link of one split to the other is not
    assert [len(load(tmp_path, train=train)) for train in (True, False)] == [1, 1]


def test_an_image_is_square_after_its_crop():
    assert cropped(picture(9, 4), (8, 8)).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.data.dataset=folder"], "needs config.data.path=DIR"),
        (["--config.data.dataset=array"], "needs config.data.path=FILE"),
        (["--config.data.dataset=folder", "--config.data.path={}/none"], "is no folder"),
        (["--config.data.dataset=array", "--config.data.path={}/none.npz"], "is no .npy or .npz file"),
        (["--config.data.dataset=folder", "--config.data.path={}/empty"], "No images in"),
        (["--config.data.dataset=folder", "--config.data.num_channels=2"], "num_channels=2 is neither"),
        (["--config.data.dataset=foldr"], "did you mean 'folder'"),
        (["--config.data.held_out=1"], "data.held_out=1.0 must be in [0, 1)"),
        (["--config.data.corrupt=ignore"], "choose from: refuse, skip"),
        (["--config.data.num_workers=-1"], "data.num_workers=-1 must not be negative"),
        (["--config.data.in_memory_gib=nan"], "data.in_memory_gib=nan must not be negative"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(arguments, words, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    config = f"--config={ROOT / 'configs/vp/digits_ddpmpp_continuous.py'}"
    arguments = [argument.format(tmp_path) for argument in arguments]
    assert main(["score_sde", config, f"--workdir={tmp_path / 'run'}", "--mode=train", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_folder_of_two_images_trains_from_disk(tiny_config, tmp_path, capsys):
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png", picture(8 + i, 10, 1))
    config = tiny_config()
    config.training.update(n_iters=2, snapshot_sampling=False)
    config.data.update(dataset="folder", path=str(tmp_path / "images"), in_memory_gib=0.0)
    train(config, tmp_path / "run")
    said = f"  data         {tmp_path / 'images'}: 1 image without classes, 1 held out to evaluate on"
    assert [line for line in capsys.readouterr().err.splitlines() if "classes" in line] == [said]
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
    config.data.update(num_workers=2, in_memory_gib=1.0, corrupt="skip", labels="none")
    train(config, tmp_path / "run")


def test_a_workdir_of_before_these_keys_goes_on(tiny_config, tmp_path):
    config = tiny_config().to_dict()
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    workdir.write(tmp_path, "config.json", config | {"data": older(config)["data"]})
    workdir.check_same_run(tmp_path, config)
    config["data"]["convert"] = True
    with pytest.raises(UsageError, match=r"was trained with data\.convert=False"):
        workdir.check_same_run(tmp_path, config)


def test_the_program_says_what_a_config_trains_on(tmp_path, capsys):
    for name, n in (("ant", 4), ("bee", 3)):
        for i in range(n):
            save(tmp_path / "images" / name / f"{i}.png", picture(10, 8))
    config = f"--config={ROOT / 'configs/vp/cifar10_ddpmpp_continuous.py'}"
    values = {"dataset": "folder", "path": tmp_path / "images", "held_out": 0, "in_memory_gib": 0, "image_size": 16}
    overrides = [f"--config.data.{key}={value}" for key, value in values.items()]
    assert main(["score_sde", "--mode=data", config, *overrides, f"--out={tmp_path / 'sheet.png'}"]) == 0
    output = capsys.readouterr().out
    assert output.count("7 images, 16x16x3") == 2 and "decoded from disk" in output
    assert "2 classes of 3 to 4 images" in output and "ant 4, bee 3" in output
    assert load(tmp_path / "images", held_out=0, in_memory_gib=0, size=16).digest() in output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * (2 + 3 * 18), 4 * (2 + 3 * 18))
    (tmp_path / "file").write_text("")
    assert main(["score_sde", "--mode=data", config, *overrides, f"--out={tmp_path / 'file' / 'sheet.png'}"]) == 2
    assert "choose another --out" in capsys.readouterr().err
