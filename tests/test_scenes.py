"""Scenes: drawn from their index alone, captioned in words that say what is drawn, and read back exactly."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies
from scipy import stats

from score_sde import data
from score_sde.cli import inspect_data
from score_sde.config import KEYS, base, check
from score_sde.config.import_paths import arguments
from score_sde.data import scene_captions, scene_drawing
from score_sde.data.scene_captions import Asked, Object, agreement, asked, caption
from score_sde.data.scene_decoder import TOLERANCE, decode, places
from score_sde.data.scene_drawing import draw, numbers
from score_sde.data.scenes import HELD_OUT, Scenes, pairs
from score_sde.errors import UsageError

SIZES = (16, 24, 32, 48, 64)
TWO = (Object("circle", "red", "small", "top left"), Object("star", "blue", "large", "bottom"))


def load(image_size=16, train=True, **options) -> Scenes:
    return data.load("scenes", train=train, image_size=image_size, num_channels=3, **options)


def read_right(image_size: int, n: int, noise: float = 0.0) -> int:
    source, indices = load(image_size, train=False), np.arange(n) * 10_000 // n
    images = source.take(indices).images / np.float32(255)
    images += noise * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    return sum(a == b for a, b in zip(decode(images), source.scenes(indices), strict=True))


@pytest.mark.parametrize("image_size", SIZES)
def test_the_decoder_reads_fresh_scenes(image_size):
    assert read_right(image_size, 300) == 300


@pytest.mark.parametrize("image_size", SIZES)
def test_the_decoder_reads_ten_thousand_fresh_scenes(image_size):
    assert read_right(image_size, 10_000) == 10_000


@pytest.mark.parametrize("image_size", SIZES)
def test_an_error_of_a_twentieth_leaves_the_decoding_right(image_size):
    assert read_right(image_size, 300, noise=0.05) == 300


@pytest.mark.parametrize("image_size", SIZES)
def test_every_object_in_every_place_is_read_as_itself(image_size):
    names = scene_drawing.attribute_names(image_size)
    every = [(Object(*each),) for each in itertools.product(*names.values())]
    images = draw(numbers(every, image_size), image_size)
    assert decode(images) == every and decode(images, strict=False) == every


@pytest.mark.parametrize("image_size", SIZES)
def test_noise_is_no_scene_and_a_background_has_no_object(image_size):
    shape, rng = (50, image_size, image_size, 3), np.random.default_rng(0)
    noise = [rng.uniform(size=shape), 0.5 + rng.normal(size=shape) / 4, rng.normal(size=shape), np.full(shape, np.nan)]
    assert all(decode(each) == [None] * 50 for each in noise)
    assert decode(noise[0], strict=False) != [None] * 50
    assert decode(np.full(shape, 128, np.uint8)) == decode(np.full(shape, 0.5)) == [()] * 50


def test_a_place_is_unreadable_beyond_the_tolerance_alone():
    image = draw(numbers([TWO], 32), 32) / np.float32(255)
    image[:, 11:21, 11:21] += 0.99 * TOLERANCE  # the place in the middle
    assert decode(image) == [TWO]
    image[:, 11:21, 11:21] += 0.02 * TOLERANCE
    assert decode(image) == [None] and decode(image, strict=False) == [TWO]
    assert [place for place in range(9) if places(image)[0, place, 0] == -2] == [4]


def test_sizes_are_offered_where_they_can_be_told_apart():
    offered = {size: " ".join(scene_drawing.sizes(size)) for size in (16, 20, 21, 24, 32, 48, 64)}
    assert offered == dict.fromkeys((16, 20), "small large") | dict.fromkeys((21, 24, 32, 48, 64), "small medium large")
    for size in range(16, 65):
        scales = tuple(scene_drawing.sizes(size).values())
        assert scene_drawing.distance(size, scales) >= scene_drawing.APART
        assert len(scales) == 3 or scene_drawing.distance(size, (0.5, 0.75, 1.0)) < scene_drawing.APART


@pytest.mark.parametrize("image_size", range(16, 65))
def test_places_are_whole_pixels_and_hold_their_objects(image_size):
    edges = scene_drawing.edges(image_size)
    assert (edges[0], edges[3]) == (0, image_size) and edges[1] == image_size - edges[2]
    for covers in scene_drawing.covered(image_size):
        areas = covers[..., :, :].sum((2, 3)) / scene_drawing.CONTRAST
        scales = np.array(list(scene_drawing.sizes(image_size).values()))
        np.testing.assert_allclose(areas[1], (image_size // 3 * scales) ** 2, rtol=0.15)  # the square's


def test_objects_never_share_a_place():
    where = load(32).attributes(np.arange(3000))[..., 3]
    assert all(len({*row[row >= 0]}) == (row >= 0).sum() > 0 for row in where)
    assert np.all(np.diff(np.where(where < 0, 9, where), axis=1)[where[:, 1:] >= 0] > 0)  # in order


def test_an_image_is_a_function_of_its_index_alone():
    source, indices = load(24), np.array([49_999, 3, 17, 3])
    alone = [source.take(np.array([i])) for i in indices]
    batch = source.take(indices)
    np.testing.assert_array_equal(batch.images, np.concatenate([each.images for each in alone]))
    np.testing.assert_array_equal(batch.cond["attributes"], np.concatenate([e.cond["attributes"] for e in alone]))
    assert source.captions(indices) == [source.captions(np.array([i]))[0] for i in indices]
    np.testing.assert_array_equal(batch.images, load(24, scene_images=1_000_000).take(indices).images)


@pytest.mark.parametrize("index", [-1, 50_000])
@pytest.mark.parametrize("method", ["take", "attributes", "scenes", "captions"])
def test_an_index_outside_of_a_split_is_refused(method, index):
    with pytest.raises(UsageError, match=r"Images are numbered 0\.\.49999"):
        getattr(load(), method)(np.array([index]))


def test_options_splits_and_seeds_have_other_images_and_digests():
    of = [load(), load(train=False), load(scene_seed=1), load(scene_objects=1), load(scene_held_out=()), load(32)]
    of += [load(scene_relations=False), load(scene_images=100)]
    assert load().digest() == of[0].digest() and len({each.digest() for each in of}) == len(of)
    first = [each.attributes(np.arange(50)) for each in of[:3]]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(first, 2))


def with_pair(scene, pair) -> bool:
    return any(all(getattr(each, kind) == value for kind, value in pair) for each in scene)


def test_held_out_pairs_are_in_the_second_half_of_the_evaluation_split_alone():
    held_out = (*HELD_OUT, "tiny yellow object", "huge disc")
    train, evaluation = (load(train=train, scene_held_out=held_out) for train in (True, False))
    seen = train.scenes(np.arange(2000)) + evaluation.scenes(np.arange(1000))
    last = evaluation.scenes(np.arange(5000, 7000))
    assert (len(train), len(evaluation), evaluation.first_held_out) == (50_000, 10_000, 5000)
    assert not any(with_pair(scene, pair) for scene in seen for pair in pairs(held_out))
    assert all(any(with_pair(scene, pair) for pair in pairs(held_out)) for scene in last)
    assert all(any(with_pair(scene, pair) for scene in last) for pair in pairs(held_out))
    assert len(load(train=False, scene_held_out=())) == 5000


def test_attributes_numbers_and_places_are_uniform():
    attributes = load(32, scene_held_out=()).attributes(np.arange(20_000))
    present = attributes[attributes[..., 0] >= 0]
    kinds = np.ravel_multi_index(present[:, :3].T, (5, 8, 3))
    counts = [np.bincount((attributes[..., 0] >= 0).sum(1))[1:], np.bincount(kinds), np.bincount(present[:, 3])]
    assert [len(each) for each in counts] == [3, 120, 9]
    assert min(stats.chisquare(each).pvalue for each in counts) > 1e-3


@given(strategies.integers(0, 2**64 - 1), strategies.integers(0, 49_999), strategies.booleans())
def test_a_caption_is_read_as_the_attributes_that_it_was_written_from(number, index, relations):
    (scene,) = SOURCE.scenes(np.array([index]))
    choices = scene_captions._Choices(number)
    named = scene_captions._named(scene, choices, relations)
    assert asked(scene_captions._written(named, choices)) == named
    assert all(right == of for right, of in agreement(named, scene).values())
    assert relations or not named.relations


SOURCE = load(32)


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in scene_captions.WORDS.items() for value in values]
)
def test_every_phrase_of_a_value_is_read_as_it(kind, value):
    for phrase in (value, *scene_captions.WORDS[kind][value]):
        assert asked(f"The {phrase.upper()}.") == Asked((Object(**{kind: value}),))


def test_captions_name_everything_in_half_of_the_cases_and_any_part_in_the_others():
    read = [asked(text) for text in load(32, scene_objects=1).captions(np.arange(4000))]
    named = [sum(value is not None for value in each.objects[0]) for each in read]
    expected = np.array([1, 4, 6, 4, 1 + 16]) / 32
    assert stats.chisquare(np.bincount(named), 4000 * expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("text", "objects", "relations"),
    [
        ("a small red circle left of a blue star", 2, ((0, "left of", 1),)),
        ("a disc to the right of one star", 2, ((1, "left of", 0),)),
        ("An object on the left, and a box under a cross", 3, ((2, "above", 1),)),
        ("", 0, ()),
    ],
)
def test_captions_of_several_objects_are_read(text, objects, relations):
    read = asked(text)
    assert (len(read.objects), read.relations) == (objects, relations)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a crimsn disc", r"'crimsn' is no word .*did you mean 'crimson'"),
        ("a red blue star", "names two colours for one object"),
        ("a star and", "lacks an object before or after"),
        ("above a star", "lacks an object before or after"),
    ],
)
def test_a_caption_that_cannot_be_read_is_one_sentence(text, words):
    with pytest.raises(UsageError, match=words):
        asked(text)


def test_agreement_counts_right_attributes_relations_and_objects():
    wanted = asked("a red star above a blue star")
    counts = {"shape": (1, 2), "colour": (2, 2), "size": (0, 0), "place": (0, 0), "relation": (1, 1), "count": (1, 1)}
    assert agreement(wanted, TWO) == counts
    assert agreement(wanted, None)["colour"] == (0, 2) and agreement(wanted, None)["count"] == (0, 1)
    assert agreement(wanted, TWO[1:])["shape"] == (1, 2)


def test_relations_are_those_of_rows_and_columns():
    first, second = (Object(place=place) for place in ("top right", "centre"))
    assert scene_captions.lies(first, "above", second) and scene_captions.lies(second, "left of", first)
    assert not scene_captions.lies(first, "left of", second)
    assert not scene_captions.lies(first, "above", Object())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scene_objects": 0}, r"data\.scene_objects=0 must be in \[1, 3\]"),
        ({"scene_objects": 4}, r"data\.scene_objects=4 must be in \[1, 3\]"),
        ({"image_size": 12}, r"data\.image_size=12: scenes have 16 to 64 pixels"),
        ({"image_size": 100}, r"data\.image_size=100: scenes have 16 to 64 pixels"),
        ({"image_width": 32}, r"data\.image_width=32: scenes are squares"),
        ({"num_channels": 1}, r"data\.num_channels=1: scenes are in colour"),
        ({"scene_held_out": ("red circl",)}, r"data\.scene_held_out: 'circl' .*did you mean 'circle'"),
        ({"scene_held_out": ("red",)}, r"data\.scene_held_out: 'red' is not a pair"),
        ({"scene_held_out": ("circle at the top",)}, "is not a pair"),
        ({"scene_held_out": ("medium star",)}, "names the size medium, and scenes of 16 pixels have small and large"),
        ({"scene_held_out": tuple(f"{size} {shape}" for size in ("small", "large") for shape in scene_drawing.SHAPES)},
         "leaves no object to train on"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        data.load("Scenes", train=True, **{"image_size": 16, "num_channels": 3} | options)


def test_options_of_scenes_are_for_scenes():
    with pytest.raises(UsageError, match=r"data\.scene_objects=1 is for data\.dataset=scenes; leave it out"):
        data.load("digits", train=True, image_size=8, num_channels=1, scene_objects=1)


def test_the_keys_have_the_defaults_of_the_class():
    options = {key: value for key, value in arguments(Scenes).items() if key.startswith("scene_")}
    assert options == {key.removeprefix("data."): KEYS[key].default for key in KEYS if key.startswith("data.scene_")}


def test_mirrored_scenes_are_refused():
    config = base()
    config.data.update(dataset="scenes")
    with pytest.raises(UsageError, match=r"set data\.random_flip=False"):
        check(config)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((1, 8, 8, 3), float, "have 16 to 64 pixels, and these images are 8x8; resize"),
        ((1, 100, 100, 3), float, "have 16 to 64 pixels, and these images are 100x100; resize"),
        ((1, 16, 32, 3), float, r"shape \(n, side, side, 3\)"),
        ((1, 16, 16, 1), float, r"shape \(n, side, side, 3\)"),
        ((1, 16, 16, 3), np.int64, "from uint8 or float images, and not from int64; convert"),
    ],
)
def test_the_decoder_refuses_other_images(shape, dtype, words):
    with pytest.raises(UsageError, match=words):
        decode(np.zeros(shape, dtype))
    assert decode(np.zeros((0, 16, 16, 3))) == []


def test_scenes_and_numbers_are_two_forms_of_the_same():
    assert scene_drawing.scenes(numbers([TWO, ()], 32), 32) == [TWO, ()]
    with pytest.raises(UsageError, match="size at 16 pixels"):
        numbers([(Object("circle", "red", "medium", "top"),)], 16)
    with pytest.raises(UsageError, match="most=1; set most=2"):
        numbers([TWO], 32, most=1)


def test_a_source_in_memory_takes_captions():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    source = data.InMemory(images, captions=["a", "b"])
    assert source.captions(np.array([1, 0])) == ["b", "a"] and source.take(np.array([0])).cond is None
    assert data.InMemory(images).captions(np.array([0])) is None
    assert source.digest() != data.InMemory(images, captions=["a", "c"]).digest() != data.InMemory(images).digest()
    with pytest.raises(UsageError, match="There are 1 captions and 2 images"):
        data.InMemory(images, captions=["a"])


def test_the_caption_of_a_number_is_always_the_same():
    assert caption(TWO, 64) == "a tiny red circle left of a large blue star"
    assert len({caption(TWO, number) for number in range(0, 10**6, 1001)}) > 500


def test_the_report_on_data_shows_captions():
    lines = "\n".join(inspect_data._lines("training", load()))
    assert "50,000 images, 16x16x3" in lines and "made as they are needed" in lines
    assert f"captions: {load().captions(np.array([0]))[0]}; " in lines
