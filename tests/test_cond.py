"""Conditions of any entries: a user's own network with tokens and an image trains, drops them, and is guided."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import data
from score_sde.cond import Entry, as_array, check_cond, dropped, names, read, restricted
from score_sde.errors import UsageError
from score_sde.inference.pretrained import load
from score_sde.models import MODELS
from score_sde.randomness import Stream, sample_keys, stream, uniform
from score_sde.training import run as training
from score_sde.training import sheets
from score_sde.training.build import Experiment

KEYS = sample_keys(jax.random.key(0), jnp.arange(4000))
WORDS, LENGTH, IMAGES = 7, 5, 40


class Mixer(nn.Module):
    """A user's network: the mean embedding of its tokens, an image beside x, and a learned null of each."""

    nf: int = 4

    def check(self, image_size: int) -> None:
        """Every size will do."""

    @property
    def cond_entries(self):
        tokens = {"tokens": Entry(jnp.int32, (None,), below=WORDS), "tokens_mask": Entry(jnp.bool_, (None,))}
        return tokens | {"image": Entry(jnp.float32, (8, 8, 1))}

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        entry = functools.partial(read, cond, self.cond_entries, n=len(x))
        (tokens, no_text), (mask, _), (image, no_image) = entry("tokens"), entry("tokens_mask"), entry("image")
        weights = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
        text = jnp.einsum("bl,blc->bc", weights, nn.Embed(WORDS, self.nf)(tokens))
        text = jnp.where(no_text[:, None], self.param("null_tokens", nn.initializers.normal(), (self.nf,)), text)
        blank = self.param("null_image", nn.initializers.normal(), image.shape[1:])
        image = jnp.where(no_image[:, None, None, None], blank, image)
        level = nn.Dense(self.nf)(jnp.log1p(noise_cond)[:, None])
        h = nn.Conv(self.nf, (3, 3))(jnp.concatenate([x, image], -1)) + (text + level)[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(nn.swish(h))

    def clone(self, *, compute=None, **kwargs):  # it computes in one way only
        return super().clone(**kwargs)


def conditions(n: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH + 1, n)
    return {
        "tokens": rng.integers(0, WORDS, (n, LENGTH)),
        "tokens_mask": np.arange(LENGTH) < lengths[:, None],
        "image": rng.standard_normal((n, 8, 8, 1)).astype(np.float32),
    }


def source(**changes) -> data.InMemory:
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, 8, 8, 1)).astype(np.uint8)
    entries = {name: rows for name, rows in (conditions(IMAGES) | changes).items() if rows is not None}
    return data.InMemory(pixels, **entries)


@pytest.fixture
def mixer(tiny_config, monkeypatch):
    """(what makes a config of the network, what puts a source in the place of the data)"""
    monkeypatch.setitem(MODELS, "mixer", Mixer)

    def config(**options):
        made = tiny_config()
        with made.unlocked():
            made.model = dict(name="mixer", nf=4, scale_by_sigma=False)
        made.training.update(dict(n_iters=2, snapshot_freq=2, eval_freq=2, snapshot_sampling=False) | options)
        made.sampling.update(method="ddim", num_steps=2)
        return made

    def put(found):
        monkeypatch.setattr(training, "load_data", lambda *_, **__: found)

    put(source())
    return config, put


def test_the_whole_condition_of_a_sample_is_dropped_at_once_by_the_draws_of_labels():
    null = dropped(conditions(4000), KEYS, 0.3)["null"]
    assert list(null) == ["tokens", "image"]
    np.testing.assert_array_equal(null["tokens"], uniform(stream(KEYS, Stream.COND)) < 0.3)
    np.testing.assert_array_equal(null["tokens"], null["image"])
    assert abs(null["tokens"].mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)


def test_entries_that_are_named_are_dropped_independently_and_others_never():
    cond = conditions(4000) | {"style": np.zeros(4000)}
    null = dropped(cond, KEYS, 0.3, ("image", "tokens"))["null"]
    assert "style" not in null
    for rows in null.values():
        assert abs(rows.mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)
    both = np.mean(null["tokens"] & null["image"])
    assert abs(both - 0.09) < 4 * np.sqrt(0.09 * 0.91 / 4000)
    np.testing.assert_array_equal(dropped(cond, KEYS, 0.3, ("tokens",))["null"]["tokens"], null["tokens"])


def test_what_the_data_lack_stays_null_and_masks_follow_their_entry():
    cond = conditions(3)
    missing = np.array([True, False, True])
    kept = dropped(cond | {"null": {"tokens": missing}}, KEYS[:3], 0.0)
    np.testing.assert_array_equal(kept["null"]["tokens"], missing)
    assert not kept["null"]["image"].any()
    _, null = read(kept, Mixer().cond_entries, "tokens_mask", 3)
    np.testing.assert_array_equal(null, missing)
    assert names(cond) == ["tokens", "image"] and names(["depth_mask", "null"]) == ["depth_mask"]


def test_a_null_condition_is_the_unconditional_network_to_the_last_bit(mixer):
    network, (x, t) = Mixer(), (jax.random.normal(jax.random.key(1), (3, 8, 8, 1)), jnp.array([0.1, 0.5, 0.9]))
    cond = restricted(conditions(3), network.cond_entries)
    params = jax.jit(network.init)(jax.random.key(0), x, t, cond)
    shapes = jax.tree.map(jnp.shape, (params, jax.eval_shape(network.init, jax.random.key(0), x, t)))
    assert shapes[0] == shapes[1]
    apply = jax.jit(network.apply)
    without, given = apply(params, x, t), apply(params, x, t, cond)
    null = {"tokens": jnp.array([True, False, True]), "image": jnp.array([True, False, False])}
    some = apply(params, x, t, cond | {"null": null})
    np.testing.assert_array_equal(some[0], without[0])
    np.testing.assert_array_equal(some[1], given[1])
    assert all(np.abs(some[2] - other[2]).max() > 1e-4 for other in (without, given))


@pytest.fixture(scope="module")
def trained():
    return {}


@pytest.fixture
def model(mixer, trained, tmp_path_factory):
    """The network after two updates, in two parts of a batch each."""
    config, _ = mixer
    if not trained:
        folder = tmp_path_factory.mktemp("mixer")
        training.train(config(accumulate=2), folder)
        trained["folder"] = folder
    return load(trained["folder"])


def test_a_users_network_trains_is_evaluated_and_samples_with_guidance(model):
    fresh = jax.device_get(jax.jit(model.experiment.init_params)())
    assert np.any(model.params["Embed_0"]["embedding"] != fresh["Embed_0"]["embedding"])
    assert np.any(model.params["null_tokens"] != fresh["null_tokens"])  # of 32 conditions some are dropped
    assert "eval_loss" in (model.directory / "metrics.jsonl").read_text()

    key, cond = jax.random.key(0), conditions(3)
    plain, given = model.sample(key, 3), model.sample(key, 3, cond=cond)
    guided = model.sample(key, 3, cond=cond, scale=2.0)
    assert all(np.abs(np.asarray(a - b)).max() > 1e-5 for a, b in ((plain, given), (given, guided)))
    x, t = jnp.zeros((3, 8, 8, 1)), jnp.full(3, 0.5)
    null = {"tokens": np.ones(3, bool), "image": np.ones(3, bool)}
    np.testing.assert_array_equal(model.score(x, t, cond=cond | {"null": null}), model.score(x, t))
    assert np.any(np.asarray(model.score(x, t, cond=cond) != model.score(x, t)))


def changed(**entries) -> dict:
    """Conditions of three samples, without the entries that are None."""
    return {name: rows for name, rows in (conditions(3) | entries).items() if rows is not None}


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        (changed(labels=np.zeros(3, int)), r"entry 'labels'; classes need model\.num_classes"),
        (changed(imge=np.zeros(3)), r"entry 'imge' \(did you mean 'image'\?\); it takes tokens, tokens_mask, image"),
        (changed(tokens_mask=None), "tokens and no tokens_mask"),
        (changed(tokens_mask=np.ones((3, LENGTH - 1), bool)), "its mask .*; give a mask of the same length"),
        (changed(image=np.zeros((2, 8, 8, 1), np.float32)), r"image'\] must be float32 of shape \(3, 8, 8, 1\)"),
        (changed(image=np.zeros((3, 8, 8, 1), np.uint8)), r"and is uint8 of shape \(3, 8, 8, 1\)"),
        (changed(tokens=np.full((3, 5), WORDS)), r"There are tokens 0 to 6, not \[7\]"),
        (changed(null={"image": np.zeros(3)}), r"null'\]\['image'\] must be bool of shape \(3,\)"),
        (changed(null={"imag": np.zeros(3, bool)}), "did you mean 'image'"),
        (changed(image=None), r"never without image alone.*training\.cond_dropout=\('tokens', 'image'\)"),
    ],
)
def test_conditions_that_a_network_cannot_take_are_refused(model, cond, words):
    with pytest.raises(UsageError, match=words):
        model.sample(jax.random.key(0), 3, cond=cond)


def test_entries_that_were_dropped_alone_may_be_left_out(mixer):
    config, _ = mixer
    experiment = Experiment(config(cond_dropout=("image",)))
    experiment.check_cond(changed(image=None))
    for cond in (None, changed(tokens=None, tokens_mask=None)):
        with pytest.raises(UsageError, match="never without tokens alone"):
            experiment.check_cond(cond)
    assert not experiment.scores_without_cond
    of_sheet = sheets.cond_of(experiment, source(), IMAGES + 2)
    np.testing.assert_array_equal(of_sheet["image"][-2:], conditions(IMAGES)["image"][:2])
    with pytest.raises(UsageError, match=r"training\.cond_dropout 'imag' \(did you mean 'image'\?\)"):
        Experiment(config(cond_dropout=("imag",)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "has no image, and mixer is trained on"),
        ({"tokens_mask": None}, "has no tokens_mask"),
        ({"image": np.zeros((IMAGES, 4, 4, 1), np.float32)}, r"must be float32 of shape \(1, 8, 8, 1\)"),
    ],
)
def test_data_without_what_a_network_takes_are_refused_before_anything_is_written(mixer, changes, words, tmp_path):
    config, put = mixer
    put(source(**changes))
    with pytest.raises(UsageError, match=words):
        training.train(config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_entries_are_part_of_the_datas_digest():
    assert source().digest() == source().digest()
    changes = {}, {"image": None}, conditions(IMAGES, seed=3), {"null": {"tokens": np.ones(IMAGES, bool)}}
    assert len({source(**change).digest() for change in changes}) == 4


@pytest.mark.parametrize("call", ["sample", "score", "predict", "denoise"])
def test_the_old_keyword_of_labels_is_answered_with_the_new_one(model, call):
    with pytest.raises(UsageError, match=rf"The keyword classes is now labels; call {call}\(labels="):
        getattr(model, call)(jax.random.key(0), 1, classes=3)


def test_labels_given_twice_are_refused(model):
    with pytest.raises(UsageError, match="one of the two"):
        model.sample(jax.random.key(0), 3, labels=1, cond={"labels": np.zeros(3, int)})


def test_labels_of_every_kind_of_integer_are_taken_and_floats_are_not():
    entries = {"labels": Entry(jnp.int32, below=10)}
    for kind in (np.uint8, np.int64):
        labels = np.arange(3).astype(kind)
        check_cond({"labels": labels}, entries, 3)
        assert restricted({"labels": labels, "more": labels}, entries)["labels"].dtype == np.int32
    with pytest.raises(UsageError, match="must be int32 of shape"):
        check_cond({"labels": np.zeros(3)}, entries, 3)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (2**32, np.int32),
        (-(2**31) - 1, np.int32),
        (-1, np.uint32),
        (300, np.uint8),
        (1e39, np.float32),
        (7e4, np.float16),
    ],
)
def test_numbers_that_a_type_does_not_hold_are_refused(values, dtype):
    """They would wrap around, or become infinite."""
    as_array("mine", np.array([0, max(0, values / 4)]).astype(type(values)), dtype)
    with pytest.raises(UsageError, match=rf"cond\['mine'\] must be {np.dtype(dtype)}: its numbers are from"):
        as_array("mine", np.array([0, values]), dtype)
    assert np.isinf(as_array("mine", np.array([0, np.inf]), np.float32)[1])  # it was one before
