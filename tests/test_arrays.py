"""Arrays of images: other numbers than uint8, channels as the second axis, and messages on those that are neither."""

import re

import numpy as np
import pytest

from score_sde import data
from score_sde.config.keys import plain
from score_sde.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)


def load(path, *, train=True, **options):
    sizes = {"image_size": 6, "image_width": 5, "num_channels": 3} | options
    return data.load("array", train=train, path=str(path), **sizes)


def saved(tmp_path, array):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"  # a new one, because earlier ones are mapped
    np.save(path, array)
    return path


def followed(message, load, **options):
    """The split that is loaded when the advice of a message, config.data.KEY=VALUE, is followed word for word."""
    advice = re.findall(r"config\.data\.(\w+)=([^\s,;]+(?:,[-\d.e]+)?)", message)
    assert advice, message
    values = {key: {"True": True, "False": False}.get(text, text) for key, text in advice[:1]}
    if "array_range" in values:
        values["array_range"] = plain([float(number) for number in values["array_range"].rstrip(".,").split(",")])
    if "num_channels" in values:
        values["num_channels"] = int(values["num_channels"])
    return load(**options | values)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_numbers_on_the_levels_of_their_range_are_the_same_images(kind, tmp_path):
    floats = saved(tmp_path, (PIXELS / 127.5 - 1).astype(kind))
    source = load(floats, held_out=0, array_range=(-1, 1))
    np.testing.assert_array_equal(source.images, PIXELS)
    assert source.report.notes == (f"{np.dtype(kind)} from -1 to 1 as 256 levels",)
    on_disk = load(floats, held_out=0, array_range=(-1, 1), in_memory_gib=0)
    other = load(saved(tmp_path, PIXELS), held_out=0, in_memory_gib=0)
    assert on_disk.digest() == other.digest()


def test_other_numbers_are_rounded_to_the_nearest_level_and_the_summary_says_so(tmp_path):
    between = saved(tmp_path, (PIXELS + np.where(PIXELS < 255, 0.4, -0.3)) / 255)
    splits = [load(between, train=train, array_range=(0, 1)) for train in (True, False)]
    assert sorted(map(bytes, np.concatenate([split.images for split in splits]))) == sorted(map(bytes, PIXELS))
    assert data.summary("a.npy", *splits) == (
        f"a.npy: {len(splits[0])} images without classes, {len(splits[1])} held out to evaluate on; "
        "float64 from 0 to 1 as 256 levels, rounded by at most 0.40 of a level"
    )


def test_integers_and_truth_values_have_a_range_too(tmp_path):
    np.testing.assert_array_equal(
        load(saved(tmp_path, PIXELS.astype(int)), held_out=0, array_range=(0, 255)).images, PIXELS
    )
    black_and_white = load(saved(tmp_path, PIXELS > 99), held_out=0, array_range=(0, 1)).images
    np.testing.assert_array_equal(black_and_white, np.where(PIXELS > 99, 255, 0))


@pytest.mark.parametrize(
    ("array", "advised"),
    [
        (PIXELS / 255, (0, 1)),
        (PIXELS / 200 - 0.5, (-1, 1)),
        (PIXELS.astype(np.float32), (0, 255)),
        (PIXELS.astype(np.uint16) * 257, (0, 65535)),
        (PIXELS / np.float32(100) - 5, (-5.0, -2.450000047683716)),
        (np.full_like(PIXELS, 7, np.int64) * 1000 - 9000, (-2000, 0.0)),
    ],
)
def test_numbers_without_a_range_are_told_one_that_holds_them(array, advised, tmp_path):
    path = saved(tmp_path, array)
    with pytest.raises(
        UsageError, match=f"{array.dtype} of shape .* from .* to .*set config.data.array_range="
    ) as first:
        load(path)
    with pytest.raises(UsageError, match=r"numbers outside of data\.array_range") as second:
        load(path, array_range=(-0.001, 0.001))
    for error in (first, second):
        source = followed(str(error.value), lambda **options: load(path, **options), held_out=0)
        low, high = advised
        np.testing.assert_array_equal(source.images, np.rint((array.astype(float) - low) * 255 / (high - low)))


def test_numbers_outside_of_the_range_are_counted_and_so_are_those_that_are_none(tmp_path):
    array = PIXELS / 255.0
    array[0, 0, 0] = 1.01
    with pytest.raises(UsageError, match=r"has 3 numbers outside of data.array_range=\(0, 1\): .* to 1.01"):
        load(saved(tmp_path, array), array_range=(0, 1))
    array[1, 2, 3] = np.nan, np.inf, 0.5
    for limits in (None, (0, 1)):
        with pytest.raises(UsageError, match="has 2 numbers that are NaN or infinite"):
            load(saved(tmp_path, array), array_range=limits)


@pytest.mark.parametrize("limits", [(1, 0), (0,), (0, 1, 2), (0, float("inf")), (float("nan"), 1), ()])
def test_a_range_is_two_numbers_the_smaller_first(limits, tmp_path):
    with pytest.raises(UsageError, match="two numbers, the smaller one first"):
        load(saved(tmp_path, PIXELS / 255), array_range=limits)


def test_a_range_is_for_arrays_alone(tmp_path):
    with pytest.raises(UsageError, match=r"is for data\.dataset=array"):
        data.load("folder", train=True, image_size=8, num_channels=3, path=str(tmp_path), array_range=(0, 1))


@pytest.mark.parametrize("in_memory_gib", [8, 0])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_be_the_second_axis(channels, in_memory_gib, tmp_path):
    pixels = PIXELS[..., :channels]
    options = dict(held_out=0, in_memory_gib=in_memory_gib, num_channels=channels)
    source = load(saved(tmp_path, np.moveaxis(pixels, -1, 1)), **options)
    np.testing.assert_array_equal(source.take(np.arange(40)).images, pixels)
    assert data.summary("a", source, source).endswith("evaluated on as well; channels are the second axis")
    assert source.digest() == load(saved(tmp_path, pixels), **options).digest()
    converted = load(
        saved(tmp_path, np.moveaxis(pixels, -1, 1)), **options | {"num_channels": 4 - channels, "convert": True}
    )
    assert converted.take(np.arange(40)).images.shape == (40, 6, 5, 4 - channels)


def test_an_array_whose_channels_may_be_either_axis_is_refused_until_it_is_padded(tmp_path):
    array = PIXELS[:, :3]
    with pytest.raises(UsageError, match="may be the second axis or the last; pad the images to a height"):
        load(saved(tmp_path, array))
    padded = np.pad(array, ((0, 0), (1, 2), (0, 0), (0, 0)))
    np.testing.assert_array_equal(load(saved(tmp_path, padded), held_out=0).images, padded)


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_a_file_of_keras_or_medmnist_has_its_two_splits(names, tmp_path):
    labels = np.arange(40)[:, None] if names[0] == "train_images" else np.arange(40)
    arrays = dict(zip(names, (PIXELS[:30], labels[:30] % 3, PIXELS[30:], labels[30:] % 3), strict=True))
    np.savez(tmp_path / "a.npz", **arrays, val_images=PIXELS[:2])
    splits = [load(tmp_path / "a.npz", train=train) for train in (True, False)]
    for split, part in zip(splits, (slice(30), slice(30, None)), strict=True):
        np.testing.assert_array_equal(split.images, PIXELS[part])
        assert split.labels.tolist() == (np.arange(40)[part] % 3).tolist()
    assert data.summary("a", *splits) == (
        f"a: 30 images in 3 classes (0 to 2) in {names[0]}, 10 in {names[2]} to evaluate on; left out: "
        "1 array val_images"
    )


def test_the_digest_of_an_array_is_that_of_earlier_versions(tmp_path):
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    options = dict(image_size=4, image_width=None, held_out=0, in_memory_gib=0)
    assert load(saved(tmp_path, pixels), **options).digest() == "c66ba47e2580a6c506576efb2b5f1fdc"
    assert (
        load(saved(tmp_path, pixels[..., 0]), **options | {"num_channels": 1}).digest()
        == "1d4b3612c5f603b5f04774e8c418c340"
    )
