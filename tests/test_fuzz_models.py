"""Doors of trained models and of their conditions, called with arguments that do not fit.

A public function is each name in the `__init__` of a room, each function and class without a leading underscore of the
modules below, each entry of their dictionaries of choices, and each method of `Pretrained`, `PretrainedClassifier` and
the operators.
"""

import importlib
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import quick, survives
from hypothesis import given, settings, strategies

from score_sde import cond, conditioning
from score_sde.conditioning import (
    GUIDES,
    Average,
    Blur,
    Inpaint,
    Linear,
    Observation,
    Options,
    Sense,
    grammar,
    guidance,
    observations,
    operators,
    posterior,
)
from score_sde.errors import UsageError
from score_sde.inference import edm_layout, pretrained, snapshots
from score_sde.inference.pretrained import Pretrained
from score_sde.inference.snapshots import PretrainedClassifier
from score_sde.models import group_norm, magnitude, resampling, text_layouts
from score_sde.objective import Objective
from score_sde.parameterization import Noise
from score_sde.process import from_score
from score_sde.sde import VP
from score_sde.times import Uniform
from score_sde.weights import NoiseWeight

SHAPE, N, KEY = (4, 4, 1), 2, jax.random.key(0)
KEYS = jax.random.split(KEY, N)
X = np.random.default_rng(0).uniform(size=(N, *SHAPE)).astype(np.float32)
PIXELS = np.full((N, *SHAPE), 200, np.uint8)
T = np.array([0.3, 0.9], np.float32)
LABELS = np.array([0, 2])
MASK = np.ones((4, 4), bool)
ENTRIES = {"labels": cond.Entry(jnp.int32, (), below=3), "vector": cond.Entry(jnp.float32, (2,))}
COND = {"labels": LABELS, "vector": np.ones((N, 2), np.float32)}


class Net(nn.Module):
    """A network that returns a multiple of its input, whatever its condition."""

    @property
    def cond_entries(self):
        return ENTRIES

    @nn.compact
    def __call__(self, x, noise_cond, cond=None, *, dropout_keys=None):
        return self.param("scale", nn.initializers.ones, ()) * x


class Classes(nn.Module):
    """Three logits."""

    num_outputs: int = 3

    @nn.compact
    def __call__(self, x, noise_level):
        return jnp.ones((len(x), self.num_outputs)) * self.param("scale", nn.initializers.ones, ()) * x.mean((1, 2))


OBJECTIVE, PARAMS = Objective(VP(num_scales=2), Noise(), Uniform(), NoiseWeight()), {"scale": jnp.float32(1)}
MODEL = Pretrained(OBJECTIVE, Net(), PARAMS, SHAPE)
CLASSIFIER = PretrainedClassifier(OBJECTIVE, Classes(), PARAMS, SHAPE)
SCORE = from_score(VP(), lambda x, t: -x)
LOGITS = Classes().bind({"params": PARAMS})
SMALL = np.full((N, 2, 2, 1), 0.5, np.float32)
SEEN = Observation(Average(2), jnp.asarray(SMALL), jnp.full(N, 0.1))
FEATURES = np.ones((1, 4, 4, 2), np.float32)
TAPS = (1, 3, 3, 1)
WEIGHT = np.ones((3, 3, 2, 2), np.float32)


def guided(guide, **arguments):
    """A guide's model, traced if its functions are models."""
    model = guide(**arguments)
    functions = [
        arguments[name] for name in ("model", "main", "reference", "first", "second", "logits_fn") if name in arguments
    ]
    if all(function in (SCORE, LOGITS) for function in functions):
        jax.eval_shape(model, X, T)


def each_guide(name):
    return lambda **arguments: guided(GUIDES[name], **arguments)


IMAGES = dict(x=X)
GUIDE = dict(process=VP(num_scales=2), model=SCORE, observation=SEEN, options=Options(num_steps=2))
NETWORK = dict(objective=OBJECTIVE, network=Net(), params=PARAMS, image_shape=SHAPE, image_range=(-1.0, 1.0), step=3)

# Name in a module -> function, and arguments that it takes.
PRETRAINED = {
    "score": (MODEL.score, dict(x=X, t=T, labels=LABELS, cond={"vector": COND["vector"]})),
    "predict": (MODEL.predict, dict(x=X, t=0.5, labels=[0, 1], cond={"vector": COND["vector"]})),
    "denoise": (MODEL.denoise, dict(x=X, sigma=T, labels=2, cond={"vector": COND["vector"]})),
    "Pretrained": (Pretrained, NETWORK),
    "load": (pretrained.load, dict(directory="nowhere", step=3, config=None, ema=True)),
}
SLOW = {  # programs are compiled for each new value of an option
    "sample": (MODEL.sample, dict(key=KEY, n=N, sampler="ddim", labels=LABELS, cond=None, num_steps=2, grid="uniform")),
    "draw": (MODEL.draw, dict(keys=KEYS, sampler="ddim", cond=COND, num_steps=2)),
    "posterior": (
        MODEL.posterior,
        dict(key=KEY, operator=Average(2), y=SMALL, noise=0.1, sampler="ddim", num_steps=2, inverse="pigdm"),
    ),
    "bits_per_dim": (
        MODEL.bits_per_dim,
        dict(key=KEY, pixels=PIXELS, labels=LABELS, cond={"vector": COND["vector"]}, text=None),
    ),
    "likelihoods": (MODEL.likelihoods, dict(keys=KEYS, x=X, cond=COND)),
    "bound": (MODEL.bound, dict(key=KEY, pixels=PIXELS, labels=1, cond={"vector": COND["vector"]}, text=None)),
    "classify": (
        MODEL.classify,
        dict(key=KEY, pixels=PIXELS, labels=LABELS, cond={"vector": COND["vector"]}, text=None, prior=[0.2, 0.8])
        | dict(method="bound", repeats=1),
    ),
    "encode": (MODEL.encode, dict(pixels=PIXELS, labels=LABELS, cond={"vector": COND["vector"]}, text=None)),
    "decode": (MODEL.decode, dict(z=X, labels=1, cond={"vector": COND["vector"]}, text=None)),
    "interpolate": (MODEL.interpolate, dict(first=PIXELS, last=PIXELS, n=3, labels=None, cond=COND, text=None)),
}
SNAPSHOTS = {
    "PretrainedClassifier": (PretrainedClassifier, NETWORK | dict(network=Classes())),
    "load_classifier": (snapshots.load_classifier, dict(directory="nowhere", step=3, config=None)),
    "logits": (CLASSIFIER.logits, dict(x=X, t=T)),
    "hits": (CLASSIFIER.hits, dict(keys=KEYS, pixels=PIXELS, labels=LABELS, t=0.5)),
    "available_step": (snapshots.available_step, dict(directory="nowhere", step=3)),
}
CONDITIONS = {
    "blank": (lambda n: cond.blank(ENTRIES, n), dict(n=N)),
    "dropped": (cond.dropped, dict(cond=COND, keys=KEYS, rate=0.5, each=("labels",))),
    "fitted": (lambda **given: cond.fitted(entries=ENTRIES, **given), dict(cond=COND, n=N)),
    "check_cond": (lambda **given: cond.check_cond(entries=ENTRIES, **given), dict(cond=COND, n=N)),
    "check_names": (lambda cond_: cond.check_names(cond_, ENTRIES), dict(cond_=COND)),
    "with_labels": (cond.with_labels, dict(cond=None, labels=LABELS)),
    "numbered": (cond.numbered, dict(labels="ship", class_names=("plane", "ship"))),
    "class_number": (cond.class_number, dict(name="ship", class_names=("plane", "ship"))),
}
GRAMMAR = {
    "parts": (grammar.parts, dict(condition="class=3;inpaint=center")),
    "check": (grammar.check, dict(condition="class=3")),
    "chosen_class": (grammar.chosen_class, dict(condition="class=3", class_names=("plane",))),
    "numbered": (grammar.numbered, dict(condition="class=plane", class_names=("plane",))),
    "worded": (grammar.worded, dict(condition="class=0", class_names=("plane",))),
    "chosen_rows": (grammar.chosen_rows, dict(condition="class=3")),
    "chosen_texts": (grammar.chosen_texts, dict(condition="text=a red circle;towards=a star")),
    "chosen_split": (grammar.chosen_split, dict(condition="texts=test")),
    "identity_of": (grammar.identity_of, dict(condition="class=3")),
    **{
        f"observation_of {condition}": (grammar.observation_of, dict(condition=condition, image_shape=(4, 4, 3)))
        for condition in ("inpaint=0.5", "colorize", "superresolve=2", "deblur=1.0", "sense=0.3")
    },
}
GUIDANCE = {
    "classifier_guidance": (
        lambda **arguments: guided(guidance.classifier_guidance, **arguments),
        dict(
            process=VP(),
            model=SCORE,
            logits_fn=LOGITS,
            labels=LABELS,
            scale=2.0,
            interval=(0.1, 0.5),
        ),
    ),
    "extrapolation": (
        lambda **arguments: guided(guidance.extrapolation, **arguments),
        dict(main=SCORE, reference=SCORE, scale=2.0, interval=(0.1, 0.5)),
    ),
    "interpolation": (
        lambda **arguments: guided(guidance.interpolation, **arguments),
        dict(first=SCORE, second=SCORE, share=np.array([0.0, 1.0], np.float32)),
    ),
    **{name: (each_guide(name), GUIDE) for name in GUIDES},
    "projection": (
        lambda **arguments: conditioning.projection(**arguments).start(jnp.asarray(X)),
        {name: GUIDE[name] for name in ("process", "observation")},
    ),
    "particles": (
        conditioning.particles,
        GUIDE | dict(observation=SEEN.repeated(2), num_particles=2, predictor="euler_maruyama", eps=0.1),
    ),
    "Options": (Options, dict(data_variance=1.0, step=1.0, iterations=5, reach=2.0, num_steps=3)),
    "check_observable": (posterior.check_observable, dict(process=VP())),
}
OPERATORS = {
    "Inpaint": (Inpaint, dict(mask=MASK)),
    "Average": (Average, dict(factor=2, grey=False)),
    "Blur": (Blur, dict(sigma=1.0)),
    "Sense": (Sense, dict(fraction=0.5, seed=3)),
    "Linear": (Linear, dict(fn=lambda x: x[:, ::2], shape=SHAPE, iterations=3)),
    "conjugate_gradients": (
        lambda **given: operators.conjugate_gradients(lambda u: 2 * u, **given),
        dict(b=np.ones((2, 3), np.float32), iterations=3),
    ),
    "check_observed": (observations.check_observed, dict(operator=Average(2), y=SMALL, image_shape=SHAPE)),
    "checked_observation": (
        observations.checked_observation,
        dict(operator=Average(2), y=SMALL, noise=np.zeros(2, np.float32)),
    ),
}
SONG = dict(class_name="EDMPrecond", model_type="SongUNet", img_resolution=32, img_channels=3)
ENCODER = dict(model_type="clip", text_config=dict(hidden_size=8, num_attention_heads=2))
NETWORKS = {
    "group_norm": (
        lambda **given: group_norm.group_norm(**given, act=nn.swish),
        dict(x=FEATURES, scale=np.ones(2, np.float32), bias=np.zeros(2, np.float32), groups=2, epsilon=1e-6),
    ),
    "nearest_upsample": (resampling.nearest_upsample, dict(x=FEATURES)),
    "nearest_upsample_conv": (resampling.nearest_upsample_conv, dict(x=FEATURES, weight=WEIGHT)),
    "mean_downsample": (resampling.mean_downsample, dict(x=FEATURES)),
    "fir_downsample": (resampling.fir_downsample, dict(x=FEATURES, taps=TAPS)),
    "fir_upsample": (resampling.fir_upsample, dict(x=FEATURES, taps=TAPS)),
    "fir_conv_downsample": (resampling.fir_conv_downsample, dict(x=FEATURES, weight=WEIGHT, taps=TAPS)),
    "fir_conv_upsample": (resampling.fir_conv_upsample, dict(x=FEATURES, weight=WEIGHT, taps=TAPS)),
    "values_of": (edm_layout.values_of, dict(kwargs=SONG)),
    "objective_values": (edm_layout.objective_values, dict(kwargs=SONG)),
    "network_arguments": (edm_layout.network_arguments, dict(kwargs=SONG, defaults=edm_layout.NETWORK)),
    "layout_of": (text_layouts.layout_of, dict(config=ENCODER, where="config.json")),
    "BERT": (text_layouts.BERT, dict(hidden_size=8, num_attention_heads=2, hidden_act="relu", layer_norm_eps=1e-5)),
    "CLIP": (text_layouts.CLIP, dict(hidden_size=8, num_attention_heads=2, hidden_act="gelu", layer_norm_eps=1e-5)),
    "T5": (text_layouts.T5, dict(d_model=8, num_heads=2, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-5)),
    "silu": (magnitude.silu, dict(x=FEATURES)),
    "add": (magnitude.add, dict(a=FEATURES, b=FEATURES, balance=0.3)),
    "concatenate": (magnitude.concatenate, dict(a=FEATURES, b=FEATURES[..., :1], balance=0.3)),
    "forced": (magnitude.forced, dict(params={"weight": WEIGHT})),
    "filter2d": (resampling.filter2d, dict(x=FEATURES, taps=TAPS, gain=1.0, up=1, down=1, pad=(1, 1))),
}
EXAMPLES = {
    "inpaint": Inpaint(MASK),
    "average": Average(2),
    "blur": Blur(1.0),
    "sense": Sense(0.5),
    "linear": Linear(lambda x: x[:, ::2], SHAPE, 3),
}
ALL = {
    **PRETRAINED, **SNAPSHOTS, **{f"cond {name}": row for name, row in CONDITIONS.items()},
    **{f"grammar {name}": row for name, row in GRAMMAR.items()}, **GUIDANCE, **OPERATORS, **NETWORKS,
}  # fmt: skip


MODULES = (
    *("score_sde.cond", "score_sde.conditioning", "score_sde.inference.pretrained", "score_sde.inference.snapshots"),
    *("score_sde.inference.inputs", "score_sde.inference.conditional_samplers", "score_sde.inference.dequantizer"),
    *(f"score_sde.inference.{name}" for name in ("likelihoods", "latents", "bayes_classifier")),
    *(f"score_sde.conditioning.{name}" for name in ("grammar", "guidance", "observations", "operators", "posterior")),
    *("score_sde.conditioning.particles", "score_sde.models", "score_sde.models.encoders"),
    *("score_sde.models.text_encoder", "score_sde.models.cross_attention"),
    *("score_sde.models.dequantizer", "score_sde.models.group_norm", "score_sde.models.resampling"),
    "score_sde.inference.edm_layout",
    "score_sde.models.magnitude",
    "score_sde.models.text_layouts",
)
CHECKED = "is called by the doors, after their check"
TRACED = "is called inside a sampler's step, with what the sampler has made"
RESULT = "is what functions return"
NETWORK_CLASS = "is a flax module, rebuilt by flax; the table of keys and its `check` check what a config sets"
EXCEPTIONS = {
    **dict.fromkeys(("Samples", "Likelihoods", "Classified", "Projection", "Conditions", "Towards", "Observe"), RESULT),
    **dict.fromkeys(("for_each", "unit_images", "of_shape", "condition", "check_taken", "check_finite"), CHECKED),
    **dict.fromkeys(("text_cond", "with_text"), CHECKED),
    **dict.fromkeys(
        ("names", "takes_text", "read", "as_array", "restricted", "rows", "Conditional", "finished", "unused_option"),
        CHECKED,
    ),
    **dict.fromkeys(("config_of", "restore_state", "saved_weights", "dequantize", "dequantizer_params"), CHECKED),
    **dict.fromkeys(("for_images", "residual", "operator_class", "check_computes", "is_trainable"), CHECKED),
    **dict.fromkeys(("nudged", "reach_of_gradient", "inside", "isotropic_solve", "within_reach", "denoised"), TRACED),
    **dict.fromkeys(("State",), TRACED),
    **dict.fromkeys(
        ("magnitude", "normalize", "taken_entries", "augment_labels", "encoded", "encoded_for_unet", "token_entries"),
        "is called inside networks, with features that they made",
    ),
    **dict.fromkeys(
        ("padded", "pooled", "TextBlock", "CrossAttention", "MPCrossAttention", "check_encoder"),
        "is called inside networks, with features that they made",
    ),
    **dict.fromkeys(("EDM2UNet", "MPLinear", "MPFourier", "UViT", "DiT", "TokenEncoder"), NETWORK_CLASS),
    **dict.fromkeys(("TextEncoder", "SequenceEncoder"), NETWORK_CLASS),
    **dict.fromkeys(("ADM", "DDPM", "NCSNpp", "NCSNv2", "WideResnet", "Dequantizer", "VectorEncoder"), NETWORK_CLASS),
    **dict.fromkeys(
        ("params_of", "origins", "published_shapes", "Origin"), "is called by the import: tests/test_edm_networks.py"
    ),
    "check_guidance": "checks the values of `config.guidance`, after the table of keys",
    "Compute": "is options of a network, chosen by name in PRECISIONS",
    "Entry": "is declared by a network",
    "Encoded": "is what encoders return",
    "Snapshot": "is the base of Pretrained and PretrainedClassifier, which check their arguments",
    "Operator": "is a base class",
    **dict.fromkeys(("Layout", "Placed"), "is a base class"),
    "Observation": "is a pytree, checked by the functions that take it",
}


def public(module):
    """The names of a module's own functions and classes; of a room, those of its `__all__`."""
    if hasattr(module, "__path__"):
        return [name for name in module.__all__ if callable(getattr(module, name))]
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    kinds = (inspect.isfunction, inspect.isclass)
    return [each.__name__ for each in own if any(kind(each) for kind in kinds) and not each.__name__.startswith("_")]


def test_every_public_name_is_called_here_or_has_a_reason_why_not():
    rows = {name.rpartition(" ")[2] if name.startswith(("cond ", "grammar ")) else name for name in ALL} | set(SLOW)
    rows |= {"observation_of", "__getattr__"}
    names = {name for module in MODULES for name in public(importlib.import_module(module))}
    assert names - rows - set(EXCEPTIONS) == set()
    assert set(EXCEPTIONS) - names == set(), "reasons of names that are gone"


def small(function):
    """The function, for which numbers of images and steps that no machine can hold are left out."""

    def call(**arguments):
        for value in arguments.values():
            if isinstance(value, int) and not isinstance(value, bool) and value > 1000:
                raise UsageError("Left out.")
        return function(**arguments)

    call.__name__ = getattr(function, "__name__", str(function))
    return call


@pytest.mark.parametrize("name", ALL)
def test_valid_arguments_are_taken(name):
    function, valid = ALL[name]
    if valid.get("directory") != "nowhere":
        function(**valid)


@pytest.mark.parametrize("name", ALL)
@settings(quick, max_examples=1)
@given(data=strategies.data())
def test_arguments_that_do_not_fit_are_named(name, data):
    function, valid = ALL[name]
    survives(small(function), valid, data, repeated=8)


@quick
@given(data=strategies.data())
def test_many_arguments_that_do_not_fit_are_named(data):
    for function, valid in (ALL | SLOW).values():
        survives(small(function), valid, data, repeated=20)


@pytest.mark.parametrize("name", EXAMPLES)
@settings(quick, max_examples=1)
@given(data=strategies.data())
def test_images_and_observations_that_do_not_fit_an_operator_are_named(name, data):
    operator = EXAMPLES[name]
    y = np.asarray(operator.forward(X))
    x = dict(x=X)
    arguments = dict(
        forward=x,
        adjoint=dict(y=y),
        solve=dict(y=y, variance=np.ones(N, np.float32)),
        least_squares=dict(y=y),
        impose=dict(x=X, y=y),
        limit=dict(x=X, y=y),
        measured=dict(y=y),
        picture=dict(y=y),
    )
    for method, valid in arguments.items():
        survives(getattr(operator, method), valid, data, repeated=2)


@pytest.mark.parametrize("name", SLOW)
@settings(quick, max_examples=1)
@given(data=strategies.data())
def test_arguments_of_samplers_and_likelihoods_that_do_not_fit_are_named(name, data):
    function, valid = SLOW[name]
    survives(small(function), valid, data, repeated=8)
