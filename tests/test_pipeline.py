"""Batches on the devices ahead of the step that takes them."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import data
from score_sde.cond import Entry
from score_sde.data.batches import AHEAD
from score_sde.runtime import sharding

LABELS = {"labels": Entry(jnp.int32)}
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3)).astype(np.uint8)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("score_sde-batches")}


class Counting(data.InMemory):
    """Counts the batches that were taken; the one of number `fails` raises."""

    def __init__(self, fails: int = -1):
        super().__init__(PIXELS)
        self.taken, self.fails = 0, fails

    def take(self, indices: np.ndarray) -> data.Batch:
        self.taken += 1
        if self.taken == self.fails:
            raise OSError("the disk is on fire")
        return super().take(indices)


def test_prefetched_batches_are_those_of_their_steps():
    plain = data.batches(Counting(), 8, seed=5, start_step=3)
    expected = {step: batch.images for _, (step, batch) in zip(range(27), plain, strict=False)}
    with data.prefetched(data.batch_fn(Counting(), 8, seed=5), range(3, 30)) as batches:
        found = {step: images for step, images, _ in batches}
    assert list(found) == list(range(3, 30))
    for step, images in found.items():
        assert isinstance(images, jax.Array) and images.sharding.is_equivalent_to(sharding.shardings(0), 4)
        np.testing.assert_array_equal(images, expected[step])


def test_labels_come_with_their_images():
    source = data.InMemory(PIXELS, PIXELS[:, 0, 0, 0])  # its first pixel is an image's label
    with data.prefetched(data.batch_fn(source, 8, seed=5, entries=LABELS), range(9)) as batches:
        for _, images, cond in batches:
            labels = cond["labels"]
            assert labels.dtype == jnp.int32 and labels.sharding.is_equivalent_to(sharding.shardings(0), 1)
            np.testing.assert_array_equal(labels, images[:, 0, 0, 0])


@pytest.mark.parametrize("n", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1])
def test_no_batch_is_taken_that_no_step_takes(n):
    source = Counting()
    with data.prefetched(data.batch_fn(source, 8, seed=5), range(n)) as batches:
        assert [step for step, *_ in batches] == list(range(n))
    assert source.taken == n


def test_a_few_batches_are_ready_before_they_are_asked_for_and_no_more():
    source = Counting()
    with data.prefetched(data.batch_fn(source, 8, seed=5), range(1000)) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while source.taken < AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert source.taken == AHEAD + 1
        assert len(threads()) == 1
    assert threads() == set()


def test_what_goes_wrong_is_raised_at_its_batch_and_the_thread_ends():
    found = []
    with (
        pytest.raises(OSError, match="on fire"),
        data.prefetched(data.batch_fn(Counting(4), 8, seed=5), range(9)) as batches,
    ):
        for step, *_ in batches:
            found.append(step)
    assert found == [0, 1, 2]
    assert threads() == set()


def test_the_thread_ends_when_the_training_fails():
    source = Counting()
    with pytest.raises(KeyError), data.prefetched(data.batch_fn(source, 8, seed=5), range(1000)) as batches:
        for step, *_ in batches:
            if step == 3:
                raise KeyError("of the training")
    assert threads() == set()
    assert source.taken <= 4 + AHEAD


@pytest.mark.parametrize(
    ("processes", "n", "rows"),
    [
        ([0], 4, {0: [0, 1, 2, 3]}),
        ([0, 0, 1, 1], 4, {0: [0, 1], 1: [2, 3]}),
        ([0, 1, 0, 1], 8, {0: [0, 1, 4, 5], 1: [2, 3, 6, 7]}),
        ([1, 0, 2], 6, {0: [2, 3], 1: [0, 1], 2: [4, 5]}),
    ],
)
def test_rows_belong_to_the_process_of_their_device(processes, n, rows):
    assert {process: sharding.rows_of(processes, process, n).tolist() for process in rows} == rows


def test_local_rows_are_those_that_the_devices_hold():
    n = 2 * jax.device_count()
    held = sharding.shardings(0).addressable_devices_indices_map((n,)).values()
    rows = sorted(row for (part,) in held for row in range(n)[part])
    assert sharding.local_rows(n).tolist() == rows


def test_a_process_reads_its_own_rows_only(monkeypatch):
    read, placed = [], []
    source = Counting()
    monkeypatch.setattr(sharding, "local_rows", lambda n: np.array([2, 3]))
    monkeypatch.setattr(sharding, "split", lambda *trees: placed.extend(trees) or jax.tree.map(jnp.asarray, trees))
    monkeypatch.setattr(
        source, "take", lambda indices: read.append(indices) or data.Batch(PIXELS[indices], {"labels": indices})
    )
    data.on_devices(source, np.array([9, 8, 7, 6, 5, 4]), LABELS)
    assert [indices.tolist() for indices in read] == [[7, 6]]
    assert placed[0].shape == (6, 4, 4, 3)
    np.testing.assert_array_equal(placed[0][2:4], PIXELS[[7, 6]])
    np.testing.assert_array_equal(placed[1]["labels"][2:4], [7, 6])
