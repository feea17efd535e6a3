"""The Inception of FID against the PyTorch implementation that published figures are computed with."""

from pathlib import Path

import jax
import numpy as np
import pytest
from inception_weights import tensors

from score_sde.errors import UsageError
from score_sde.io import pytorch_files
from score_sde.metrics import inception

GOLDEN = np.load(Path(__file__).parent / "golden" / "inception.npz")


@pytest.fixture
def weights(monkeypatch):
    """Seeded weights as if read from a PyTorch file; changes are made to them first."""

    def load(**changes):
        content = tensors() | changes
        kept = {name: value for name, value in content.items() if value is not None}
        monkeypatch.setattr(pytorch_files, "read", lambda path: kept)
        return inception.load(Path("weights.pth"))

    return load


def test_features_and_logits_are_those_of_torch_fidelity(weights):
    """Whose input is (x - 128) / 128."""
    params = weights()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 23_832_736
    x = inception.resized((GOLDEN["pixels"].astype(np.float32) - 128) / 128)
    found = jax.jit(inception.outputs)(params, x)
    for name in ("features", "logits"):
        np.testing.assert_allclose(found[name], GOLDEN[name], atol=1e-5 * np.abs(GOLDEN[name]).max(), err_msg=name)
    shapes = jax.eval_shape(inception.inception, params, np.zeros((3, 64, 48, 1), np.uint8))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {"features": (3, 2048), "logits": (3, 1008)}


@pytest.mark.parametrize("size", [8, 32, 299, 512])
def test_the_resize_is_tensorflow_1s(size):
    """Output pixel i lies at i * size / 299, between two pixels of the input or on the last one."""
    x = np.random.default_rng(0).normal(size=(1, size, size + 3, 2)).astype(np.float32)
    found = np.asarray(inception.resized(x))
    for i, j in ((0, 0), (1, 2), (150, 77), (298, 298), (297, 298)):
        expected = np.zeros(2)
        for row, row_weight in between(i, size):
            for column, column_weight in between(j, size + 3):
                expected += row_weight * column_weight * x[0, row, column]
        np.testing.assert_allclose(found[0, i, j], expected, atol=1e-4)  # positions are float32
    if size == 299:
        np.testing.assert_array_equal(found[0, :, 0], x[0, :, 0])


def between(i: int, size: int) -> list[tuple[int, float]]:
    position = i * size / 299
    low = int(position)
    return [(low, 1 - (position - low)), (min(low + 1, size - 1), position - low)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fc.weight": np.zeros((1000, 2048))}, r"has fc.weight of shape \(1000, 2048\)"),
        ({"Mixed_7c.branch_pool.bn.running_var": None}, "has no Mixed_7c.branch_pool.bn.running_var"),
        ({"Conv2d_1a_3x3.conv.weight": "text"}, "has no Conv2d_1a_3x3.conv.weight"),
    ],
)
def test_another_networks_file_is_one_sentence(changes, words, weights):
    with pytest.raises(UsageError, match=words):
        weights(**changes)


def test_a_file_that_is_none_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "page.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(UsageError, match=r"page\.pth"):
        inception.load(tmp_path / "page.pth")
    with pytest.raises(UsageError, match="Cannot read the Inception weights"):
        inception.load(tmp_path / "none.pth")
    monkeypatch.setattr(pytorch_files, "read", lambda path: [1])
    with pytest.raises(UsageError, match="no weights by name"):
        inception.load(tmp_path / "list.pth")
