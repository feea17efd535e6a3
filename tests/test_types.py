"""With 64-bit types on, float32 programs stay as they are: types are stated, not left to JAX's default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import images
from score_sde.conditioning import GUIDES, Average, Blur, Inpaint, Observation, Options, Sense, particles, projection
from score_sde.likelihood import DIVERGENCES, bits_per_dim, dequantization
from score_sde.likelihood.bound import likelihood_bound
from score_sde.models import DDPM, Dequantizer, NCSNpp, WideResnet
from score_sde.oracles import Empirical, Gaussian, Mixture
from score_sde.paths import Cosine
from score_sde.randomness import keep_mask
from score_sde.sampling import CORRECTORS, PREDICTORS, SAMPLERS
from score_sde.sde import VE, VP, SubVP
from score_sde.times import TIMES
from score_sde.training.build import Dequantizing, Experiment
from score_sde.training.run import train_step

N, SHAPE = 2, (4, 4, 3)
KEYS = jax.ShapeDtypeStruct((N,), jax.random.key(0).dtype)
DATA = Gaussian(np.zeros(SHAPE), 0.3)
KINDS = [np.float32, np.float64]


@pytest.fixture(autouse=True)
def _wide():
    """What JAX_ENABLE_X64=1 sets."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def images_of(kind, shape=SHAPE):
    return jax.ShapeDtypeStruct((N, *shape), kind)


def times_of(kind):
    return jax.ShapeDtypeStruct((N,), kind)


def doubles(jaxpr) -> list[str]:
    """The operations of a program whose results are float64, and which others would take: numbers of Python do not."""
    found = []
    for equation in jaxpr.eqns:
        results = [out.aval for out in equation.outvars if getattr(out.aval, "dtype", None) == np.float64]
        found += [str(equation) for result in results if not result.weak_type]
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            found += doubles(inner) if hasattr(inner, "eqns") else []
    return found


def assert_kept(kind, fn, *arguments):
    """In float32 no number of the program is wider, and in float64 every result is."""
    program = jax.make_jaxpr(fn)(*arguments)
    results = {out.dtype for out in program.out_avals if jnp.issubdtype(out.dtype, jnp.floating)}
    assert results == {np.dtype(kind)}
    if kind == np.float32:
        assert doubles(program.jaxpr) == []


def assert_solver_kept(kind, solver):
    def run(keys, x):
        state = solver.step(solver.init(keys, x))
        result = jax.tree.leaves(solver.result(state))
        return [leaf for leaf in result if jnp.issubdtype(leaf.dtype, jnp.floating)], solver.view(state)

    assert_kept(kind, run, KEYS, images_of(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ode", "adaptive", "ddim", "edm_stochastic", "unipc_3"])  # tables have one loop
def test_a_sampler_computes_in_the_type_of_x(name, kind):
    assert_solver_kept(kind, SAMPLERS[name](VP(), DATA.model(VP())))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictors_and_correctors_compute_in_the_type_of_x(predictor, sde, kind):
    for corrector in [name for name in CORRECTORS if name != "none"] if predictor == "none" else ["none"]:
        assert_solver_kept(kind, SAMPLERS["pc"](sde, DATA.model(sde), predictor=predictor, corrector=corrector))


@pytest.mark.parametrize("kind", KINDS)
def test_oracles_compute_in_the_type_of_x(kind):
    known = Mixture([0.5, 0.5], [Gaussian(np.zeros(SHAPE), np.eye(48)), Empirical(np.ones((3, *SHAPE)))])
    for of in (known.score, known.log_density, known.posterior_mean):
        assert_kept(kind, lambda x, t, of=of: of(SubVP(), x, t), images_of(kind), times_of(kind))
    exact = lambda x, t: (DATA.flow(VE(), x, t, t), DATA.bits_per_dim(VE(), x), VE().prior_logp(x))  # noqa: E731
    assert_kept(kind, exact, images_of(kind), times_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_compute_in_the_type_of_x(kind):
    score = DATA.model(VP())
    assert_kept(kind, likelihood_bound(VP(), score, num_times=2), KEYS, images_of(kind))
    for name in DIVERGENCES if kind == np.float32 else ["rademacher"]:
        assert_solver_kept(kind, bits_per_dim(VP(), score, offset_bits=0, divergence=name, num_probes=3))


def test_what_is_drawn_is_float32():
    known = Mixture([0.5, 0.5], [DATA, Empirical(np.ones((3, *SHAPE)))])
    for draw in (known.sample, lambda keys: VE().prior_sample(keys, SHAPE)):
        assert_kept(np.float32, draw, KEYS)
    for name, law in TIMES.items():
        sde = VP() if name == "chain" else Cosine()
        assert_kept(np.float32, lambda keys, sde=sde, law=law: law().sample(sde, keys), KEYS)
    for q in (
        dequantization.uniform(images.UNIT),
        dequantization.truncated_normal(VP(), images.CENTERED, dequantized=True),
        dequantization.variational(images.CENTERED, dequantization.unlearned),
    ):
        assert_kept(np.float32, q.sample, KEYS, images_of(np.float32))
    wide = jax.eval_shape(lambda keys: keep_mask(keys, SHAPE, 0.1)[0], KEYS)
    assert wide.shape == (N, *SHAPE)


def given(inverse, operator, y, keys, x):
    """A step to samples given y."""
    sde, score, seen = VP(), DATA.model(VP()), Observation(operator, y, np.full(N, 0.1, np.float32))
    if inverse == "particles":
        solver = particles(sde, score, seen.repeated(2), Options(), num_particles=2)
    elif inverse == "projection":
        held = projection(sde, seen)
        solver, x = SAMPLERS["ddim"](sde, score, project=held.project), held.start(x)
    else:
        solver = SAMPLERS["ddim"](sde, GUIDES[inverse](sde, score, seen, Options()))
    return solver.result(solver.step(solver.init(keys, x)))[0]


@pytest.mark.parametrize("operator", [Average(2), Average(grey=True), Blur(1.0), Sense(0.5)], ids=repr)
def test_observations_are_made_in_float32(operator):
    x = images_of(np.float32)
    y = jax.eval_shape(operator.forward, x)
    assert_kept(np.float32, lambda y: (operator.least_squares(y), operator.picture(y), operator.measured(y)), y)
    assert_kept(np.float32, lambda *arguments: given("pigdm", operator, *arguments), y, KEYS, x)


@pytest.mark.parametrize("inverse", [*GUIDES, "projection", "particles"])
def test_samples_given_observations_are_computed_in_float32(inverse):
    operator, x = Inpaint(np.ones((N, 4, 4, 1), bool)), images_of(np.float32)
    assert_kept(np.float32, lambda *arguments: given(inverse, operator, *arguments), x, KEYS, x)


NETWORKS = [
    DDPM(nf=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(8,)),
    NCSNpp(nf=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), embedding_type="fourier"),
    WideResnet(blocks_per_group=1, channel_multiplier=1),
    Dequantizer(nf=8, num_res_blocks=1),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
def test_the_numbers_of_a_network_are_float32(network):
    x, label = jnp.zeros((1, 8, 8, 3), jnp.float32), jnp.ones(1, jnp.float32)
    arguments = (x,) if isinstance(network, Dequantizer) else (x, label)
    assert_kept(np.float32, lambda: network.init_with_output(jax.random.key(0), *arguments))


def test_updates_and_losses_are_computed_in_float32(tiny_config, one_block):
    experiment = Experiment(tiny_config())
    pixels, state = images_of(np.uint8, experiment.image_shape), experiment.state_shapes
    assert_kept(np.float32, train_step(experiment), state, pixels)
    indices = jax.ShapeDtypeStruct((N,), np.int32)
    assert_kept(np.float32, experiment.evaluation, state.params, pixels, np.int32(0), indices)
    parts = Dequantizing(experiment, dict(experiment.config.dequantizer) | {"nf": 4, "num_res_blocks": 1})
    params, x = jax.eval_shape(parts.init_state).params, images_of(np.float32, experiment.image_shape)
    assert_kept(np.float32, parts.loss, params, state.params, KEYS, x)
