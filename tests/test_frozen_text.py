"""Published text encoders compute what their publishers' code computes, and captions become their features once."""

import dataclasses
import itertools
import json
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from golden_weights import GOLDEN, relative
from test_published_checkpoints import safetensors
from test_transformer_layout import tensor

from score_sde.errors import UsageError
from score_sde.inference.pretrained import load
from score_sde.io.array_cache import Newest, RowFile
from score_sde.models import MODELS
from score_sde.models.encoders import encoded, taken_entries
from score_sde.models.text_layouts import BERT, CLIP, T5, layout_of
from score_sde.training import frozen_text, text
from score_sde.training.build import Experiment
from score_sde.training.frozen_text import Frozen, layout_in
from score_sde.training.run import train

SIZES = dict(vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)
SIZES |= dict(max_position_embeddings=16)
OF_T5 = dict(vocab_size=23, d_model=8, d_kv=3, d_ff=12, num_layers=2, num_heads=2)
OF_T5 |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=20)
NETWORKS = {
    "bert": BERT(**SIZES),
    "bert_tanh": BERT(**SIZES, hidden_act="gelu_new", layer_norm_eps=1e-3),
    "clip": CLIP(**SIZES),
    "clip_gelu": CLIP(**SIZES, hidden_act="gelu"),
    "t5": T5(**OF_T5),
    "t5_gated": T5(**OF_T5, feed_forward_proj="gated-gelu"),
}
TOKENS = np.random.default_rng(0).integers(0, 23, (3, 13)).astype(np.int32)
MASK = np.arange(13) < np.array([[13], [5], [1]])


def tensors_of(network) -> dict[str, np.ndarray]:
    return {name: tensor(name, shape) for name, shape in network.shapes().items()}


def features_of(network, tokens, mask) -> np.ndarray:
    return np.asarray(jax.jit(network)(tensors_of(network), tokens, mask))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_encoder_computes_what_its_publishers_does_from_the_same_tensors(name):
    features = features_of(NETWORKS[name], TOKENS, MASK)
    assert relative(features[MASK], np.load(GOLDEN / "text_layouts.npz")[name][MASK]) <= 2e-6


@pytest.mark.parametrize("name", ["bert", "clip", "t5"])
def test_what_stands_in_padded_places_changes_no_bit(name):
    other = features_of(NETWORKS[name], np.where(MASK, TOKENS, 22 - TOKENS), MASK)
    np.testing.assert_array_equal(features_of(NETWORKS[name], TOKENS, MASK)[MASK], other[MASK])


@pytest.mark.parametrize(("name", "moved"), [("clip", False), ("bert", True), ("t5", True)])
def test_only_clips_tokens_do_not_see_later_ones(name, moved):
    all_seen, changed = np.ones_like(MASK), TOKENS.copy()
    changed[:, 8] = (changed[:, 8] + 1) % 23
    before, after = (features_of(NETWORKS[name], tokens, all_seen)[:, :8] for tokens in (TOKENS, changed))
    assert bool(np.any(before != after)) is moved


def test_t5s_buckets_are_single_distances_then_powers_and_later_keys_have_their_own():
    buckets = T5()._buckets(200)
    assert buckets[:, 0][[0, 1, 7, 8, 16, 32, 64, 127, 128, 199]].tolist() == [0, 1, 7, 8, 10, 12, 14, 15, 15, 15]
    assert (buckets[0, 1:] == 16 + buckets[1:, 0]).all()


def test_a_part_of_a_larger_network_and_names_of_before_are_read():
    bert, tensors = NETWORKS["bert"], tensors_of(NETWORKS["bert"])
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    published = {"cls.predictions.bias": np.zeros(23), "bert.pooler.dense.bias": np.zeros(8)}
    for name, value in tensors.items():
        ending = ".".join(name.split(".")[-2:])
        published["bert." + name.replace(ending, older.get(ending, ending))] = value.astype(np.float16)
    read = bert.read(published, "model.safetensors")
    assert read.keys() == tensors.keys()
    assert all((read[name] == value.astype(np.float16)).all() for name, value in tensors.items())


def without(tensors):
    del tensors["encoder.layer.1.output.dense.bias"]


def wider(tensors):
    tensors["encoder.layer.0.output.dense.bias"] = np.zeros(9, np.float32)


def diverged(tensors):
    tensors["embeddings.LayerNorm.bias"][0] = np.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "has no encoder.layer.1.output.dense.bias, which BERT has"),
        (wider, r"encoder.layer.0.output.dense.bias has shape \(9,\), and by config.json \(8,\)"),
        (diverged, "embeddings.LayerNorm.bias holds what is no finite number"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, words):
    tensors = tensors_of(NETWORKS["bert"])
    change(tensors)
    with pytest.raises(UsageError, match=words):
        NETWORKS["bert"].read(tensors, "model.safetensors")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "roberta"}, "has the model_type 'roberta'; choose an encoder of: bert, clip_text_model"),
        ({}, "has the model_type None"),
        ({"model_type": "bert", "hidden_act": "selu"}, "Unknown hidden_act of BERT 'selu'"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type of BERT"),
        ({"model_type": "bert", "num_attention_heads": 7}, "num_attention_heads=7, which does not divide"),
        ({"model_type": "clip", "text_config": {"hidden_size": "512"}}, "hidden_size"),
        ({"model_type": "t5", "feed_forward_proj": "gated-silu"}, "feed_forward_proj of T5"),
        ({"model_type": "t5", "num_layers": 0}, "num_layers"),
    ],
)
def test_a_config_of_another_encoder_is_one_sentence(config, words):
    with pytest.raises(UsageError, match=words):
        layout_of(config)


def test_both_forms_of_clips_config_are_read():
    assert layout_of({"model_type": "clip", "text_config": SIZES, "hidden_size": 7}) == NETWORKS["clip"]
    assert layout_of({"model_type": "clip_text_model"} | SIZES) == NETWORKS["clip"]


# The cache.


def test_the_newest_arrays_stay_within_the_bound():
    newest = Newest(100)
    for name in "abc":
        newest.put(name, np.zeros(40, np.uint8))
        newest.get("a")
    assert newest.get("b") is None and newest.get("a") is not None and newest.bytes == 80
    newest.put("d", np.zeros(1000, np.uint8))
    assert newest.get("a") is None and newest.get("d") is not None


def test_rows_on_disk_are_those_of_all_processes(tmp_path):
    arrays = {bytes([i]): np.full((i, 3), i / 2, "<f2") for i in range(200)}
    first, second = (RowFile(tmp_path / "new" / "rows.sqlite", 3, "<f2") for _ in range(2))
    first.put(arrays)
    second.put({b"\1": np.zeros((1, 3))})  # stays as it is
    kept = second.get([*arrays, *(b"no%d" % i for i in range(600))])
    assert kept.keys() == arrays.keys()
    assert all((kept[key] == array).all() and kept[key].shape == array.shape for key, array in arrays.items())


def test_a_file_that_cannot_be_used_is_warned_of_once(tmp_path, capsys):
    (tmp_path / "rows.sqlite").write_bytes(b"damaged" * 1000)
    rows = RowFile(tmp_path / "rows.sqlite", 3, "<f2")
    assert rows.get([b"a"]) == rows.get([b"a"]) == {}
    assert capsys.readouterr().err.count("rows.sqlite cannot be used (file is not a database)") == 1


def test_a_full_file_keeps_what_it_has(tmp_path, capsys):
    rows = RowFile(tmp_path / "rows.sqlite", 1, "<f2", max_bytes=40_000)
    rows.put({b"a": np.ones((10, 1))})
    rows.put({b"b": np.ones((100_000, 1))})
    assert rows.get([b"a", b"b"]).keys() == {b"a"}
    assert "is full" in capsys.readouterr().err


# Captions.

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "small", "red", "blue", "circle", "##s"]
CAPTIONS = ["a red circle", "a small blue circle", "circles", ""]


@pytest.fixture
def folder(tmp_path):
    """An encoder of BERT's layout with a tokenizer of ten pieces."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {piece: number for number, piece in enumerate(PIECES)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(4)  # published files have both, and neither counts here
    path = tmp_path / "encoder"
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **dataclasses.asdict(NETWORKS["bert"])}))
    (path / "model.safetensors").write_bytes(safetensors(tensors_of(NETWORKS["bert"])))
    return path


def test_captions_become_the_features_of_their_tokens(folder):
    frozen = Frozen(folder, 8)
    cond = frozen.cond(CAPTIONS)
    assert cond.keys() == set(frozen.entries) and cond["text"].dtype == np.float32 and frozen.size == 8
    assert cond["text_mask"].sum(1).tolist() == [5, 6, 4, 2]
    numbers = [[2, 4, 6, 8, 3, 0, 0, 0], [2, 4, 5, 7, 8, 3, 0, 0], [2, 8, 9, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]]
    tokens = np.array(numbers, np.int32)
    exact = features_of(NETWORKS["bert"], tokens, cond["text_mask"])
    exact = np.where(cond["text_mask"][..., None], exact, 0)
    assert (np.abs(cond["text"] - exact) <= np.abs(exact) / 2048 + 1e-6).all()  # of float16, and of another program
    assert layout_in(folder).size == 8


def test_a_captions_features_are_computed_once(folder, monkeypatch):
    many = [" ".join(pair) for pair in itertools.product(PIECES[4:9], repeat=2)]  # of which one batch has 16
    frozen = Frozen(folder, 8)
    first = frozen.cond([*many, *many[::-1]])["text"]
    np.testing.assert_array_equal(first[:25], first[25:][::-1])
    monkeypatch.setattr(Frozen, "_batch", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(frozen.cond(many[7:9])["text"], first[7:9])  # from memory
    np.testing.assert_array_equal(Frozen(folder, 8).cond(many)["text"], first[:25])  # from the file


def test_a_caption_alone_has_the_features_that_it_has_among_others(folder, monkeypatch, tmp_path):
    together = Frozen(folder, 8).cond(CAPTIONS)
    monkeypatch.setenv("SCORE_SDE_CACHE", str(tmp_path / "another"))
    frozen = Frozen(folder, 8)
    for row, caption in enumerate(CAPTIONS):
        np.testing.assert_array_equal(frozen.cond([caption])["text"][0], together["text"][row])


def test_a_caption_that_is_too_long_is_refused_or_cut_before_its_last_special_token(folder):
    with pytest.raises(UsageError, match=r"'a red circle' has 5 tokens.* text.max_tokens=4; shorten"):
        Frozen(folder, 4).cond(CAPTIONS)
    cut = Frozen(folder, 4, truncate=True).cond(["a small blue circle", "a small"])
    np.testing.assert_array_equal(cut["text"][0], cut["text"][1])


def test_half_of_a_character_is_one_sentence(folder):
    with pytest.raises(UsageError, match="is no text that UTF-8 encodes"):
        Frozen(folder, 8).cond(["a", "\ud800"])


def test_a_run_finds_its_encoder_again(folder, tmp_path):
    frozen = Frozen(folder, 8, truncate=True)
    fields = json.loads(json.dumps(frozen.to_json()))
    assert fields["files"]["config.json"]["bytes"] == (folder / "config.json").stat().st_size
    assert Frozen.of_json(fields).to_json() == frozen.to_json()
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"There is no folder .*encoder; .*--config.text.frozen=FOLDER"):
        Frozen.of_json(fields)
    again = Frozen.of_json(fields | {"folder": str(moved)})
    np.testing.assert_array_equal(again.cond(["a"])["text"], frozen.cond(["a"])["text"])
    assert again.digest() == frozen.digest() != Frozen(moved, 8).digest()
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    with pytest.raises(UsageError, match=r"config.json is not the file that this run was trained with.*--config.text"):
        Frozen.of_json(fields | {"folder": str(moved)})


@pytest.mark.parametrize("name", frozen_text.FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=f"has no {name}; give a folder with"):
        Frozen(folder)


@pytest.mark.parametrize("name", frozen_text.FILES)
def test_a_damaged_file_is_one_sentence(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(UsageError, match=name):
        Frozen(folder, 8)


@pytest.mark.parametrize(
    ("max_tokens", "words"),
    [(17, "more than the 16 places of the encoder in .* at most 16"), (2, "adds 2 tokens .*max_tokens above 2")],
)
def test_a_length_that_the_encoder_cannot_have_is_refused(folder, max_tokens, words):
    with pytest.raises(UsageError, match=words):
        Frozen(folder, max_tokens)


def test_files_of_two_encoders_are_refused(folder):
    network = BERT(**SIZES | {"vocab_size": 9})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **dataclasses.asdict(network)}))
    (folder / "model.safetensors").write_bytes(safetensors(tensors_of(network)))
    with pytest.raises(UsageError, match=r"has 10 tokens, and model.safetensors the features of 9"):
        Frozen(folder, 8)


def test_a_missing_library_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r'pip install "score-sde\[text\]"'):
        Frozen(folder, 8)


# A training.


class Reader(nn.Module):
    """A network that adds the vector of a caption to its features."""

    encoder: nn.Module | None = None

    @property
    def cond_entries(self):
        return taken_entries(0, self.encoder)

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        h = nn.Conv(4, (3, 3))(x)
        if self.encoder is not None:
            h += nn.Dense(4)(encoded(self.encoder, cond, len(x)).vector)[:, None, None]
        return nn.Conv(3, (3, 3))(nn.swish(h))

    def clone(self, *, compute=None, **kwargs):  # it computes in one way only
        return super().clone(**kwargs)


@pytest.fixture
def of_features(tiny_config, folder, monkeypatch):
    """(values by key) -> the config of a training on features of captions of scenes, with these values."""
    monkeypatch.setitem(MODELS, "reader", Reader)

    def build(**values):
        config = tiny_config()
        with config.unlocked():
            config.model = dict(name="reader", scale_by_sigma=False)
        config.training.update(n_iters=2, snapshot_freq=1, snapshot_sampling=False)
        config.data.update(dataset="scenes", random_flip=False, image_size=16, num_channels=3)
        config.data.update(scene_objects=1, scene_images=100)
        config.encoder.update(name="sequence", features=4)
        config.text.update(frozen=str(folder), max_tokens=16)
        config.update_from_flattened_dict(values)
        return config

    return build


def test_a_training_takes_features_of_captions_and_its_run_finds_the_encoder_again(of_features, folder, tmp_path):
    train(of_features(**{"training.n_iters": 1}), tmp_path / "run")
    model = load(tmp_path / "run")
    assert model.params["encoder"]["linear"]["kernel"].shape == (8, 4)
    assert model.text.digest() == Frozen(folder, 16).digest()
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"There is no folder .*by --config.text.frozen=FOLDER"):
        load(tmp_path / "run")
    config = of_features(**{"text.frozen": str(moved)})
    train(config, tmp_path / "run")
    assert load(tmp_path / "run", config=config).text.folder == moved
    (moved / "tokenizer.json").write_text((moved / "tokenizer.json").read_text() + " ")
    with pytest.raises(UsageError, match=r"tokenizer.json is not the file that this run was trained with"):
        load(tmp_path / "run", config=config)


def test_a_config_without_what_features_need_is_one_sentence(of_features):
    for values, words in (
        (
            {"encoder.name": "", "encoder.features": None},
            "this network takes none; set encoder.name=sequence",
        ),
        ({"encoder.size": 5}, r"encoder.size=5, and by section text it is 8; leave encoder.size out"),
        ({"text.tokenizer": "words"}, r"text.tokenizer and text.frozen each make an entry of captions; set one"),
        ({"text.frozen": "nowhere"}, r"There is no folder nowhere; give a folder with model.safetensors"),
    ):
        with pytest.raises(UsageError, match=words):
            Experiment(of_features(**values))
    line = "text: 8 features a token by BERT, at most 0.2 KiB a caption in the cache; captions of at most 16 tokens"
    assert text.of_described(of_features(), None).startswith(line)
