"""Objectives as a config chooses them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_sde.configs.edm.digits_ddpmpp import get_config as edm
from score_sde.configs.flow.digits_ddpmpp_velocity import get_config as flow
from score_sde.configs.vp.digits_ddpmpp_continuous import get_config as vp

from score_sde.errors import UsageError
from score_sde.io.workdir import completed
from score_sde.objective import Objective, network_params
from score_sde.parameterization import PARAMETERIZATIONS, KarrasF, Noise, ScaledScore, Velocity
from score_sde.paths import Cosine, Linear
from score_sde.sde import EDM, VE, VP
from score_sde.times import LogitNormal, LogNormal, OnChain, Uniform
from score_sde.training.build import Experiment
from score_sde.training.classification import Classification
from score_sde.training.recipe import check_overrides, objective_of
from score_sde.weights import KarrasWeight, LikelihoodWeight, NoiseWeight, VelocityWeight

KEYS = jax.ShapeDtypeStruct((2,), jax.random.key(0).dtype)


def of(get_config=vp, **values):
    config = get_config()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in values.items()})
    return config


@pytest.mark.parametrize(
    ("config", "objective"),
    [
        (of(), Objective(VP(), Noise("time"), Uniform(), NoiseWeight("mean"))),
        (
            of(training__continuous=False, training__reduce_mean=False),
            Objective(VP(), Noise("chain_index"), OnChain(), NoiseWeight("half_sum")),
        ),
        (of(training__likelihood_weighting=True), Objective(VP(), Noise(), Uniform(), LikelihoodWeight("mean"))),
        (of(flow), Objective(Linear(), Velocity(), LogitNormal(), VelocityWeight())),
        (of(edm), Objective(EDM(), KarrasF(), LogNormal(), KarrasWeight())),
        (
            of(process__name="cosine", process__s=0.01, parameterization__name="noise", weight__reduction="sum"),
            Objective(Cosine(s=0.01), Noise(), Uniform(), NoiseWeight("sum")),
        ),
        (
            of(process__name="ve", process__sigma_max=20.0, model__scale_by_sigma=True),
            Objective(VE(sigma_max=20.0), ScaledScore(), Uniform(), NoiseWeight()),
        ),
    ],
    ids=["vp", "ddpm", "likelihood", "flow", "edm", "cosine", "ve"],
)
def test_a_config_is_the_objective_that_its_values_name(config, objective):
    assert objective_of(config) == objective


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (dict(process__name="linear"), "parameterization.name: noise"),
        (dict(process__s=0.1), "set that too"),
        (dict(process__name="linear", process__s=0.1), "process.s is not an argument of Linear"),
        (dict(times__name="uniform", training__continuous=False), "times.name=chain"),
        (dict(weight__name="noise", training__likelihood_weighting=True), "weight.name=likelihood"),
        (dict(process__name="cosine", parameterization__name="v", times__name="chain"), "Cosine has no chain"),
        (dict(weight__name="velocity", training__continuous=False), "no velocity and no g"),
        (dict(parameterization__name="edm", data__centered=False), "data.centered=True"),
        (dict(parameterization__name="edm", model__embedding_type="fourier"), "embedding_type=positional"),
        (dict(parameterization__name="velocty"), "did you mean 'velocity'"),
        (dict(times__name="lognormal", times__P_std=-1.0), "times.P_std"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(values, words):
    with pytest.raises(UsageError) as error:
        Experiment(of(**values))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("values", "override"),
    [
        (dict(process__name="linear"), "sde.beta_max"),
        (dict(times__name="lognormal"), "training.continuous"),
        (dict(weight__name="edm"), "training.likelihood_weighting"),
        (dict(weight__reduction="sum"), "training.reduce_mean"),
        (dict(parameterization__name="v"), "model.scale_by_sigma"),
    ],
)
def test_a_key_of_the_papers_is_not_overridden_where_a_section_takes_its_place(values, override):
    check_overrides(of(), [override])
    with pytest.raises(UsageError, match=f"{override} has no effect"):
        check_overrides(of(**values), [override])


def test_a_workdir_of_before_these_sections_means_the_papers_keys():
    config = vp().to_dict()
    sections = ("process", "parameterization", "times", "weight")
    older = {key: value for key, value in config.items() if key not in sections}
    assert {key: completed(older)[key] for key in sections} == {key: config[key] for key in sections}


def test_a_classifier_has_no_parameterization_and_needs_data_at_every_time(tiny_config):
    for values, words in (
        ({"parameterization.name": "v"}, "unset parameterization"),
        ({"process.name": "linear"}, "process like vp"),
    ):
        config = tiny_config("vp/digits_wideresnet")
        config.update_from_flattened_dict(values)
        with pytest.raises(UsageError, match=words):
            Classification(config)


@pytest.fixture
def learned(tiny_config, one_block):
    config = tiny_config()
    config.update_from_flattened_dict(
        {"process.name": "edm", "parameterization.name": "edm", "times.name": "lognormal", "sampling.method": "ddim"}
    )
    config.weight.update(name="uncertainty", features=4)
    config.optim.warmup = 0
    return Experiment(config)


def test_a_learned_weight_is_part_of_the_state_and_of_the_loss_and_not_of_the_network(learned):
    state = learned.state_shapes
    assert state.params["weight"].keys() == state.ema_params["weight"].keys() == {"bias", "kernel"}
    params = learned.init_params()
    assert "weight" not in network_params(params)
    keys, x = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 1))

    @jax.jit
    def rate(params):
        def of(bias):
            return jnp.sum(learned.loss(params | {"weight": params["weight"] | {"bias": bias}}, keys, x))

        return jax.jvp(of, (jnp.zeros(()),), (jnp.ones(()),))

    loss, slope = rate(params)  # the network returns 0 at first, and its loss is that of the data, which are not normal
    np.testing.assert_allclose(slope, 2 - loss, rtol=1e-5)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_every_row_is_traced_in_training_from_a_config(name, tiny_config, one_block):
    config = tiny_config()
    config.process.name, config.parameterization.name = "edm", name
    built = Experiment(config)
    loss = jax.eval_shape(
        functools.partial(built.loss, training=True),
        built.param_shapes,
        KEYS,
        jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32),
    )
    assert loss.shape == (2,)
