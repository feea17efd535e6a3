import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.errors import UsageError
from score_sde.io import checkpoints as ckpt
from score_sde.io import digest as digests
from score_sde.io.checkpoints import Checkpoints, Retention, on_host, steps
from score_sde.training.state import adam, initial_state


def state(value: float, shape=(3, 2)):
    params = {"layer": {"w": jnp.full(shape, value)}}
    optimizer = adam(
        lr=0.1,
        beta1=0.9,
        eps=1e-8,
        weight_decay=0.0,
        warmup=5,
        grad_clip=1.0,
        trainable=jax.tree.map(bool, {"layer": {"w": 1}}),
    )
    return initial_state(params, optimizer)


def test_a_state_comes_back_bit_for_bit(tmp_path):
    saved = jax.tree.map(lambda a: a + jnp.asarray(np.pi, a.dtype), state(1.0))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, saved)
    with Checkpoints(tmp_path) as checkpoints:
        loaded = checkpoints.load(7, on_host(jax.eval_shape(lambda: state(0.0))))
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def edited(folder, step, edit):
    """Edits what was saved with a state."""
    file = folder / str(step) / ckpt.METADATA
    content = json.loads(file.read_text())
    edit(content["custom_metadata"])
    file.write_text(json.dumps(content))


def test_a_part_is_read_alone_and_is_that_of_the_whole_state(tmp_path):
    saved = state(1.0)._replace(ema_params={"power:0.05": {"layer": {"w": np.float32([[2, 3]])}}})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, saved)
        checkpoints.wait()
        like = jax.tree.map(lambda leaf: np.empty((), leaf.dtype), saved)  # shapes of no array: the rest is not read
        with pytest.raises(UsageError):
            checkpoints.load(7, like)
        for name, part in (("params", saved.params), ("ema_params/power:0.05", saved.ema_params["power:0.05"])):
            jax.tree.map(np.testing.assert_array_equal, checkpoints.load_part(7, name), part)
        assert checkpoints.load_part(7, "ema_params/constant:0.9") is None


def test_a_damaged_part_is_refused_and_the_others_are_not(tmp_path):
    def damage(metadata):
        metadata["leaves"]["ema_params/layer/w"][-1] = "0" * 32

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1.0))
        checkpoints.wait()
        edited(tmp_path, 1, damage)
        with pytest.raises(UsageError, match="its bytes have changed"):
            checkpoints.load_part(1, "ema_params")
        assert float(checkpoints.load_part(1, "params")["layer"]["w"].sum()) == 6


def test_a_checkpoint_of_an_older_version_has_no_parts_and_is_loaded_whole(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1.0))
        checkpoints.wait()
        edited(tmp_path, 1, lambda metadata: metadata.pop("leaves"))
        assert checkpoints.load_part(1, "params") is None
        assert checkpoints.load(1, on_host(jax.eval_shape(lambda: state(0.0)))).step == 0


def test_snapshots_are_kept_and_of_the_others_the_last_two(tmp_path):
    with Checkpoints(tmp_path, Retention(every=4)) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, state(float(step)))
            checkpoints.wait()
    assert steps(tmp_path) == [4, 6, 7]


def test_a_checkpoint_of_another_network_is_one_sentence(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1.0))
        checkpoints.wait()
        with pytest.raises(UsageError, match="Cannot read the checkpoint of step 1"):
            checkpoints.load(1, on_host(jax.eval_shape(lambda: state(1.0, shape=(5,)))))


def test_a_reader_leaves_a_save_under_way_alone(tmp_path):
    with Checkpoints(tmp_path, Retention(every=10)) as checkpoints:
        checkpoints.save(1, state(1.0))
    under_way = tmp_path / "2.orbax-checkpoint-tmp"
    under_way.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.load(1, on_host(jax.eval_shape(lambda: state(0.0))))
    assert under_way.exists()


def test_a_folder_without_checkpoints_has_no_steps(tmp_path):
    assert steps(tmp_path / "missing") == []
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    assert steps(tmp_path) == []


def test_the_reason_of_a_damage_is_without_the_readers_options():
    error = ValueError("DATA_LOSS: checksum verification failed [tensorstore_spec='{...}']\nmore")
    assert ckpt._reason(error) == "DATA_LOSS: checksum verification failed"


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16, np.int32, np.uint8, bool])
@pytest.mark.parametrize("shape", [(), (7,), (3, 2, 5), (0, 3)])
def test_a_digest_is_the_same_by_numpy_and_compiled(kind, shape, monkeypatch):
    values = 100 * np.random.default_rng(0).standard_normal(shape)
    tree = [np.float32(1.0), jnp.asarray(values > 0 if kind is bool else np.abs(values)).astype(kind)]
    found = digests.digest(tree)
    assert digests.digest([tree[0], np.array(tree[1], order="F")]) == found
    monkeypatch.setattr(digests, "SMALL", -1)
    assert digests.digest(tree) == found
