"""Captions as tokens: what comes back, what is learned, and how captions stand in a condition."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import example, given, strategies

from score_sde import data
from score_sde.cond import dropped, read
from score_sde.data import InMemory, part_of
from score_sde.data.captioned import Captioned, captioned, some_captions
from score_sde.data.text_cond import Tokens
from score_sde.data.tokenizers import END, TOKENIZERS, Bytes, Words
from score_sde.errors import UsageError
from score_sde.models import ENCODERS

CAPTIONS = ["a small red circle", "a red star", "", "A  red\tstar, twice"]
LEARNED = Words.learned(CAPTIONS, 1024)


@pytest.mark.parametrize("tokenizer", [Bytes(), LEARNED, Words((" ", "\n", "é"))], ids=["bytes", "words", "few"])
@given(text=strategies.text())
@example(text=" a red  star\r\n\0\u00a0\U0001f600e\u0301 RED ")
def test_every_text_that_utf8_encodes_comes_back_as_it_was(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == tokenizer.decode(tokens[:-1]) == text
    assert tokens[-1] == END not in tokens[:-1] and max(tokens) < tokenizer.vocab_size
    assert len(tokens) <= len(text.encode()) + 1


def test_bytes_are_those_of_utf8_and_words_are_what_stands_between_spaces():
    assert Bytes().encode("né") == [110, 195, 169, END]
    assert Words(("a", " red", ",")).encode("a red, red") == [257, 258, 259, 258, END]
    assert Words((" red",)).encode("redred red Red") == [*b"redred", 257, *b" Red", END]
    assert Bytes().encode("") == [END]


def test_words_are_learned_by_frequency_and_among_equals_by_name():
    texts = ["two aa aa two", "2 2 2, , ,", "Bb é é"]  # a piece of one byte, as a comma, is a token already
    assert Words.learned(texts, 1024).words == (" 2", " aa", " é", " two", "Bb", "two")
    assert Words.learned(texts[::-1], 259).words == (" 2", " aa")
    assert Words.learned(texts, 257).words == () and Words.learned(texts, 257).vocab_size == Bytes.vocab_size


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Bytes().encode("half \ud83d"), "holds a lone surrogate.*write the character as a whole"),
        (lambda: LEARNED.encode("\udcff"), "lone surrogate"),
        (lambda: Words.learned(["a \udcff"], 300), "lone surrogate"),
        (lambda: LEARNED.decode([3, LEARNED.vocab_size]), rf"tokens 0 to {LEARNED.vocab_size - 1}, not \[\d+\]"),
        (lambda: Words(("two words",)), "is not one word"),
        (lambda: Words((" red", "a", " red")), "' red' comes twice"),
        (lambda: Words.learned(CAPTIONS, 256), "vocab_size must be an integer"),
        (lambda: Tokens(LEARNED, 3).cond("a red star"), "texts must be a sequence, each a text"),
    ],
)
def test_what_is_no_caption_word_or_token_is_refused_in_a_sentence(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_a_cut_character_is_shown_as_one_that_is_missing():
    assert Bytes().decode([97, 195]) == "a\ufffd"


def test_captions_are_padded_to_one_length_with_their_end_under_the_mask():
    cond = Tokens(Words(("a", " star")), max_tokens=5).cond(["a star!", ""])
    np.testing.assert_array_equal(cond["tokens"], [[257, 258, 33, END, 0], [END, 0, 0, 0, 0]])
    np.testing.assert_array_equal(cond["tokens_mask"].sum(1), [4, 1])
    assert cond["tokens"].dtype == np.int32 and Tokens(LEARNED, 7).cond([])["tokens"].shape == (0, 7)


def test_a_caption_that_is_too_long_is_named_with_its_tokens_or_cut_if_asked_for():
    text = Tokens(Bytes(), max_tokens=6)
    assert text.lengths(["a red star", "12345"]) == [11, 6]
    with pytest.raises(UsageError, match=r"The caption 'a red star' has 11 tokens.*text\.max_tokens=6;"):
        text.cond(["12345", "a red star"])
    cut = dataclasses.replace(text, truncate=True).cond(["a red star"])
    np.testing.assert_array_equal(cut["tokens"], [[*b"a red", END]])


@pytest.mark.parametrize("tokenizer", [Bytes(), LEARNED], ids=TOKENIZERS)
def test_a_text_condition_is_what_its_json_says(tokenizer):
    text = Tokens(tokenizer, 9, truncate=True)
    assert Tokens.of_json(text.to_json()) == text and text.to_json()["kind"] == "tokens"
    others = [Tokens(tokenizer, 8, truncate=True), Tokens(tokenizer, 9), Tokens(Words((" b",)), 9, truncate=True)]
    assert len({each.digest() for each in (text, *others)}) == 4


def test_tokens_and_their_mask_are_null_together():
    text = Tokens(Bytes(), 4)
    encoder = ENCODERS["tokens"](vocab_size=END + 1, max_tokens=4)
    cond = dropped(text.cond(["abc"] * 200), jax.random.split(jax.random.key(0), 200), 0.3)
    assert list(cond["null"]) == ["tokens"] and 30 < cond["null"]["tokens"].sum() < 90
    (_, null), (_, of_mask) = (read(cond, encoder.cond_entries, name, 200) for name in text.entries)
    np.testing.assert_array_equal(null, of_mask)


def test_a_caption_without_a_word_is_not_the_null_caption():
    text = Tokens(Bytes(), 4)
    encoder = ENCODERS["tokens"](vocab_size=END + 1, max_tokens=4, features=3)
    params = encoder.init(jax.random.key(0), text.cond([""]), 1)
    empty, null = (encoder.apply(params, cond, 1).vector for cond in (text.cond([""]), None))
    assert np.abs(empty - null).min() > 1e-4


IMAGES = np.zeros((4, 4, 4, 1), np.uint8)
SOURCE = InMemory(IMAGES, labels=np.arange(4), captions=CAPTIONS)


def test_a_captioned_source_has_the_entries_of_both():
    text = Tokens(LEARNED, 16)
    source, indices = Captioned(SOURCE, text), np.array([3, 1])
    images, cond = source.take(indices)
    assert source.cond_entries == tuple(cond) == ("labels", "tokens", "tokens_mask") and source.num_classes == 4
    np.testing.assert_array_equal(cond["labels"], indices)
    assert [LEARNED.decode(row) for row in cond["tokens"]] == [CAPTIONS[3], CAPTIONS[1]] == source.captions(indices)
    assert len(source) == 4 and images.shape == (2, 4, 4, 1) and captioned(SOURCE, None) is SOURCE


def test_the_digest_of_a_captioned_source_is_of_captions_and_of_how_they_are_read():
    others = [Captioned(SOURCE, Tokens(Bytes(), 32)), Captioned(SOURCE, Tokens(LEARNED, 16))]
    others += [Captioned(InMemory(IMAGES, captions=CAPTIONS[::-1]), Tokens(LEARNED, 16)), SOURCE]
    assert len({each.digest() for each in others}) == 4


def test_text_of_a_source_without_captions_or_with_tokens_is_refused():
    with pytest.raises(UsageError, match="Text needs captions, and this data set has none"):
        Captioned(InMemory(IMAGES), Tokens(Bytes()))
    with pytest.raises(UsageError, match="Text needs captions"):
        some_captions(InMemory(IMAGES))
    with pytest.raises(UsageError, match=r"has tokens of its own, and text\.\* makes them"):
        Captioned(InMemory(IMAGES, captions=CAPTIONS, tokens=np.zeros((4, 2))), Tokens(Bytes()))


def test_words_of_a_great_data_set_are_those_of_a_fixed_part():
    scenes = data.load("scenes", train=True, image_size=16, num_channels=3, scene_images=3000)
    assert some_captions(scenes, 1500) == scenes.captions(part_of(3000, 1500))
