"""Samples of captions: what a config and a call may ask for, and what it means."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conditional import saved

from score_sde import data, images
from score_sde.cli.describe import planned_nfe
from score_sde.cond import Entry, read
from score_sde.conditioning import Inpaint, grammar, interpolation
from score_sde.config import FrozenConfig, base
from score_sde.data.text_cond import TextCond
from score_sde.errors import UsageError
from score_sde.evaluation import evaluate as evaluation
from score_sde.inference import captions, sampling_plan
from score_sde.inference.pretrained import Pretrained, load
from score_sde.io import workdir
from score_sde.models import MODELS
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.training import run as training
from score_sde.training import sheets
from score_sde.training.build import Experiment
from score_sde.weights import NoiseWeight

KEY, SHAPE, LENGTH = jax.random.key(0), (8, 8, 1), 12
FEW = dict(sampler="ddim", num_steps=3)


class Reader(nn.Module):
    """A network that is linear in its class and in the sum of its caption's bytes less 32, and 0 without."""

    num_classes: int = 0

    def check(self, image_size: int) -> None:
        """Every size will do."""

    @property
    def cond_entries(self):
        tokens = {"tokens": Entry(jnp.int32, (None,), 257), "tokens_mask": Entry(jnp.bool_, (None,))}
        return ({"labels": Entry(jnp.int32, (), self.num_classes)} if self.num_classes else {}) | tokens

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        tokens, without = read(cond, self.cond_entries, "tokens", len(x))
        mask, _ = read(cond, self.cond_entries, "tokens_mask", len(x))
        sums = jnp.where(without, 0.0, jnp.sum(jnp.where(mask, tokens - 32, 0), axis=1) / 512)
        if self.num_classes:
            labels, no_class = read(cond, self.cond_entries, "labels", len(x))
            sums = sums + jnp.where(no_class, 0.0, labels / 16)
        level, words = (rows[:, None, None, None] for rows in (noise_cond / 1000, sums))
        return self.param("scale", nn.initializers.ones, ()) * (level * x + (1 - level) * words)

    def clone(self, *, compute=None, **kwargs):  # it computes in one way only
        return super().clone(**kwargs)


def letter(number):
    """A caption whose bytes add up to this number for the network."""
    return chr(32 + number)


class Letters(TextCond):
    """A text condition: the bytes of a caption."""

    kind, entries, max_tokens, truncate = "letters", ("tokens", "tokens_mask"), LENGTH, False

    def lengths(self, texts):
        return [len(text.encode()) for text in texts]

    def cond(self, texts):
        tokens, lengths = np.zeros((len(texts), LENGTH), np.int32), []
        for row, text in zip(tokens, texts, strict=True):
            if len(content := list(text.encode())) > LENGTH:
                raise UsageError(f"The caption '{text}' has {len(content)} tokens, and text.max_tokens is {LENGTH}.")
            row[: len(content)] = content
            lengths.append(len(content))
        return {"tokens": tokens, "tokens_mask": np.arange(LENGTH) < np.array(lengths)[:, None]}

    def to_json(self):
        return {"kind": "letters"}

    @classmethod
    def of_json(cls, content):
        return cls()


def made(num_classes=0, text=None, **values):
    """A model of the network, with these values of its config."""
    config = base()
    config.data.update(image_size=8, num_channels=1)
    config.sampling.update(method="ddim", num_steps=3, clip="none")
    config.update_from_flattened_dict(values)
    objective = Objective(VP(num_scales=30), Noise(), Uniform(), NoiseWeight())
    params = {"scale": jnp.float32(1)}
    return Pretrained(
        objective, Reader(num_classes), params, SHAPE, config=FrozenConfig(config), text=text or Letters()
    )


@pytest.fixture(scope="module")
def model():
    return made()


# The grammar.


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("text=a red circle", {"text": "a red circle"}),
        ("text= a = b; c;d ;inpaint=left_half", {"text": "a = b; c;d", "inpaint": "left_half"}),
        ("class=3; text=a;towards=b;c=d", {"class": "3", "text": "a", "towards": "b;c=d"}),
        ("text=a; classy;class=3", {"text": "a; classy", "class": "3"}),
        ("texts=a;colorize", {"texts": "a", "colorize": ""}),
    ],
)
def test_a_caption_ends_where_a_kind_follows(condition, parts):
    assert grammar.parts(condition) == parts


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("text=", "must give a caption: text=a small red circle"),
        ("text=a;towards= ", "must give a caption: towards="),
        ("towards=b", "must also name where it begins: text=A;towards=B"),
        ("texts=f;towards=b", "must also name where it begins"),
        ("text=a;texts=f", "asks for one caption and for several; choose one"),
        ("text=a;cond=f.npz", "put the caption's tokens into the file"),
        ("text=a;text=b", "names text twice"),
        ("inpaint=center;nonsense", "Unknown sampling.condition 'nonsense'"),
    ],
)
def test_a_condition_that_makes_no_sense_is_one_sentence(condition, words):
    with pytest.raises(UsageError, match=words):
        grammar.check(condition)


def test_a_file_of_captions_is_known_by_its_content(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes("a red circle\r\nça;class=3 \n".encode())
    second.write_text("a red circle\nça;class=3", encoding="utf-8")
    found = [f"texts={path}" for path in (first, second)]
    assert {grammar.chosen_texts(each) for each in found} == {("a red circle", "ça;class=3")}
    assert len({grammar.identity_of(each) for each in found}) == 1
    observed = grammar.observation_of(f"{found[0]};deblur=1.5", SHAPE)
    assert observed.identity == f"{grammar.identity_of(found[1])};deblur=1.5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"No file .*none\.txt: sampling\.condition=texts=FILE names a file of captions"),
        (b"", "is empty"),
        (b"a\n\nb\n", "has no caption in line 2"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_file_of_captions_is_one_sentence(content, words, tmp_path):
    path = tmp_path / "none.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        grammar.chosen_texts(f"texts={path}")


# Calls.


def test_a_caption_is_the_entries_that_it_becomes(model):
    cond, x = Letters().cond(["ab", "z"]), jax.random.normal(KEY, (2, *SHAPE))
    for function in (model.score, model.predict, model.denoise):
        jax.tree.map(np.testing.assert_array_equal, function(x, 0.5, text=["ab", "z"]), function(x, 0.5, cond=cond))
    given = model.sample(KEY, 2, **FEW, text=["ab", "z"])
    np.testing.assert_array_equal(given, model.sample(KEY, 2, **FEW, cond=cond))
    assert not np.array_equal(given, model.sample(KEY, 2, **FEW, text="z"))
    np.testing.assert_array_equal(given[1], model.sample(KEY, 2, **FEW, text="z")[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(text=["a", "b", "c"]), "There are 3 captions for 2 images; give one for all, or one for each"),
        (dict(text="a", cond=Letters().cond(["a", "b"])), r"The caption is cond\['tokens'\] as well"),
        (dict(text="a", labels=1), "takes no condition entry 'labels'"),
        (dict(text="a" * 13), "has 13 tokens, and text.max_tokens is 12"),
        (dict(negative="b", scale=2.0), "none is asked for"),
        (dict(text="a", negative="b"), "would change nothing, as guidance.scale=1 does not guide"),
        (dict(text="a", negative="b", scale=0.0), "as guidance.scale=0 does not guide"),
        (dict(text="a", negative="b", scale=2.0, weak="somewhere"), "name another; set one of them"),
        (dict(text="a", towards="b"), "over rows of sampling.same_noise samples with one noise; set it to 2 or more"),
        (dict(towards="b", same_noise=2), "give text as well as towards"),
    ],
)
def test_a_call_that_makes_no_sense_is_one_sentence(model, options, words):
    with pytest.raises(UsageError, match=words):
        model.sample(KEY, 2, **FEW, **options)


def test_a_network_without_text_says_so(model):
    without = dataclasses.replace(model, text=None)
    x = jnp.zeros((2, *SHAPE))
    for call in (lambda: without.sample(KEY, 2, text="a"), lambda: without.score(x, 0.5, text="a")):
        with pytest.raises(UsageError, match="This network takes no text; load one that was trained with text"):
            call()
    with pytest.raises(UsageError, match="takes no text"):
        sampling_plan.check_condition(dataclasses.replace(configured("text=a"), text=None))


def test_a_class_and_a_caption_join_where_the_network_takes_both():
    both = made(3, **{"training.cond_dropout": ("labels", "tokens")})
    x = jnp.zeros((2, *SHAPE))
    given = both.predict(x, 0.5, labels=[1, 2], text=[letter(64), letter(32)]).eps[:, 0, 0, 0]
    np.testing.assert_allclose(given[1] / given[0], (2 / 16 + 32 / 512) / (1 / 16 + 64 / 512), rtol=1e-6)
    found = made(3, **{"sampling.condition": "class=2;text=a"})
    cond = sampling_plan.configured_cond(found, np.arange(2))
    assert cond["labels"].tolist() == [2, 2] and cond["tokens"][:, 0].tolist() == [97, 97]


# Guidance by captions.


def test_a_negative_caption_takes_the_place_of_the_null_one(model):
    guided = dict(FEW, text=["ab", "c"], scale=3.0)
    plain = model.sample(KEY, 2, **guided)
    np.testing.assert_array_equal(model.sample(KEY, 2, **guided, negative=" "), plain)  # its bytes add up to 0
    assert np.abs(model.sample(KEY, 2, **guided, negative="d") - plain).max() > 1e-3
    alone = model.sample(KEY, 2, **FEW, text="ab")
    np.testing.assert_allclose(model.sample(KEY, 2, **guided | dict(text="ab", negative="ab")), alone, atol=1e-6)


def test_guidance_away_from_a_caption_goes_as_far_as_its_scale(model):
    """Predictions are linear in the bytes: s_neg + w (s - s_neg) is the prediction of the caption at 1 + 3 (5 - 1)."""
    away = model.sample(KEY, 2, **FEW, text=letter(5), negative=letter(1), scale=3.0)
    np.testing.assert_allclose(away, model.sample(KEY, 2, **FEW, text=letter(13)), atol=1e-6)


def test_a_negative_caption_stands_beside_the_class_and_needs_no_null_condition():
    both = made(3, **{"training.label_dropout": 0.0})
    given = dict(labels=[1, 2], **FEW)
    away = both.sample(KEY, 2, **given, text=letter(5), negative=letter(1), scale=3.0)
    np.testing.assert_allclose(away, both.sample(KEY, 2, **given, text=letter(13)), atol=1e-6)


def test_evaluations_are_counted_for_every_caption_that_is_read(model):
    def counted(**options):
        drawn = model.draw(jax.random.split(KEY, 8), "ddim", cond=cond, num_steps=4, **options)
        planned = sampling_plan.plan(model, "ddim", dict(num_steps=4) | options).conditional
        given = planned.conditions(cond, None, 8, "ddim")
        assert planned.sampler({"score": model.params}, given, "ddim").nfe == int(drawn.nfe[0])
        return int(drawn.nfe[0])

    cond = Letters().cond(["a"] * 8)
    assert (counted(), counted(scale=2.0, negative="b")) == (5, 10)
    assert 5 < counted(scale=2.0, negative="b", interval=(0.2, 0.8)) < 10


def test_a_weaker_network_reads_captions_as_this_one_does(model, monkeypatch):
    weak = made()
    monkeypatch.setattr(sampling_plan, "helpers_of", lambda *_: {"weak": weak})
    stronger = model.sample(KEY, 2, **FEW, text="a", scale=1.5)
    np.testing.assert_allclose(stronger, model.sample(KEY, 2, **FEW, text="a"), atol=1e-6)  # it is the same network
    object.__setattr__(weak.text, "to_json", lambda: {"kind": "words"})
    with pytest.raises(UsageError, match=r"guidance\.weak reads captions by another kind"):
        model.sample(KEY, 2, "ddim", num_steps=4, text="a", scale=1.5)


# One noise.


def test_samples_of_one_noise_differ_by_their_captions_alone(model):
    four = model.sample(KEY, 4, **FEW, text=["a", "b", "a", "b"], same_noise=2)
    for i, text in enumerate(("a", "b")):
        np.testing.assert_array_equal(four[i::2], model.sample(KEY, 4, **FEW, text=text)[:2])
    same = model.sample(KEY, 4, **FEW, text="a", same_noise=2)
    np.testing.assert_array_equal(same[::2], same[1::2])
    assert np.abs(same[0] - same[2]).max() > 1e-3
    with pytest.raises(UsageError, match="Samples share their noise if they have the same key"):
        model.draw(jax.random.split(KEY, 8), "ddim", num_steps=3, same_noise=2)


def test_a_row_goes_from_one_caption_to_another(model):
    """Predictions are linear in the bytes, so that halfway between 16 and 48 is 32."""
    row = dict(FEW, same_noise=3)
    way = model.sample(KEY, 6, **row, text=letter(16), towards=letter(48))
    for i, text in ((0, letter(16)), (2, letter(48))):
        np.testing.assert_allclose(way[i::3], model.sample(KEY, 6, **row, text=text)[i::3], atol=2e-6)
    np.testing.assert_allclose(way[1::3], model.sample(KEY, 6, **row, text=letter(32))[1::3], atol=1e-6)


def test_the_ends_of_an_interpolation_are_its_models_to_the_last_bit(model):
    x, t = jax.random.normal(KEY, (3, *SHAPE)), jnp.full(3, 0.3)
    first, second = (functools.partial(model.predict, text=text) for text in ("a", "b"))
    mixed = interpolation(first, second, jnp.array([0.0, 1.0, 0.25]))(x, t)
    for part, start, end in zip(mixed, first(x, t), second(x, t), strict=True):
        np.testing.assert_array_equal(part[:2], [start[0], end[1]])
        np.testing.assert_allclose(part[2], 0.75 * start[2] + 0.25 * end[2], rtol=1e-5, atol=1e-6)


def test_the_way_between_captions_is_guided_too(model):
    way = model.sample(KEY, 2, **FEW, same_noise=2, text=letter(5), towards=letter(9), negative=letter(1), scale=3.0)
    for i, text in ((0, letter(13)), (1, letter(25))):  # 1 + 3 (5 - 1) and 1 + 3 (9 - 1)
        np.testing.assert_allclose(way[i], model.sample(KEY, 2, **FEW, same_noise=2, text=text)[i], atol=1e-6)


# What a config asks for.


def configured(condition, **values):
    return made(**{"sampling.condition": condition} | values)


def test_captions_of_a_file_are_taken_in_turn(tmp_path):
    (tmp_path / "f.txt").write_text("a\nb\nc\n")
    found = configured(f"texts={tmp_path}/f.txt")
    assert captions.configured_captions(found, np.array([0, 1, 5])) == ["a", "b", "c"]
    np.testing.assert_array_equal(
        sampling_plan.configured_conditions(found, np.array([4]))["cond"]["tokens"], Letters().cond(["b"])["tokens"]
    )


def test_the_way_between_captions_is_told_in_words_and_counts_its_evaluations():
    found = configured("text=a;towards=b", **{"sampling.same_noise": 3, "guidance.scale": 2.0})
    assert captions.shown_captions(found, np.arange(4)) == ["a", "0.50 a + 0.50 b", "b", "a"]
    assert sampling_plan.planned_nfe(found) == 3 * 4  # of both captions, and without one
    np.testing.assert_array_equal(
        sampling_plan.configured_conditions(found, np.arange(4))["towards"].share, [0, 0.5, 1, 0]
    )


@pytest.mark.parametrize("n", [1, 2, 7, 10, 4096])
def test_captions_of_a_split_are_scattered_over_it_and_each_comes_once(n):
    assert sorted(data.scattered(n, np.arange(n))) == list(range(n))
    assert data.scattered(n, np.array([n]))[0] == 0
    tenths = data.scattered(n, np.arange(10)) * 10 // n
    assert n < 10 or len(set(tenths)) >= 8


def test_known_pixels_and_a_caption_are_given_together(model):
    mask = jnp.broadcast_to(jnp.arange(8)[None, None, :, None] < 4, (2, *SHAPE))
    known = jnp.where(mask, 0.25, 0.0)
    x = model.posterior(KEY, Inpaint(mask), known, 0.0, "ddim", num_steps=3, inverse="pigdm", text=["a", "zz"])
    np.testing.assert_array_equal(np.where(mask, x, 0.0), known)
    other = model.posterior(KEY, Inpaint(mask), known, 0.0, "ddim", num_steps=3, inverse="pigdm", text="a")
    np.testing.assert_array_equal(x[0], other[0])
    assert np.abs(x[1] - other[1]).max() > 1e-3


# Programs.


@pytest.fixture
def run(tiny_config, monkeypatch, tmp_path):
    """(a config of a network with text, its workdir)"""
    monkeypatch.setitem(MODELS, "reader", Reader)
    config = tiny_config()
    with config.unlocked():
        config.model = dict(name="reader", num_classes=0, scale_by_sigma=False)
    config.training.update(n_iters=2, snapshot_freq=2, eval_freq=2, snapshot_sampling=True)
    config.sampling.update(method="ddim", num_steps=2, num_samples=4, clip="range")
    config.eval.update(enable_loss=False, enable_sampling=True, num_samples=6, begin_ckpt=-1)
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    texts = [f"picture {i}" for i in range(40)]
    source = data.InMemory(pixels, captions=texts, **Letters().cond(texts))
    for module in (training, captions):
        monkeypatch.setattr(module, "load_data", lambda *_, **__: source)
    monkeypatch.setattr(evaluation, "load_data", lambda *_, **__: data.InMemory(pixels, captions=texts))
    monkeypatch.setattr(
        evaluation, "load", lambda *args, **options: dataclasses.replace(load(*args, **options), text=Letters())
    )
    return config, tmp_path / "run"


def test_samples_keep_their_captions(run, capsys):
    config, folder = run
    saved(config, folder)
    config.sampling.update(condition="text=a;towards=b", same_noise=2, save=("png",))
    evaluation.sample(config, folder)
    assert "4 samples given text=a;towards=b, 6 network evaluations each" in capsys.readouterr().out
    ((stem, entry),) = workdir.read(folder / "samples", "index.json").items()
    assert entry["condition"] == "text=a;towards=b" and "text_a_towards_b" in stem
    with np.load(folder / "samples" / f"{stem}.npz", allow_pickle=False) as stored:
        assert stored["captions"].tolist() == ["a", "b", "a", "b"]
    lines = (folder / "samples" / stem / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines][1] == {"file_name": "000001.png", "text": "b"}
    assert planned_nfe(Experiment(config)) == 6


def test_an_evaluation_has_the_captions_of_its_split(run):
    config, folder = run
    saved(config, folder)
    workdir.write(folder, "text.json", Letters().to_json())
    evaluation.evaluate(config, folder)
    report = workdir.read(folder / "eval", "report.json")
    assert report["condition"] == "texts=test"
    with np.load(folder / "eval/step_00000004/samples.npz") as stored:
        assert stored["captions"].tolist() == [f"picture {i}" for i in data.scattered(40, np.arange(6))]
    assert "4 samples at step 4 with their captions" in (folder / "eval/report.html").read_text()


def test_observations_and_a_caption_are_sampled_by_the_program(run):
    config, folder = run
    saved(config, folder)
    config.sampling.update(condition="text=a;inpaint=left_half")
    config.guidance.update(inverse="pigdm", scale=2.0, negative="b")
    evaluation.sample(config, folder)
    assert len(list((folder / "samples").glob("*text_a_inpaint_left_half_scale_2*.png"))) == 1


def test_sheets_of_a_training_are_of_captions_of_the_evaluation_split(run):
    config, folder = run
    training.train(config, folder)
    with np.load(folder / "samples/snapshots/step_00000002.npz") as stored:
        assert len(stored["images"]) == 16
    experiment, source = Experiment(config), training.load_data(config)
    of_sheet = sheets.cond_of(experiment, source, 4)
    expected = Letters().cond(source.captions(data.scattered(40, np.arange(4))))
    np.testing.assert_array_equal(of_sheet["tokens"], expected["tokens"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sampling.condition": "text=a"}, "This network takes no text; set encoder.name=text"),
        ({"sampling.condition": "texts=nowhere.txt"}, "takes no text"),
    ],
)
def test_describe_says_that_a_network_takes_no_text(tiny_config, values, words):
    config = tiny_config()
    config.update_from_flattened_dict(values)
    with pytest.raises(UsageError, match=words):
        planned_nfe(Experiment(config))


def test_a_sheet_has_each_caption_beneath_its_image():
    pixels = np.full((3, 16, 16, 3), 200, np.uint8)
    sheet = images.captioned(pixels, ["a", "a small red circle left of a blue star", "word " * 100], columns=3)
    side, lines = 16 * 7, sheet.shape[0] - 16 * 7 - 4
    assert sheet.shape[1] == 3 * side + 4 * 2 and lines == 6 * 14 + 2
    below = [sheet[2 + side : -2, 2 + i * (side + 2) :][:, :side] for i in range(3)]
    filled = [np.flatnonzero(band.any((1, 2))).max() // 14 for band in below]
    assert filled[0] == 0 < filled[1] < filled[2] == 5
    with pytest.raises(UsageError, match="There are 1 captions for 3 images"):
        images.captioned(pixels, ["a"])
