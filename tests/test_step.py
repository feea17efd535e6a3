"""How a step is computed changes its speed and its memory, and not what it computes."""

import platform
import resource

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

from score_sde.errors import UsageError
from score_sde.models import ADM, DDPM, PRECISIONS, NCSNpp, NCSNv2, WideResnet
from score_sde.models.layers import GroupNorm
from score_sde.randomness import batch_keys, keep_mask
from score_sde.training import run as training
from score_sde.training.build import Experiment

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)


class Step:
    """The loss and gradient that a step updates by, at parameters that no zero hides."""

    def __init__(self, **options):
        config = get_config()
        config.model.update(nf=8, ch_mult=(1, 2), num_res_blocks=1, dropout=0.3, fir=True, progressive_input="residual")
        config.training.update(options)
        self.experiment = Experiment(config)
        self.experiment.optimizer = optax.GradientTransformation(
            lambda params: params, lambda grads, *_: (grads, grads)
        )

        def draw(shape):
            return 0.3 * np.random.default_rng(shape.size).standard_normal(shape.shape, np.float32)

        zeros = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), self.experiment.state_shapes)
        self.state = zeros._replace(params=jax.tree.map(draw, self.experiment.param_shapes))
        self.step = jax.jit(training.train_step(self.experiment))

    def __call__(self):
        state, loss = self.step(self.state, PIXELS)
        return float(loss), jax.tree.map(np.asarray, state.opt_state)


@pytest.fixture(scope="module")
def whole():
    """Loss and gradient of the whole batch at once."""
    return Step()()


def distance(gradient, expected) -> float:
    """Relative to the second."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True)
    squares = [(np.sum(np.square(a - b)), np.sum(np.square(b))) for a, b in pairs]
    return float(np.sqrt(np.divide(*np.sum(squares, axis=0))))


def test_parts_of_a_batch_and_blocks_computed_twice_give_the_same_gradient(whole):
    (loss, gradient), (expected, of_all) = Step(accumulate=4, remat=True)(), whole
    np.testing.assert_allclose(loss, expected, rtol=5e-6)
    assert distance(gradient, of_all) < 1e-5  # dropout too is an image's own, wherever it is computed


def test_gradients_through_bfloat16_features_are_float32_and_near(whole):
    (loss, gradient), (expected, exact) = Step(precision="bfloat16")(), whole
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype("float32")}
    np.testing.assert_allclose(loss, expected, rtol=0.02)
    assert 1e-4 < distance(gradient, exact) < 0.1


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("model", ["ncsnpp", "pyramid", "ddpm", "adm", "ncsnv2_64", "wideresnet"])
def test_only_what_sees_or_gives_an_image_is_computed_in_float32_among_bfloat16_features(model):
    network = {
        "ncsnpp": NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, progressive_input="residual"),
        "pyramid": NCSNpp(
            nf=8, ch_mult=(1, 2), num_res_blocks=1, progressive="output_skip", progressive_input="input_skip"
        ),
        "ddpm": DDPM(nf=32, ch_mult=(1, 2), num_res_blocks=1),
        "adm": ADM(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,), num_heads=2),
        "ncsnv2_64": NCSNv2(nf=8),
        "wideresnet": WideResnet(blocks_per_group=1, channel_multiplier=1),
    }[model]
    x = jnp.zeros((2, 16, 16, 3))
    params = jax.eval_shape(network.init, jax.random.key(0), x, jnp.ones(2))

    def convolutions(precision: str) -> list[tuple[str, str]]:
        """(type, precision) of each."""
        jaxpr = jax.make_jaxpr(lambda p: PRECISIONS[precision].apply(network, p, x, jnp.ones(2)))(params)
        found = [equation for equation in equations(jaxpr.jaxpr) if str(equation.primitive) == "conv_general_dilated"]
        return [(str(one.outvars[0].aval.dtype), str(one.params["precision"])) for one in found]

    exact, usual, mixed = map(convolutions, ("float32", "tf32", "bfloat16"))
    assert len(exact) == len(usual) == len(mixed) > 5
    assert {kind for kind, _ in exact} == {"float32"} and all("HIGHEST" in products for _, products in exact)
    assert not any("HIGH" in products for _, products in usual + mixed)
    kinds = [kind for kind, _ in mixed]
    images = {"ncsnpp": 3, "pyramid": 4, "wideresnet": 1}.get(model, 2)
    assert kinds.count("float32") == images and kinds.count("bfloat16") == len(kinds) - images


def test_statistics_of_bfloat16_features_are_float32():
    x = 200 + jax.random.normal(jax.random.key(0), (2, 16, 16, 8))
    norm, rounded = GroupNorm(PRECISIONS["bfloat16"]), x.astype(jnp.bfloat16)
    params = norm.init(jax.random.key(1), x)
    exact = norm.apply(params, rounded.astype(jnp.float32))
    np.testing.assert_array_equal(norm.apply(params, rounded), exact.astype(jnp.bfloat16))
    assert abs(float(exact.std()) - 1) < 0.01


def test_dropout_keeps_at_its_rate_by_the_key_of_each_image():
    keys = batch_keys(jax.random.key(0), 64)
    kept, probability = keep_mask(keys, (7, 11, 13), 0.1)
    assert abs(probability - 0.9) < 1e-5
    assert abs(np.mean(kept) - 0.9) < 4 * np.sqrt(0.09 / kept.size)
    np.testing.assert_array_equal(keep_mask(keys[9:12], (7, 11, 13), 0.1)[0], kept[9:12])
    assert abs(np.corrcoef(np.asarray(kept[0]).ravel(), np.asarray(kept[1]).ravel())[0, 1]) < 4 / np.sqrt(kept[0].size)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or jax.default_backend() != "cpu", reason="of glibc, on CPUs")
def test_an_update_finds_the_memory_of_the_one_before_it():
    x, w = jnp.ones((2**16, 16)), jnp.ones((16, 256))
    program = jax.jit(lambda x, w: jnp.sin(x @ w) @ w.T)  # 64 MiB between the products, of 16,384 pages
    faults = []
    for _ in range(16):
        program(x, w).block_until_ready()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert faults[-1] - faults[3] < 12 * 16384 / 2


@pytest.mark.parametrize(
    "section, values, message",
    [
        ("training", dict(precision="fp16"), "training.precision"),
        ("training", dict(accumulate=0), "training.accumulate"),
        ("eval", dict(precision="bfloat16"), "set eval.precision to tf32 or float32"),
        ("sampling", dict(batch_size=-4), "sampling.batch_size=-4 must not be negative"),
        ("sampling", dict(precision="bfloat16", method="ode"), "bfloat16 does not resolve"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(tiny_config, section, values, message):
    config = tiny_config()
    config[section].update(values)
    with pytest.raises(UsageError, match=message):
        Experiment(config)


def test_a_batch_must_split_into_its_parts(tiny_config, tmp_path):
    config = tiny_config()
    config.training.accumulate = 3
    with pytest.raises(UsageError, match=r"a multiple of training\.accumulate=3"):
        training.train(config, tmp_path)
    assert not list(tmp_path.iterdir())
