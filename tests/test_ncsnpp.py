import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from score_sde.errors import UsageError
from score_sde.models import NCSNpp, is_trainable
from score_sde.randomness import batch_keys


def shapes(network, image_size=32, channels=3):
    x = np.zeros((1, image_size, image_size, channels), np.float32)
    return jax.eval_shape(network.init, jax.random.key(0), x, np.ones(1, np.float32))["params"]


def images(n, size):
    return np.random.default_rng(0).standard_normal((n, size, size, 1), np.float32)


def random_params(network, image_size=8, channels=1):
    """Any numbers, drawn without compiling the initialisers."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: (0.2 * rng.normal(size=s.shape)).astype(np.float32), shapes(network, image_size, channels)
    )


def test_leaves_are_named_as_in_the_papers_checkpoints():
    names = {"/".join(path): leaf.shape for path, leaf in traverse_util.flatten_dict(shapes(NCSNpp())).items()}
    assert names["GaussianFourierProjection_0/W"] == (128,)
    assert names["Dense_0/kernel"] == (256, 512)
    assert names["Conv_0/kernel"] == (3, 3, 3, 128)
    assert names["ResnetBlockBigGANpp_5/Conv_2/kernel"] == (1, 1, 128, 256)
    assert names["ResnetBlockBigGANpp_43/GroupNorm_1/scale"] == (128,)
    assert names["AttnBlockpp_5/NIN_3/W"] == (256, 256)
    assert names["Conv_1/kernel"] == (3, 3, 128, 3)
    pyramids = NCSNpp(progressive_input="residual", num_res_blocks=1)
    residual = {"/".join(path) for path in traverse_util.flatten_dict(shapes(pyramids))}
    assert "Downsample_2/Conv2d_0/weight" in residual
    skips = NCSNpp(progressive="output_skip", progressive_input="input_skip", num_res_blocks=1)
    combined = {"/".join(path) for path in traverse_util.flatten_dict(shapes(skips))}
    assert "Combine_2/Conv_0/kernel" in combined
    assert "Conv_4/kernel" in combined
    assert not any("sample" in name for name in combined)  # the pyramids' filters have no leaves


@pytest.mark.parametrize(
    "options",
    [
        dict(resblock_type="ddpm", fir=False),
        dict(resblock_type="ddpm", fir=True, resamp_with_conv=False),
        dict(progressive="residual", progressive_input="input_skip", progressive_combine="cat"),
        dict(progressive="output_skip", progressive_input="residual", fir=False),
        dict(conditional=False, embedding_type="positional", skip_rescale=False),
        dict(nonlinearity="elu", ch_mult=(1, 1, 2), init_scale=1.0),
    ],
)
def test_every_option_gives_an_image_of_the_inputs_shape(options):
    network = NCSNpp(**{"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), **options})
    network.check(8)
    x, label = images(2, 8), np.array([0.5, 2.0])
    y = jax.jit(network.apply)({"params": random_params(network)}, x, label)
    assert y.shape == x.shape
    assert np.all(np.isfinite(y))


def test_every_parameter_of_a_two_level_network_gets_a_gradient_but_the_fixed_frequencies():
    network = NCSNpp(
        nf=8,
        ch_mult=(1, 2),
        num_res_blocks=1,
        attn_resolutions=(4,),
        progressive="residual",
        progressive_input="residual",
    )
    x, label = images(2, 8), np.array([0.5, 2.0])

    def loss(params, x, label):
        return jnp.sum(jnp.square(network.apply({"params": params}, x, label)))

    gradients = jax.device_get(jax.jit(jax.grad(loss))(random_params(network), x, label))
    gradients = traverse_util.flatten_dict(gradients)
    for path, gradient in gradients.items():
        assert np.all(np.isfinite(gradient)), path
        # A key's bias shifts all logits of a row alike, which the softmax ignores.
        assert np.any(gradient) == (is_trainable(path) and path[-2:] != ("NIN_1", "b")), path


def test_dropout_acts_in_training_only():
    network = NCSNpp(nf=8, ch_mult=(1,), num_res_blocks=1, dropout=0.5)
    x, label = images(2, 4), np.ones(2)
    params = {"params": random_params(network, image_size=4)}
    apply, keys = jax.jit(network.apply), batch_keys(jax.random.key(0), 3)

    def dropped(x, keys):
        return apply(params, x, label, dropout_keys=keys)

    first, other, none = dropped(x, keys[:2]), dropped(x, keys[1:]), dropped(x, None)
    assert not np.array_equal(first, other) and not np.array_equal(first, none)
    # An image's mask is its key's, wherever it is in the batch.
    np.testing.assert_allclose(dropped(x[::-1], keys[1::-1])[::-1], first, rtol=1e-5, atol=1e-6)


def test_images_of_a_batch_do_not_see_each_other():
    network = NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,))
    x, label = images(3, 8), np.array([0.1, 1.0, 10.0])
    params, apply = {"params": random_params(network)}, jax.jit(network.apply)
    alone, together = np.asarray(apply(params, x[1:2], label[1:2])), apply(params, x, label)[1:2]
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(alone).max())
    other = apply(params, x + (np.arange(3) == 0)[:, None, None, None], label)[1:2]
    np.testing.assert_array_equal(together, other)


def test_classes_are_one_leaf_more_and_told_by_it():
    small = dict(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,))
    without, network = NCSNpp(**small), NCSNpp(**small, num_classes=3)
    more = traverse_util.flatten_dict(shapes(network, 8, 1), sep="/")
    assert more.pop("Embed_0/embedding").shape == (4, 32)
    assert list(more.items()) == list(traverse_util.flatten_dict(shapes(without, 8, 1), sep="/").items())
    x, label = images(3, 8), np.array([0.1, 1.0, 10.0])
    params, apply = random_params(network), jax.jit(network.apply)
    untold = np.asarray(apply({"params": params}, x, label))
    labels, none = np.array([2, 0, 1]), np.array([True, False, False])
    every = {"labels": labels, "null": {"labels": none | True}}
    np.testing.assert_array_equal(apply({"params": params}, x, label, every), untold)
    told = np.asarray(apply({"params": params}, x, label, every | {"null": {"labels": none}}))
    np.testing.assert_array_equal(told[0], untold[0])
    assert all(np.abs(told[i] - untold[i]).max() > 1e-3 for i in (1, 2))
    params["Embed_0"]["embedding"] = np.zeros((4, 32), np.float32)
    plain = {key: value for key, value in params.items() if key != "Embed_0"}
    np.testing.assert_allclose(
        apply({"params": params}, x, label), jax.jit(without.apply)({"params": plain}, x, label), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "image_size", "words"),
    [
        (dict(nonlinearity="swisch"), 8, "did you mean 'swish'"),
        (dict(ch_mult=(1, 2, 2, 2)), 12, "not divisible by 8"),
        (dict(ch_mult=(0, 2)), 8, "ch_mult"),
        (dict(nf=10), 8, "multiple of 4"),
        (dict(dropout=1.0), 8, "dropout"),
        (dict(num_classes=-1), 8, "num_classes must be an integer of 0 or more, and is -1"),
        (dict(num_classes=3, conditional=False), 8, r"model\.conditional=True"),
        (dict(augment_dim=9, conditional=False), 8, r"model\.conditional=True"),
        (dict(label_embedding="tables"), 8, "label_embedding must be"),
    ],
)
def test_impossible_options_are_refused(options, image_size, words):
    with pytest.raises(UsageError, match=words):
        NCSNpp(**options).check(image_size)


def test_labels_of_augmentations_are_for_networks_that_take_them():
    network = NCSNpp(nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=())
    with pytest.raises(UsageError, match=r"set model\.augment_dim"):
        jax.eval_shape(
            lambda: network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.ones(1), augment=jnp.zeros((1, 9)))
        )


def test_a_linear_embedding_begins_as_the_other_layers_of_the_embedding():
    """Uniform with the variance 2 / (k + d) of k classes and d features, as EDM's begins; no bias for augmentations."""
    network = NCSNpp(nf=8, ch_mult=(1,), num_res_blocks=1, num_classes=3, label_embedding="linear", augment_dim=9)

    def embeddings():
        params = network.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.ones(1))["params"]
        return params["of_labels"], params["of_augment"]

    of_labels, of_augment = jax.jit(embeddings)()
    assert set(of_augment) == {"kernel"} and not of_labels["bias"].any()
    for kernel in (of_labels["kernel"], of_augment["kernel"]):
        bound = np.sqrt(6 / sum(kernel.shape))
        assert 0.9 * bound < np.abs(kernel).max() <= bound
