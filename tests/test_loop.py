"""The training loop, unpatched: each kind of training is stopped by a signal, goes on, and ends in the same bits."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_end_to_end import metrics

import score_sde
from score_sde.inference.train_dequantizer import train_dequantizer
from score_sde.io.checkpoints import Checkpoints, steps
from score_sde.metrics import Options, trained_features
from score_sde.runtime.preemption import Stopped, stoppable
from score_sde.training.run import load_data, train

SHORT = dict(n_iters=4, snapshot_freq=100, snapshot_freq_for_preemption=100, eval_freq=100, snapshot_sampling=False)


@contextlib.contextmanager
def stopped_after_one_update(folder: Path, lines: str = "metrics.jsonl"):
    """Sends SIGTERM once the loop has made its file of `lines`, while its first update is being compiled."""
    over = threading.Event()

    def ring():
        while not over.is_set() and not any(folder.glob(lines)):
            time.sleep(0.001)
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ring)
    thread.start()
    try:
        with pytest.raises(Stopped, match="after step 1, which is saved"), stoppable():
            yield
    finally:
        over.set()
        thread.join()
    (found,) = folder.glob(lines)
    assert steps(found.parent / "checkpoints") == [1]


def left_by(folder: Path) -> tuple[str, list[dict]]:
    """The digest of all that the last checkpoint holds, parameters, moments and averages; and the metrics."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.digest(steps(folder / "checkpoints")[-1]), metrics(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A file of 40 images with labels."""
    path = tmp_path_factory.mktemp("images") / "few.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8), labels=np.arange(40) % 10)
    return path


@pytest.fixture
def short(tiny_config, images):
    """name -> its tiny config with four updates on these images."""

    def build(name: str = "vp/digits_ddpmpp_continuous"):
        made = tiny_config(name)
        made.training.update(SHORT)
        made.data.update(dataset="array", path=str(images))
        return made

    return build


@pytest.fixture
def config(short):
    """A score network of one block, from outside the package."""
    made = short()
    made.model.name = "one_block:OneBlock"
    made.dequantizer.update(nf=4, num_times=1, batch_size=8, snapshot_freq=100, log_freq=1, n_iters=4)
    return made


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Of scores: one that is never stopped, made by the first test that needs it."""
    return tmp_path_factory.mktemp("scores")


@pytest.fixture
def undisturbed(workdirs, config):
    folder = workdirs / "undisturbed"
    if not folder.exists():
        train(config, folder)
    return folder


def test_a_score_network_goes_on_to_the_same_bits(undisturbed, config, tmp_path):
    with stopped_after_one_update(tmp_path):
        train(config, tmp_path)
    model = score_sde.train(config, tmp_path)
    assert left_by(tmp_path) == left_by(undisturbed)
    assert (model.step, model.digest) == (4, score_sde.load(undisturbed).digest)


def test_a_classifier_goes_on_to_the_same_bits(short, tmp_path):
    config = short("vp/digits_wideresnet")
    config.model.blocks_per_group = 1
    train(config, tmp_path / "undisturbed")
    with stopped_after_one_update(tmp_path / "stopped"):
        train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    assert left_by(tmp_path / "stopped") == left_by(tmp_path / "undisturbed")


def test_a_dequantizer_goes_on_to_the_same_bits(undisturbed, config):
    folder = undisturbed / "dequantizer"
    train_dequantizer(config, undisturbed)
    whole = left_by(folder)
    folder.rename(undisturbed / "whole")
    with stopped_after_one_update(folder):
        train_dequantizer(config, undisturbed)
    train_dequantizer(config, undisturbed)
    assert left_by(folder) == whole


def test_features_go_on_to_the_same_bits_and_leave_their_file_alone(short, tmp_path):
    source = load_data(short(), train=True)
    options = Options(nf=8, dimension=8, n_iters=4, batch_size=16)
    whole = trained_features(source, options, tmp_path / "undisturbed", 16)
    with stopped_after_one_update(tmp_path / "stopped", "features_*/metrics.jsonl"):
        trained_features(source, options, tmp_path / "stopped", 16)
    assert trained_features(source, options, tmp_path / "stopped", 16).digest == whole.digest
    (one,), (other,) = ((tmp_path / name).iterdir() for name in ("undisturbed", "stopped"))
    assert one.read_bytes() == other.read_bytes()
