"""A part of the training split: which images it has, and that all programs say and keep apart what it is."""

import numpy as np
import pytest
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

from score_sde import data
from score_sde.config import check
from score_sde.data import InMemory, Part, part_of
from score_sde.errors import UsageError
from score_sde.io import workdir

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
WHOLE = InMemory(IMAGES, np.arange(40) % 10, [f"picture {i}" for i in range(40)])


@pytest.fixture
def load(tmp_path):
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=np.arange(40) % 10)
    options = dict(image_size=8, num_channels=1, path=str(tmp_path / "images.npz"), held_out=0.25)
    return lambda train=True, **others: data.load("array", train=train, **options | others)


def test_a_part_has_the_images_labels_and_captions_at_its_indices():
    part = Part(WHOLE, np.array([7, 3]))
    images, cond = part.take(np.array([1, 0]))
    assert (images == IMAGES[[3, 7]]).all() and cond["labels"].tolist() == part.labels.tolist()[::-1] == [3, 7]
    assert part.captions(np.array([0])) == ["picture 7"]
    assert part.num_classes == 10  # of the whole, though the part has labels of two


def test_fewer_training_images_are_among_more_and_the_held_out_ones_are_unmoved(load):
    few, more, whole = (load(train_images=n) for n in (5, 15, 0))
    pictures = [{image.tobytes() for image in each.take(np.arange(len(each))).images} for each in (few, more, whole)]
    assert [len(each) for each in pictures[:2]] == [5, 15] and pictures[0] < pictures[1] < pictures[2]
    assert (few.indices == part_of(len(whole), 5)).all()
    assert load(train=False, train_images=5).digest() == load(train=False).digest()


def test_parts_are_other_data_than_the_whole(load):
    few, more, whole = (load(train_images=n) for n in (5, 6, 0))
    assert len({few.digest(), more.digest(), whole.digest()}) == 3
    assert load(train_images=len(whole)).digest() == whole.digest()


def test_images_on_disk_are_the_same_part(load):
    there, here = load(train_images=5, in_memory_gib=0.0), load(train_images=5)
    assert (there.take(np.arange(5)).images == here.take(np.arange(5)).images).all()
    assert "a part of" in there.stored and (there.labels == here.labels).all()


def test_more_images_than_there_are_and_none_are_refused(load):
    with pytest.raises(UsageError, match=r"data\.train_images=41 is more than the \d+ training images that there are"):
        load(train_images=41)
    with pytest.raises(UsageError, match="must not be negative"):
        config = get_config()
        config.data.train_images = -1
        check(config)
    with pytest.raises(UsageError, match="one image or more"):
        Part(WHOLE, np.arange(0))


def test_a_run_on_a_part_is_another_run_and_one_on_all_is_the_run_of_before(tmp_path):
    config = get_config()
    before = workdir.identity(config.to_dict())
    assert "train_images" not in str(before)
    config.data.train_images = 50
    assert workdir.identity(config.to_dict()) != before
