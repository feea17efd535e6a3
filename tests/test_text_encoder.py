"""Encoders of text: what a caption's padding, order, absence and precision do to its embedding."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import relative, seeded

from score_sde.cond import fitted
from score_sde.errors import UsageError
from score_sde.models import ENCODERS, Compute

TEXT = ENCODERS["text"](vocab_size=9, max_tokens=5, features=8, depth=2, num_heads=2)
SEQUENCE = ENCODERS["sequence"](size=6, features=8, max_tokens=5)
MASK = np.array([[True, True, False], [True, True, True]])
VALUES = np.random.default_rng(0).standard_normal((2, 3, 6)).astype(np.float32)
CONDS = {
    "text": {"tokens": jnp.array([[1, 2, 3], [4, 5, 6]]), "tokens_mask": jnp.asarray(MASK)},
    "sequence": {"text": jnp.asarray(VALUES), "text_mask": jnp.asarray(MASK)},
}
NETWORKS = {"text": TEXT, "sequence": SEQUENCE}
each = pytest.mark.parametrize("name", NETWORKS)


def params_of(encoder):
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), None, 2))["params"]
    return jax.tree.map(jnp.asarray, seeded(shapes))


def embedded(encoder, cond, n=2):
    return encoder.apply({"params": params_of(encoder)}, cond, n)


@each
def test_the_vector_is_the_mean_over_tokens_and_padding_is_zero(name):
    vector, tokens, mask = embedded(NETWORKS[name], CONDS[name])
    np.testing.assert_array_equal(mask, np.pad(MASK, ((0, 0), (0, 2))))
    np.testing.assert_allclose(vector[0], tokens[0, :2].mean(0), rtol=1e-5)
    assert not np.any(tokens[~mask]) and np.all(np.any(tokens[mask], axis=1))


@each
def test_padding_changes_no_bit_whatever_it_is_and_however_long(name):
    (entry, values), (entry_mask, mask) = CONDS[name].items()
    seen, expected = jnp.expand_dims(mask, tuple(range(2, values.ndim))), embedded(NETWORKS[name], CONDS[name])
    for filling in (0, 8, -1, 10**6) if name == "text" else (0.0, 1.0, np.nan, np.inf):
        cond = {entry: jnp.where(seen, values, filling), entry_mask: mask}
        assert set(fitted(cond, NETWORKS[name].cond_entries, 2)) == set(cond)
        jax.tree.map(np.testing.assert_array_equal, embedded(NETWORKS[name], cond), expected)
    longer = {name: jnp.pad(each, ((0, 0), (0, 2), *((0, 0),) * (each.ndim - 2))) for name, each in CONDS[name].items()}
    jax.tree.map(np.testing.assert_array_equal, embedded(NETWORKS[name], longer), expected)


@each
def test_none_is_the_null_caption_to_the_last_bit_and_has_one_learned_token(name):
    (entry, _), _ = CONDS[name].items()
    none = embedded(NETWORKS[name], None)
    jax.tree.map(
        np.testing.assert_array_equal,
        embedded(NETWORKS[name], CONDS[name] | {"null": {entry: jnp.ones(2, bool)}}),
        none,
    )
    without = params_of(NETWORKS[name])["null"]
    np.testing.assert_array_equal(none.vector, np.tile(without, (2, 1)))
    np.testing.assert_array_equal(none.tokens[:, 0], none.vector)
    assert none.mask.tolist() == [[True] + 4 * [False]] * 2


@each
def test_a_caption_without_a_token_is_finite_and_not_null(name):
    _, entry_mask = CONDS[name]
    empty = embedded(NETWORKS[name], CONDS[name] | {entry_mask: jnp.zeros((2, 3), bool)})
    assert not np.any(empty.vector) and not np.any(empty.tokens) and not np.any(empty.mask)


@each
def test_too_many_tokens_are_one_sentence(name):
    longer = jax.tree.map(lambda each: jnp.concatenate([each, each], 1), CONDS[name])
    with pytest.raises(UsageError, match="has 6 tokens, and the encoder takes 5"):
        embedded(NETWORKS[name], longer)


def test_a_transformer_sees_no_padding():
    short = dataclasses.replace(TEXT, max_tokens=2)
    params = params_of(TEXT)
    cut = params | {"places": params["places"][:2]}
    first = {name: rows[:1, :2] for name, rows in CONDS["text"].items()}
    alone = short.apply({"params": cut}, first, 1)
    np.testing.assert_allclose(embedded(TEXT, CONDS["text"]).tokens[0, :2], alone.tokens[0], atol=1e-5)


def test_the_order_of_words_is_known_by_their_places_alone():
    order, params = np.array([2, 0, 1]), params_of(TEXT)
    moved = CONDS["text"] | {"tokens": CONDS["text"]["tokens"][:, order]}
    vector = embedded(TEXT, CONDS["text"]).vector[1]
    assert relative(embedded(TEXT, moved).vector[1], vector) > 1e-2
    places = params | {"places": params["places"][np.array([2, 0, 1, 3, 4])]}
    np.testing.assert_allclose(TEXT.apply({"params": places}, moved, 2).vector[1], vector, atol=1e-5)


def test_a_token_reads_the_others():
    other = CONDS["text"] | {"tokens": CONDS["text"]["tokens"].at[1, 2].set(0)}
    moved = np.abs(embedded(TEXT, other).tokens - embedded(TEXT, CONDS["text"]).tokens).max(-1)
    assert np.all(moved[1, :3] > 1e-3) and not np.any(moved[0])


def test_features_are_normalised_and_mapped():
    params, standard = params_of(SEQUENCE), VALUES - VALUES.mean(-1, keepdims=True)
    standard = standard / np.sqrt(VALUES.var(-1, keepdims=True) + 1e-5)
    h = standard * params["norm"]["scale"] + params["norm"]["bias"]
    h = h @ params["linear"]["kernel"] + params["linear"]["bias"]
    np.testing.assert_allclose(embedded(SEQUENCE, CONDS["sequence"]).tokens[1, :3], h[1], atol=1e-5)


class Vector(nn.Module):
    """A network that is its encoder's vector."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, cond):
        return self.encoder(cond, 2).vector


def test_an_encoder_computes_as_its_network_does():
    variables = {"params": {"encoder": params_of(TEXT)}}
    cond = CONDS["text"] | {"null": {"tokens": jnp.array([True, False])}}

    def gradient(compute):
        return jax.grad(lambda of: jnp.sum(jnp.square(compute.apply(Vector(TEXT), of, cond))))(variables)

    again = jax.tree.map(relative, gradient(Compute(remat=True)), gradient(Compute()))
    assert max(jax.tree.leaves(again)) < 1e-5
    rough, exact = (compute.apply(Vector(TEXT), variables, cond) for compute in (Compute(jnp.bfloat16), Compute()))
    assert rough.dtype == jnp.float32 and 1e-4 < relative(rough, exact) < 5e-2


def test_heads_that_do_not_divide_the_width_are_one_sentence():
    with pytest.raises(UsageError, match=r"encoder\.num_heads=3 does not divide .* choose one of 1, 2, 4, 8"):
        dataclasses.replace(TEXT, num_heads=3).check()
