"""The modules of the mathematics under arguments that do not fit: nothing but `UsageError`, and no NaN.

Public are: each name in a room's `__init__`, each function and class without a leading underscore of the other modules,
the methods of these classes that users call, and the entries of the dictionaries of choices. Each is in `CALLS` with
valid arguments, which are as small as they can be, or in `EXCEPTIONS` with the reason.
"""

import functools
import importlib
import inspect
import io
import pkgutil

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import quick, survives
from hypothesis import given, strategies

import score_sde.likelihood
import score_sde.sampling
from score_sde import ema, images, learned, objective, oracles, parameterization, paths, process, randomness, sde, times
from score_sde import weights as weight
from score_sde.likelihood import bound, dequantization, ode
from score_sde.process import Prediction
from score_sde.sampling import (
    adaptive,
    brownian,
    clipping,
    compaction,
    correctors,
    fast,
    grids,
    predictor_corrector,
    predictors,
    probability_flow,
    rows,
    runge_kutta,
    runner,
    solver,
    tabulated,
)
from score_sde.sampling.predictor_corrector import time_steps
from score_sde.sampling.probability_flow import drift, slerp

ROOMS = (score_sde.sampling, score_sde.likelihood)
FLAT = (randomness, images, ema, process, sde, learned, paths, parameterization, times, weight, objective, oracles)

SHAPE = (2, 2, 1)
X, T = np.full((2, *SHAPE), 0.25, np.float32), [0.25, 0.75]
PIXELS = np.full((2, *SHAPE), 7, np.uint8)
KEY, KEYS = jax.random.key(0), jax.random.split(jax.random.key(0), 2)
PROCESSES = {
    "VP": sde.VP(beta_max=2.0, num_scales=4),
    "SubVP": sde.SubVP(beta_max=2.0, num_scales=4),
    "VE": sde.VE(num_scales=4),
    "EDM": sde.EDM(num_scales=4),
    "Linear": paths.Linear(),
    "Trigonometric": paths.Trigonometric(),
    "Cosine": paths.Cosine(),
    "Learned": learned.Learned(pieces=2),
}
VP = PROCESSES["VP"]
DATA = oracles.Gaussian(np.zeros(SHAPE), 0.25)
MODEL = DATA.model(VP)
PREDICTION = Prediction(jnp.asarray(X), jnp.asarray(X))
OBJECTIVE = objective.Objective(VP, parameterization.Noise(), times.Uniform(), weight.NoiseWeight())
PROFILES = (ema.Constant(0.9), ema.Power(0.1))
PARAMS = {"w": jnp.ones(2)}
AVERAGES = ema.initial(PROFILES, PARAMS)
GRID = rows.Grid(VP, np.array([1.0, 0.5, 0.1]))
FAST = solver.Solver(*fast.fast_solver(VP, MODEL, num_steps=2))


def network(x, noise_cond):
    return -x


def sampled(make):
    """Builds a sampler and runs it, operation by operation, if its number of steps is finite; otherwise traces it."""

    def call(**arguments):
        one = make(**arguments)
        if one.steps is None:
            return jax.eval_shape(lambda: solver.solve(one, KEYS, X)) and None
        with jax.disable_jit():
            return solver.solve(one, KEYS, X)

    return call


UNDEFINED = {"SubVP.ancestral", "SubVP.chain_marginal", *(f"times.Levels.{name}" for name in ("rates", "f", "g"))}


def methods(of, name, calls):
    its = {f"{name}.{method}": (getattr(of, method), valid) for method, valid in calls.items() if hasattr(of, method)}
    return {key: call for key, call in its.items() if key not in UNDEFINED}


OF_TIME = {key: dict(t=T) for key in ("alpha", "sigma", "rates", "f", "g", "noise_level")}
OF_PROCESS = OF_TIME | {
    **{key: dict(t=T, t_next=[0.125, 0.5]) for key in ("chain", "ancestral", "steps_a_unit")},
    **{key: dict(t=T) for key in ("chain_marginal", "chain_index", "langevin_scale", "beta", "integrated_beta")},
    "time": dict(noise_level=[0.5, 2.0]),
    "time_of_integral": dict(integral=[0.5, 2.0]),
    "prior_sample": dict(keys=KEYS, shape=SHAPE),
    "prior_logp": dict(x=X),
    "with_num_scales": dict(num_scales=5),
    "init_params": dict(key=KEY),
    "with_params": dict(params={"log_rates": np.zeros(3)}),
}
OF_ORACLE = {
    "sample": dict(keys=KEYS),
    **{key: dict(sde=VP, x=X, t=T) for key in ("score", "log_density", "posterior_mean", "log_joint")},
    "model": dict(sde=VP),
    "score_fn": dict(sde=VP),
    "perturbed_sample": dict(sde=VP, keys=KEYS, t=T),
    **{key: dict(matrix=np.eye(2, 4), y=[0.5, 1.0], noise=0.1) for key in ("posterior", "log_evidence")},
    "flow": dict(sde=VP, x=X, t0=T, t1=T),
    "bits_per_dim": dict(sde=VP, x=X, eps=0.1),
}
OF_ROW = {
    "target": dict(process=VP, x0=X, eps=X, t=T),
    "predict": dict(process=VP, x=X, output=X, t=T),
    "noise_error": dict(process=VP, t=T),
    **{key: dict(network=network, process=VP, centered=True) for key in ("outputs", "model")},
}
OF_WEIGHT = {
    **{key: dict(process=VP, t=T) for key in ("on_noise", "on_x0")},
    "reduce": dict(values=X),
    "balanced": dict(loss=[1.0, 2.0], process=VP, t=T, number=[1.0, 1.0]),
    **{key: dict(process=VP, t=T) for key in ("u", "waves")},
}
OF_LAW = {
    "sample": dict(process=VP, keys=KEYS),
    "density": dict(process=VP, t=T),
    "levels": dict(process=VP),
}
OF_OBJECTIVE = {
    "draw": dict(keys=KEYS, shape=SHAPE),
    "perturb": dict(x0=X, t=T, eps=X),
    "model": dict(network=network, centered=True),
    "loss": dict(output=X, x0=X, t=T, eps=X),
    "init_params": dict(key=KEY),
}
CHAIN = dict(num_scales=4, sampling_eps=0.01)
STEP = dict(process=VP, t=T, t_next=[0.125, 0.5], w=1.0)
SAMPLER = dict(process=VP, model=MODEL, eps=0.1, start_time=0.9)
FIELD = dict(field=lambda x: -x, x=X, probes=np.ones((2, 3, *SHAPE), np.float32))

CALLS = {
    # keys and pictures
    "randomness.stream": (randomness.stream, dict(key=KEYS, use=3)),
    "randomness.sample_keys": (randomness.sample_keys, dict(key=KEY, indices=[0, 3])),
    "randomness.batch_keys": (randomness.batch_keys, dict(key=KEY, batch_size=2)),
    "randomness.normal": (randomness.normal, dict(keys=KEYS, shape=(2,))),
    "randomness.rademacher": (randomness.rademacher, dict(keys=KEYS, shape=(2,))),
    "randomness.uniform": (randomness.uniform, dict(keys=KEYS, shape=(2,))),
    "randomness.keep_mask": (randomness.keep_mask, dict(keys=KEYS, shape=(2,), rate=0.5)),
    "randomness.expand": (randomness.expand, dict(scalars=[1.0, 2.0], like=X)),
    **methods(images.CENTERED, "images.Scaling", dict(to_model=dict(x=X), to_unit=dict(x=X))),
    "images.to_unit": (images.to_unit, dict(pixels=PIXELS)),
    "images.random_flip": (images.random_flip, dict(keys=KEYS, x=X)),
    "images.dequantize": (images.dequantize, dict(keys=KEYS, x=X)),
    "images.to_pixels": (images.to_pixels, dict(x=X)),
    "images.grid": (images.grid, dict(pixels=PIXELS, columns=2, padding=1)),
    "images.magnification": (images.magnification, dict(pixels=PIXELS)),
    "images.captioned": (images.captioned, dict(pixels=PIXELS, captions=["a", "b"], columns=2, magnify=8)),
    "images.headed": (images.headed, dict(pixels=PIXELS, headings=["a", "b"], magnify=2)),
    "images.in_turn": (images.in_turn, dict(pixels=PIXELS, names=["a", "b"], magnify=2)),
    "images.write_png": (images.write_png, dict(file=io.BytesIO(), sheet=np.zeros((2, 2, 3), np.uint8), magnify=2)),
    # averages
    "ema.Constant": (ema.Constant, dict(rate=0.9)),
    "ema.Ramp": (ema.Ramp, dict(rate=0.9)),
    "ema.HalfLife": (ema.HalfLife, dict(updates=10.0, ramp=0.05)),
    "ema.Power": (ema.Power, dict(sigma_rel=0.1)),
    **{
        f"ema.{type(one).__name__}.shares": (one.shares, dict(n=[1.0, 2.0]))
        for one in (*PROFILES, ema.Ramp(0.9), ema.HalfLife(10.0))
    },
    "ema.gamma": (ema.gamma, dict(sigma_rel=0.1)),
    "ema.weights": (ema.weights, dict(profile=PROFILES[0], updates=3)),
    "ema.parse": (ema.parse, dict(text="power:0.1")),
    "ema.profiles_of": (ema.profiles_of, dict(names=["power:0.1"], rate=0.9, schedule="ramp")),
    "ema.chosen": (ema.chosen, dict(profiles=PROFILES, name="power:0.1")),
    "ema.wanted": (ema.wanted, dict(profiles=PROFILES, name="power:0.2")),
    "ema.is_after_the_fact": (ema.is_after_the_fact, dict(names=["power:0.1"], name="power:0.2")),
    "ema.check": (ema.check, dict(names=["power:0.1"], rate=0.9, schedule="ramp", name="power:0.1")),
    "ema.initial": (functools.partial(ema.initial, params=PARAMS), dict(profiles=PROFILES)),
    "ema.updated": (functools.partial(ema.updated, PROFILES, AVERAGES, PARAMS), dict(n=2)),
    "ema.average": (functools.partial(ema.average, PROFILES, AVERAGES), dict(profile=PROFILES[0])),
    # processes
    "process.from_score": (process.from_score, dict(process=VP, score_fn=network)),
    "process.score": (process.score, dict(process=VP, prediction=PREDICTION, t=T)),
    "process.velocity": (process.velocity, dict(process=VP, prediction=PREDICTION, t=T)),
    "process.check_backwards": (process.check_backwards, dict(t=T, t_next=[0.125, 0.5])),
    "process.noisy": (process.noisy, dict(process=VP, t=T)),
    "process.before_noise": (process.before_noise, dict(process=PROCESSES["Linear"], t=T)),
    "process.check_scalar": (process.check_scalar, dict(process=VP, subject="a", advice="b")),
    "process.in_float64": (functools.partial(process.in_float64, np.negative), dict(t=T)),
    "sde.VP": (sde.VP, dict(beta_min=0.1, beta_max=2.0, **CHAIN)),
    "sde.SubVP": (sde.SubVP, dict(beta_min=0.1, beta_max=2.0, **CHAIN)),
    "sde.VE": (sde.VE, dict(sigma_min=0.1, sigma_max=2.0, **CHAIN)),
    "sde.EDM": (sde.EDM, dict(sigma_min=0.1, sigma_max=2.0, num_scales=4)),
    "sde.chain_of": (sde.chain_of, dict(process=VP, need="This needs")),
    "learned.Learned": (learned.Learned, dict(noise_min=0.1, noise_max=2.0, pieces=3, **CHAIN)),
    "paths.Linear": (paths.Linear, CHAIN),
    "paths.Trigonometric": (paths.Trigonometric, CHAIN),
    "paths.Cosine": (paths.Cosine, dict(s=0.008, **CHAIN)),
    **{key: call for name, one in PROCESSES.items() for key, call in methods(one, name, OF_PROCESS).items()},
    # objectives
    **{
        f"parameterization.{cls.__name__}": (cls, dict(noise_cond="time", time_scale=9.0))
        for cls in parameterization.PARAMETERIZATIONS.values()
    },
    "parameterization.KarrasF": (parameterization.KarrasF, dict(noise_cond="time", time_scale=9.0, sigma_data=0.5)),
    **{
        key: call
        for cls in parameterization.PARAMETERIZATIONS.values()
        for key, call in methods(cls(), f"parameterization.{cls.__name__}", OF_ROW).items()
    },
    "times.Uniform": (times.Uniform, dict(eps=0.1)),
    "times.OnChain": (times.OnChain().sample, dict(process=VP, keys=KEYS)),
    "times.LogNormal": (times.LogNormal, dict(P_mean=0.0, P_std=1.0)),
    "times.LogitNormal": (times.LogitNormal, dict(mean=0.0, std=1.0)),
    "times.Importance": (times.Importance, dict(eps=0.1)),
    "times.Levels": (times.Levels, dict(process=VP)),
    "times.log_noise_rate": (times.log_noise_rate, dict(process=VP, t=T)),
    **methods(times.Levels(VP), "times.Levels", OF_TIME),
    **{
        key: call
        for cls in times.TIMES.values()
        for key, call in methods(cls(), f"times.{cls.__name__}", OF_LAW).items()
    },
    **{f"weights.{cls.__name__}": (cls, dict(reduction="mean")) for cls in weight.WEIGHTS.values()},
    "weights.KarrasWeight": (weight.KarrasWeight, dict(reduction="mean", sigma_data=0.5)),
    "weights.MinSNR": (weight.MinSNR, dict(reduction="mean", gamma=5.0)),
    "weights.Uncertainty": (weight.Uncertainty, dict(base="edm", sigma_data=0.5, gamma=5.0, features=2)),
    "weights.Uncertainty.with_params": (
        weight.Uncertainty(features=1).with_params,
        dict(params={"bias": np.zeros(()), "kernel": np.zeros(2)}),
    ),
    **{
        key: call
        for cls in weight.WEIGHTS.values()
        for key, call in methods(cls(), f"weights.{cls.__name__}", OF_WEIGHT).items()
    },
    "objective.Objective": (
        objective.Objective,
        dict(process=VP, parameterization=parameterization.V(), times=times.Uniform(), weight=weight.NoiseWeight()),
    ),
    **methods(OBJECTIVE, "objective.Objective", OF_OBJECTIVE),
    "objective.network_params": (objective.network_params, dict(params=PARAMS)),
    # oracles
    "oracles.Gaussian": (oracles.Gaussian, dict(mean=np.zeros(SHAPE), covariance=np.eye(4))),
    "oracles.Mixture": (oracles.Mixture, dict(weights=[0.5, 0.5], components=[DATA, DATA])),
    "oracles.Empirical": (oracles.Empirical, dict(data=X)),
    **{
        key: call
        for one in (DATA, oracles.Mixture([1.0, 2.0], [DATA, DATA]), oracles.Empirical(X))
        for key, call in methods(one, f"oracles.{type(one).__name__}", OF_ORACLE).items()
    },
    # samplers
    "solver.CountedModel": (solver.CountedModel, dict(model=MODEL, evaluations=len)),
    "solver.predict": (solver.predict, dict(model=MODEL, x=X, t=T)),
    "solver.evaluations": (solver.evaluations, dict(model=MODEL, t=T)),
    "solver.planned": (solver.planned, dict(model=MODEL, times=np.array(T))),
    "solver.check_times": (solver.check_times, dict(eps=0.1, start_time=0.5)),
    "solver.solve": (solver.solve, dict(solver=FAST, key=KEYS, x=X)),
    "solver.advance": (functools.partial(solver.advance, FAST, FAST.init(KEYS, jnp.asarray(X))), dict(max_steps=1)),
    "adaptive.adaptive": (
        sampled(adaptive),
        dict(rtol=0.1, atol=0.1, diffusion=1.0, noise_removal=True, **SAMPLER),
    ),
    "brownian.brownian": (brownian.brownian, dict(keys=KEYS, shape=(2,), s=T)),
    "clipping.clipped": (clipping.clipped, dict(process=VP, model=MODEL, name="range", limits=(-1, 1), quantile=0.9)),
    **{
        f"clipping.CLIPPINGS.{name}": (clip, dict(x0=X, limits=(-1.0, 1.0), quantile=0.9))
        for name, clip in clipping.CLIPPINGS.items()
        if clip
    },
    "compaction.part_size": (compaction.part_size, dict(rows=4)),
    "compaction.compacted": (compaction.compacted, dict(whole=FAST, make_solver=lambda: FAST, conditions=())),
    **{
        f"correctors.{name}": (correct, dict(process=VP, t=T, snr=0.16, score=X, z=X))
        for name, correct in correctors.CORRECTORS.items()
        if correct
    },
    **{f"predictors.{one.__name__}": (one, STEP) for one in predictors.PREDICTORS.values() if one},
    "predictors.diffusion_at": (predictors.diffusion_at, dict(w=1.0, t=T)),
    "predictor_corrector.predictor_corrector": (
        sampled(predictor_corrector),
        dict(
            predictor="euler_maruyama",
            corrector="langevin",
            snr=0.16,
            n_steps_each=1,
            probability_flow=False,
            diffusion=1.0,
            noise_removal=True,
            project=None,
            noise=randomness.normal,
            **SAMPLER,
        ),
    ),
    "predictor_corrector.time_steps": (
        time_steps,
        dict(process=VP, eps=0.1, predicts=True, exact=True, start_time=0.9),
    ),
    "grids.time_grid": (grids.time_grid, dict(process=VP, name="karras", num_steps=3, eps=0.1, rho=7.0, start_time=1)),
    **{
        f"grids.GRIDS.{name}": (spacing, dict(process=VP, fraction=[0.0, 0.5, 1.0], first=1.0, eps=0.1, rho=7.0))
        for name, spacing in grids.GRIDS.items()
    },
    "rows.Grid": (rows.Grid, dict(process=VP, t=[1.0, 0.5], denoises=True)),
    "fast.fast_solver": (
        sampled(fast.fast_solver),
        dict(
            name="edm_stochastic",
            num_steps=2,
            grid="log_snr",
            rho=7.0,
            noise_removal=True,
            project=None,
            eta=0.5,
            noise=randomness.normal,
            s_churn=1.0,
            s_min=0.1,
            s_max=9.0,
            s_noise=1.0,
            diffusion=1.0,
            **SAMPLER,
        ),
    ),
    **{
        f"fast.FAST_SOLVERS.{name}": (table, dict(grid=GRID, options=fast.Options()))
        for name, table in fast.FAST_SOLVERS.items()
    },
    "tabulated.tabulated": (
        sampled(tabulated.tabulated),
        dict(
            model=MODEL,
            table=fast.FAST_SOLVERS["ddim"](GRID, fast.Options()),
            eps=0.1,
            noise_removal=True,
            project=None,
            noise=randomness.normal,
        ),
    ),
    "runge_kutta.runge_kutta": (
        runge_kutta.runge_kutta,
        dict(rhs=lambda t, y, args: -y, t0=0.0, t1=1.0, rtol=0.1, atol=0.1, method="tsit5", evaluations=len),
    ),
    "probability_flow.drift": (drift, dict(process=VP, model=MODEL)),
    "probability_flow.probability_flow": (
        sampled(probability_flow),
        dict(rtol=0.1, atol=0.1, ode_method="dopri5", noise_removal=True, encode=False, **SAMPLER),
    ),
    "probability_flow.slerp": (slerp, dict(z0=X, z1=-2 * X, fraction=0.5)),
    "runner.Runner": (runner.Runner, dict(make_solver=lambda params: FAST, batch_nfe=False)),
    # likelihoods
    "ode.hutchinson": (ode.hutchinson, FIELD),
    "ode.hutch_plus_plus": (ode.hutch_plus_plus, FIELD),
    "ode.exact": (ode.exact, FIELD),
    "ode.check_divergence": (ode.check_divergence, dict(name="exact", num_probes=1)),
    "ode.bits_per_dim": (
        sampled(ode.bits_per_dim),
        dict(
            process=VP,
            model=MODEL,
            offset_bits=7.0,
            num_probes=1,
            divergence="gaussian",
            rtol=0.1,
            atol=0.1,
            ode_method="dopri5",
            eps=0.1,
        ),
    ),
    "bound.likelihood_bound": (bound.likelihood_bound, dict(process=VP, model=MODEL, num_times=2, eps=0.1)),
    "bound of likelihood_bound": (bound.likelihood_bound(VP, MODEL), dict(keys=KEYS, x=X)),
    "dequantization.uniform": (dequantization.uniform, dict(scaling=images.CENTERED)),
    "dequantization.truncated_normal": (
        dequantization.truncated_normal,
        dict(sde=VP, scaling=images.CENTERED, dequantized=True, tau=3.0),
    ),
    "dequantization.variational": (
        dequantization.variational,
        dict(scaling=images.CENTERED, network=dequantization.unlearned),
    ),
    "dequantization.unlearned": (dequantization.unlearned, dict(x=X)),
    **{
        f"sample of {choice}": (q.sample, dict(keys=KEYS, x=X))
        for choice, q in {
            "uniform": dequantization.uniform(images.CENTERED),
            "truncated_normal": dequantization.truncated_normal(VP, images.CENTERED, dequantized=True),
            "variational": dequantization.variational(images.CENTERED, dequantization.unlearned),
        }.items()
    },
}

BASE = "a base class, made through its subclasses, whose methods it checks"
TUPLE = "a named tuple, which JAX makes of other objects too; what takes one checks its fields"
STATE = "a state of a solver, made by its `init`"
EXCEPTIONS = {
    **dict.fromkeys(
        [
            "process.Process",
            "sde.Chain",
            "sde.LinearBeta",
            "sde.Exploding",
            "paths.Path",
            "times.TimeLaw",
            "parameterization.Parameterization",
            "parameterization.OfNoise",
            "weights.Weight",
            "ema.Profile",
            "oracles.Oracle",
        ],
        BASE,
    ),
    **dict.fromkeys(
        [
            "process.Prediction",
            "images.Scaling",
            "predictors.Step",
            "fast.Options",
            "tabulated.Table",
            "solver.Solver",
            "predictor_corrector.TimeSteps",
            "runge_kutta.Integrator",
            "tableaus.Tableau",
            "ode.Divergence",
            "dequantization.Dequantization",
        ],
        TUPLE,
    ),
    **dict.fromkeys(
        [
            *(f"{name}.State" for name in ("adaptive", "predictor_corrector", "tabulated", "runge_kutta", "ode")),
            "runge_kutta.Attempt",
        ],
        STATE,
    ),
    "randomness.Stream": "an enumeration",
    "process.library_of": "asks an object that has been checked for its library, many times in a trace",
    "learned.with_gradient_of_squares": "a part of a training's loss, of trees that the training makes",
    "derivatives.forward_only": "the last operation of `solve`",
    "solver.fraction_of": "a solver's own count of its steps",
    "rows.Rows": "the rows of a table, which the functions of FAST_SOLVERS write",
    "rows.first_step": "the first row of such a table",
}


def public():
    """Names of functions and classes of the modules; short ones, `sde.VP`."""
    modules = [
        *FLAT,
        *(
            importlib.import_module(f"{room.__name__}.{one.name}")
            for room in ROOMS
            for one in pkgutil.iter_modules(room.__path__)
        ),
    ]
    for module in modules:
        short = module.__name__.rpartition(".")[2]
        for name, one in vars(module).items():
            defined = (inspect.isfunction(one) or inspect.isclass(one)) and one.__module__ == module.__name__
            if defined and not name.startswith("_"):
                yield f"{short}.{name}"


def test_each_public_name_is_called_or_has_a_reason():
    names = set(public())
    assert names - set(CALLS) - set(EXCEPTIONS) == set()
    assert set(EXCEPTIONS) <= names and not set(EXCEPTIONS) & set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_valid_arguments_are_valid(name):
    function, valid = CALLS[name]
    function(**valid)


def fuzzed(name, folder, monkeypatch, repeated):
    (folder / "in").mkdir()
    monkeypatch.chdir(folder / "in")  # a picture may be written to "../x"

    @hypothesis.settings(quick, max_examples=1)
    @given(strategies.data())
    def some(data):
        survives(*CALLS[name], data, repeated=repeated)

    some()


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_do_not_fit_are_refused_in_words(name, tmp_path, monkeypatch):
    fuzzed(name, tmp_path, monkeypatch, repeated=2)


@pytest.mark.parametrize("name", CALLS)
def test_many_arguments_that_do_not_fit_are_refused_in_words(name, tmp_path, monkeypatch):
    fuzzed(name, tmp_path, monkeypatch, repeated=40)
