"""One table of keys: what it says of each, and what follows from it."""

import ast
import copy
import dataclasses
import json
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from older_workdir import ADDED, OTHERWISE, older
from score_sde.configs.presets import compose, ddpmpp, digits, small, vp

from score_sde import ema, likelihood, paths, sampling, sde, times, weights
from score_sde.cli.command_line import parse
from score_sde.cli.describe import planned_nfe
from score_sde.cli.main import main
from score_sde.conditioning.posterior import METHODS
from score_sde.config import ARGUMENTS, FREE_SECTIONS, KEYS, Config, FrozenConfig, base, check, completed, is_nullable
from score_sde.config.explanation import explained, page
from score_sde.config.keys import Differs, Key
from score_sde.config.table import MOVED, REMOVED, SECTIONS
from score_sde.data import DATASETS, dataset
from score_sde.data.tokenizers import TOKENIZERS
from score_sde.errors import UsageError
from score_sde.io.workdir import flatten
from score_sde.likelihood import dequantization
from score_sde.models import CLASSIFIERS, ENCODERS, MODELS, PRECISIONS
from score_sde.parameterization import NOISE_CONDS, PARAMETERIZATIONS
from score_sde.sampling.tableaus import TABLEAUS
from score_sde.training import build, recipe
from score_sde.training.coupling import COUPLINGS
from score_sde.training.pieces import arguments_of, construct
from score_sde.training.state import NAN_GRADIENTS

ROOT = Path(__file__).parent.parent
CONFIG = "configs/vp/digits_ddpmpp_continuous.py"


@pytest.fixture
def config() -> Config:
    return compose(ddpmpp, vp, digits, small)


def without_a_sentence(keys: dict[str, Key]) -> list[str]:
    """Keys whose sentence is not two words or more, from a capital letter to no full stop."""
    return [
        name
        for name, key in keys.items()
        if not key.sentence[:1].isupper()
        or " " not in key.sentence
        or key.sentence.endswith(".")
        or key.sentence.split(" ")[0] in ("What", "That", "Of")
    ]


def test_every_key_has_a_sentence_and_a_missing_one_is_found():
    assert without_a_sentence(KEYS) == []
    assert without_a_sentence({"seed": dataclasses.replace(KEYS["seed"], sentence="")}) == ["seed"]


def unread(names: list[str]) -> list[str]:
    """Keys that no module reads, by an attribute, a string or a field, which names their section besides."""
    modules = []
    for path in (ROOT / "score_sde").rglob("*.py"):
        relative = path.relative_to(ROOT / "score_sde")
        if relative.parts[0] == "config":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        read |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        fields = [node.target for node in nodes if isinstance(node, ast.AnnAssign)]
        named = {node.id for node in nodes if isinstance(node, ast.Name)} | {*relative.parts, ""}
        modules.append((read | named, read | {field.id for field in fields if isinstance(field, ast.Name)}))
    parts = {name: name.rpartition(".")[::2] for name in names}
    return [
        name
        for name, (section, key) in parts.items()
        if not any(section in sections and key in keys for sections, keys in modules)
    ]


def test_every_key_is_read_somewhere_and_one_that_is_not_is_found():
    names = [name for name in KEYS if name.partition(".")[0] not in ARGUMENTS]
    assert unread([*names, "training.patience", "sampling.order", "nothing"]) == [
        "training.patience",
        "sampling.order",
        "nothing",
    ]


@pytest.mark.parametrize(
    ("section", "choices"),
    [
        ("process", paths.PROCESSES),
        ("sde", sde.SDES),
        ("parameterization", PARAMETERIZATIONS),
        ("times", times.TIMES),
        ("weight", weights.WEIGHTS),
        ("encoder", ENCODERS),
        ("model", MODELS | CLASSIFIERS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_argument_of_every_class_is_a_key_and_every_such_key_an_argument(section, choices):
    fields = {name for row in choices for name in arguments_of(f"{section}.name", row)}
    fields -= {"num_levels"}  # it is sde.num_scales
    own = {"name"} | ({"scale_by_sigma"} if section == "model" else set())
    assert {name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")} == fields | own


def test_the_page_of_keys_is_what_the_table_says():
    assert (ROOT / "configs" / "KEYS.md").read_text(encoding="utf-8") == page(), "python -m score_sde.config"


NAMED = [
    ("process.name", paths.PROCESSES),
    ("sde.name", sde.SDES),
    ("parameterization.name", PARAMETERIZATIONS),
    ("parameterization.noise_cond", NOISE_CONDS),
    ("times.name", times.TIMES),
    ("weight.name", weights.WEIGHTS),
    ("weight.reduction", weights.REDUCTIONS),
    ("weight.base", weights.WEIGHTS),
    ("encoder.name", ENCODERS),
    ("model.name", MODELS | CLASSIFIERS),
    ("sampling.method", sampling.SAMPLERS),
    ("sampling.predictor", sampling.PREDICTORS),
    ("sampling.corrector", sampling.CORRECTORS),
    ("sampling.grid", sampling.GRIDS),
    ("sampling.clip", sampling.CLIPPINGS),
    ("sampling.ode_method", TABLEAUS),
    ("sampling.precision", PRECISIONS),
    ("training.precision", PRECISIONS),
    ("training.nonfinite", ("stop", "skip")),
    ("training.coupling", COUPLINGS),
    ("eval.precision", ("float32", "tf32")),
    ("eval.ode_method", TABLEAUS),
    ("eval.hutchinson_type", likelihood.DIVERGENCES),
    ("eval.dequantization", dequantization.CHOICES),
    ("eval.bpd_dataset", ("train", "test")),
    ("guidance.inverse", METHODS),
    ("metrics.features", ("inception", "trained", "none")),
    ("metrics.split", ("train", "test")),
    ("optim.optimizer", ("Adam",)),
    ("optim.nan_gradients", NAN_GRADIENTS),
    ("optim.ema_schedule", ema.SHORTHAND),
    ("data.dataset", DATASETS),
    ("text.tokenizer", TOKENIZERS),
    ("data.corrupt", ("refuse", "skip")),
    ("data.labels", ("auto", "folders", "none")),
    ("data.captions", ("auto", "none")),
    ("wandb.mode", ("disabled", "offline", "online")),
]


def overridden(key, text):
    """The value that a text on the command line gives a key."""
    return parse(["score_sde", f"--config={ROOT / CONFIG}", f"--config.{key}={text}"]).config[key]


@pytest.mark.parametrize(("key", "choices"), NAMED, ids=[key for key, _ in NAMED])
def test_every_choice_is_reached_from_a_config_and_from_an_override(key, choices, config):
    assert set(choices) <= set(KEYS[key].choices)
    config.eval.num_probes = 3
    for choice in choices:
        config.update_from_flattened_dict({key: choice, "training.continuous": choice != "ncsn"})
        check(config)
        assert overridden(key, choice) == choice == config[key]
    if choices is not DATASETS:  # others are looked for in TFDS
        with pytest.raises(UsageError, match=r"Unknown .*choose from"):
            config.update_from_flattened_dict({key: "no_such_choice"})
            check(config)


def test_every_choice_with_a_dictionary_is_tested():
    assert {key.name for key in KEYS.values() if key.choices} - {name for name, _ in NAMED} == {
        "model.nonlinearity",
        "model.interpolation",
        "model.attention_up",
        "model.embedding_type",
        "model.label_embedding",
        "model.resblock_type",
        "model.progressive",
        "model.progressive_input",
        "model.progressive_combine",
        "sampling.save",  # of which any number may be chosen: tests/test_exports.py
        "data.augment_transforms",  # the same: tests/test_augmentation.py
    }


# What a choice of an objective's part is chosen with, where it does not go with the paper's keys alone.
WITH = {
    "parameterization.name": {"process.name": "edm"},
    "parameterization.noise_cond": {"parameterization.name": "noise"},
    "weight.base": {"weight.name": "uncertainty"},
}


@pytest.mark.parametrize(
    ("key", "choices"),
    [each for each in NAMED if each[0].partition(".")[0] in ("process", "parameterization", "times", "weight")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_part_of_an_objective_is_built_from_a_config(key, choices, config):
    if key == "process.name":  # the paper's keys say what a network learns under its SDEs
        config.parameterization.name = "noise"
        config.update_from_flattened_dict({"times.name": "uniform", "weight.name": "likelihood"})
    config.update_from_flattened_dict(WITH.get(key, {}))
    section, name = key.split(".")
    for choice in set(choices) - ({"uncertainty"} if key == "weight.base" else set()):
        config.update_from_flattened_dict({key: choice})
        built = getattr(recipe.objective_of(config), section)
        assert (type(built) is choices[choice]) if name == "name" else getattr(built, name) == choice


@pytest.mark.parametrize("name", [*MODELS, *CLASSIFIERS])
def test_every_network_is_built_from_a_config(name, config):
    with config.unlocked():
        config.model = {"name": name}
    network = construct("model", dict(config.model), MODELS | CLASSIFIERS)
    assert type(network) is (MODELS | CLASSIFIERS)[name]
    network.check(config.data.image_size * 8)


@pytest.fixture(scope="module")
def experiment(one_block):
    config = compose(ddpmpp, vp, digits, small)
    config.sde.num_scales = 30
    config.sampling.num_steps = 3
    return build.Experiment(config)


SAMPLED = {
    "sampling.method": {},
    "sampling.predictor": {"sampling.corrector": "langevin_per_sample"},
    "sampling.corrector": {},
    "sampling.grid": {"sampling.method": "ddim"},
    "sampling.clip": {"sampling.method": "ddim"},
    "sampling.precision": {"sampling.method": "ddim"},
    "guidance.inverse": {"sampling.condition": "superresolve=2"},
}


@pytest.mark.parametrize(("key", "values"), SAMPLED.items(), ids=list(SAMPLED))
def test_every_choice_of_a_sampler_is_built_from_a_config(key, values, experiment):
    usual = {name: experiment.config[name] for name in [*SAMPLED, "sampling.condition"]}
    try:
        experiment.config.update_from_flattened_dict(values)
        for choice in KEYS[key].choices:
            experiment.config.update_from_flattened_dict({key: choice})
            nfe = planned_nfe(experiment)
            assert nfe is None if choice in ("ode", "adaptive") else nfe > 0
    finally:
        experiment.config.update_from_flattened_dict(usual)


def test_every_choice_of_a_likelihood_is_built_from_a_config(experiment):
    experiment.config.eval.num_probes = 3
    for experiment.config.eval.hutchinson_type in likelihood.DIVERGENCES:
        assert callable(experiment.bits_per_dim(experiment.param_shapes).step)
    for experiment.config.eval.dequantization in dequantization.CHOICES:
        assert callable(experiment.dequantization().sample)


def test_every_data_set_is_found_by_the_name_in_a_config(config):
    for config.data.dataset in DATASETS:
        assert dataset(config.data.dataset) is DATASETS[config.data.dataset]


@pytest.mark.parametrize("profile", ["constant:0.9", "ramp:0.9", "half_life:20", "half_life:20,0.1", "power:0.1"])
def test_every_profile_of_an_average_is_reached(profile, config):
    config.ema.profiles = overridden("ema.profiles", f"'{profile}'")
    check(config)
    assert config.ema.profiles == (profile,)


def test_a_user_class_is_named_by_its_import_path_and_has_arguments_of_its_own(config):
    config.process.update(name="my_package.schedules:Cubic", power=np.float32(3))
    check(config)
    assert config.process.power == 3.0 and type(config.process.power) is float
    assert config.is_locked and config.process.is_locked
    with pytest.raises(AttributeError, match="power"):
        config.times.power = 3


@pytest.mark.parametrize(
    ("key", "given", "stored"),
    [
        ("optim.lr", np.float32(0.5), 0.5),
        ("optim.lr", jnp.float32(0.5), 0.5),
        ("optim.lr", np.array(0.5), 0.5),
        ("optim.lr", np.int64(1), 1.0),
        ("optim.lr", 1, 1.0),
        ("training.batch_size", np.int64(3), 3),
        ("training.batch_size", jnp.asarray(3), 3),
        ("training.remat", np.bool_(True), True),
        ("model.ch_mult", [1, 2], (1, 2)),
        ("model.ch_mult", np.array([1, 2]), (1, 2)),
        ("model.ch_mult", jnp.array([1, 2]), (1, 2)),
        ("model.ch_mult", [np.int32(1), jnp.int32(2)], (1, 2)),
        ("guidance.interval", np.array([0.25, 1]), (0.25, 1.0)),
        ("ema.profiles", ["ramp:0.9"], ("ramp:0.9",)),
        ("sampling.eps", None, None),
        ("sampling.num_scales", np.int32(7), 7),
        ("data.path", Path("images"), "images"),
    ],
)
def test_numbers_and_sequences_of_any_library_are_stored_as_pythons(key, given, stored, config):
    section, name = key.split(".")

    def by_attribute():
        setattr(config[section], name, given)

    ways = [
        by_attribute,
        lambda: config[section].update({name: given}),
        lambda: config.update({section: {name: given}}),
    ]
    for way in [*ways, lambda: config.update_from_flattened_dict({key: given})]:
        way()
        assert config[key] == stored and type(config[key]) is type(stored)
        json.dumps(config.to_dict())
        config[section].update({name: base()[key] if section != "model" else (1,)})


@pytest.mark.parametrize(
    ("key", "given", "words"),
    [
        ("optim.lr", "fast", "optim.lr='fast' is not a number."),
        ("optim.lr", None, "optim.lr=None is not a number."),
        ("optim.lr", True, "optim.lr=True is not a number."),
        ("optim.lr", np.array([1.0, 2.0]), "optim.lr=(1.0, 2.0) is not a number."),
        ("training.batch_size", 1.5, "training.batch_size=1.5 is not an integer."),
        ("training.remat", 1, "training.remat=1 is not True or False."),
        ("training.precision", 32, "training.precision=32 is not text."),
        ("model.ch_mult", [1, 2.5], "model.ch_mult=(1, 2.5) is not a list or tuple of integers."),
        ("ema.profiles", "ramp:0.9", "ema.profiles='ramp:0.9' is not a list or tuple of texts."),
        ("sampling.num_scales", "many", "sampling.num_scales='many' is not an integer."),
        ("metrics.seed", 0.5, "metrics.seed=0.5 is not an integer."),
    ],
)
def test_a_value_of_another_kind_is_one_sentence_as_it_is_set(key, given, words, config):
    before = config.to_dict()
    with pytest.raises(UsageError) as error:
        config.update_from_flattened_dict({key: given})
    assert str(error.value) == words and config.to_dict() == before


def test_a_config_of_ones_own_is_checked_at_the_latest_when_it_is_used(config):
    plain = ConfigDict(config.to_dict())
    check(plain)
    plain.training.batch_size = None
    with pytest.raises(UsageError, match=r"training\.batch_size=None is not an integer"):
        check(plain)


@pytest.mark.parametrize(
    "copied",
    [
        lambda config: pickle.loads(pickle.dumps(config)),
        copy.deepcopy,
        lambda config: config.copy_and_resolve_references(),
        Config,
        lambda config: Config(FrozenConfig(config)),
        lambda config: Config(config.to_dict()),
    ],
)
def test_a_copy_of_a_config_is_one_whose_sections_take_the_same(copied, config):
    other = copied(config)
    assert type(other) is type(other.optim) is Config and other.to_dict() == config.to_dict()
    other.optim.lr = np.float32(1)
    assert type(other.optim.lr) is float
    with pytest.raises(UsageError, match=r"optim\.lr"):
        other.optim.lr = "fast"


def test_a_section_that_is_put_in_another_place_is_a_copy(config):
    config.process = config.weight
    config.weight.gamma = 5
    assert config.process.get("gamma") is None and type(config.weight.gamma) is float


def test_a_frozen_config_is_a_config_and_stays_what_it_is(config):
    frozen = FrozenConfig(config)
    assert isinstance(frozen, Config) and frozen.to_dict() == config.to_dict()
    assert pickle.loads(pickle.dumps(frozen)) == frozen and hash(frozen) == hash(FrozenConfig(config))
    with pytest.raises(AttributeError):
        frozen.seed = 3


def test_every_nullable_key_is_set_to_none_and_back(config):
    nullable = [name for name in KEYS if is_nullable(name)]
    assert {"sampling.eps", "guidance.weak_step", "process.num_scales"} <= set(nullable)
    for name in nullable:
        kind = config[name.partition(".")[0]].get_type(name.partition(".")[2])
        text = {int: "3", float: "0.5", str: "mean", tuple: "0.5,2.0"}[kind]
        config.update_from_flattened_dict({name: overridden(name, text)})
        assert type(config[name]) is kind
        config.update_from_flattened_dict({name: overridden(name, "None")})
        assert config[name] is None


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.n_iters", "1e4", UsageError),
        ("optim.lr", "None", UsageError),
        ("optim.lr", "1e-3", 1e-3),
        ("training.remat", "true", True),
        ("training.remat", "maybe", UsageError),
        ("model.ch_mult", "(1,2)", (1, 2)),
        ("model.attn_resolutions", "16", (16,)),
        ("training.cond_dropout", "('labels','tokens')", ("labels", "tokens")),
        ("ema.profiles", "'half_life:20,0.1'", ("half_life:20,0.1",)),
        ("guidance.interval", "0.2,0.8", (0.2, 0.8)),
    ],
)
def test_the_text_of_an_override_has_the_kind_of_its_key(key, text, value):
    if value is UsageError:
        with pytest.raises(UsageError, match=key):
            overridden(key, text)
    else:
        assert overridden(key, text) == value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.batch_size", 0, "training.batch_size=0 must be at least 1."),
        ("training.keep_best", -1, "training.keep_best=-1 must not be negative."),
        ("training.label_dropout", 1.0, "training.label_dropout=1.0 must be in [0, 1)."),
        ("optim.lr", float("nan"), "optim.lr=nan must be positive and finite."),
        ("optim.ema_rate", 1.0, "optim.ema_rate=1.0 must be in [0, 1)."),
        ("sampling.num_scales", 1, "sampling.num_scales=1 must be at least 2."),
        ("guidance.particles", 1, "guidance.particles=1 must be at least 2."),
        ("eval.precision", "bfloat16", "Likelihoods need more than the three digits"),
        ("guidance.scale", -1.0, "guidance.scale=-1.0 must not be negative"),
        ("guidance.scale", float("inf"), "guidance.scale=inf must be finite"),
        ("data.held_out", 1.0, "data.held_out=1.0 must be in [0, 1)"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(key, value, words, config):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError) as error:
        check(config)
    assert str(error.value).startswith(words)


# Keys whose values are any of their kind, with the reason.
FREE = {
    "training.cond_dropout": "names of the network's entries, which are compared as it is built",
    "ema.profiles": "score_sde.ema:check",
    "sampling.ema": "score_sde.ema:check",
    "sampling.condition": "score_sde.conditioning.grammar:check",
    "data.array_range": "score_sde.data.arrays:check_range",
    "data.scene_held_out": "score_sde.data.scenes:pairs",
    "encoder.entry": "a name of the data set's",
    "guidance.negative": "a caption, as captions are",
    **dict.fromkeys(("sampling.start", "guidance.classifier", "guidance.weak"), "a place, opened as it is used"),
    **dict.fromkeys(("data.path", "data.data_dir", "data.archives"), "a place, opened as it is used"),
    **dict.fromkeys(("training.pairs", "training.start_from", "text.frozen"), "a place, opened as it is used"),
    **dict.fromkeys(("metrics.weights", "metrics.statistics", "metrics.dir"), "a place, opened as it is used"),
    **dict.fromkeys(("wandb.project", "wandb.entity", "wandb.group", "wandb.name"), "a name at Weights & Biases"),
}


def test_every_key_has_a_range_or_a_reason_for_none():
    without = {name for name, key in KEYS.items() if not key.range and key.kind is not bool}
    assert without == set(FREE)


def test_classes_agree_on_the_range_of_an_argument():
    for key in KEYS.values():
        assert len(set(key._annotations)) <= 1, key.name


def just_outside(key: Key) -> list:
    """Values of the key's kind next to its interval, and those of other kinds."""
    values = [object(), 1j, b"", {}, [None], "nonsense" if key.kind is not str else 3]
    values += [] if key.nullable else [None]
    item = key._items or key.kind
    values += [True, 1 + 2j] if item in (int, float) else []
    if interval := key.interval:
        low, high = (float(end) for end in interval[1:-1].split(","))
        if item is int:
            below, above = (int(end) if abs(end) < np.inf else None for end in (low, high))
            outside = [] if below is None else [below - (interval[0] == "[")]
            outside += [] if above is None else [above + (interval[-1] == "]")]
        else:
            below = low if interval[0] == "(" else np.nextafter(low, -np.inf)
            above = high if interval[-1] == ")" else np.nextafter(high, np.inf)
            outside = [float("nan"), below, *([above] if above != high or interval[-1] == ")" else [])]
        values += [[each] for each in outside] if key._items else outside
    return values


def test_values_just_outside_a_range_and_of_other_kinds_are_refused_with_the_keys_name():
    for name, key in KEYS.items():
        for value in just_outside(key):
            with pytest.raises(UsageError, match=name.replace(".", r"\.")):
                key.check(value)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_check_of_a_config_looks_at_every_section(section, config):
    plain = ConfigDict(config.to_dict())
    name = next(name for name in KEYS if name.rpartition(".")[0] == section)
    (plain[section] if section else plain)._fields[name.rpartition(".")[2]] = just_outside(KEYS[name])[-1]
    with pytest.raises(UsageError, match=name):
        check(plain)


def test_ints_in_a_tuple_of_floats_stay_as_digests_of_older_workdirs_have_them(config):
    config.model.fir_kernel = (1, 3, 3, 1)
    assert json.dumps(config.model.fir_kernel) == "[1, 3, 3, 1]"


def test_a_norm_of_0_to_clip_gradients_to_is_refused(config):
    config.optim.grad_clip = 0
    with pytest.raises(UsageError, match=r"no parameter moves; .* negative number for no clipping"):
        check(config)
    config.optim.grad_clip = -1
    check(config)


def test_two_ways_of_guidance_make_no_sense_together(config):
    config.guidance.update(classifier="a", weak="b")
    with pytest.raises(UsageError, match="two ways of guidance"):
        check(config)


def test_a_key_that_has_moved_or_is_gone_says_so_in_a_config_file(config):
    for old, new in MOVED.items():
        section, name = old.split(".")
        with pytest.raises(UsageError, match=f"config.{old} is now config.{new}"):
            setattr(config[section], name, 1)
    for old in set(REMOVED) - {"model.num_classes"}:  # which this network has
        with pytest.raises(UsageError, match=f"config.{old} is gone"):
            config.update_from_flattened_dict({old: 1})


def test_an_older_workdir_means_what_it_did(config):
    today = config.to_dict()
    added = [f"{section}.{key}" for section, keys in ADDED.items() for key in keys.split()] + ["profile"]
    expected = {name: value for name, value in flatten(today).items() if name not in added}
    expected |= {name: KEYS[name].default for name in added} | OTHERWISE
    assert flatten(completed(older(today))) == flatten(expected)
    for section in ("process", "guidance", "metrics", "ema"):
        assert section not in older(today)
    assert completed(today) == today


def test_what_may_differ_is_as_it_was():
    by = {each: {name for name, key in KEYS.items() if key.differs is each} for each in Differs}
    assert {name.partition(".")[0] for name in by[Differs.LATER]} == set(FREE_SECTIONS)
    assert by[Differs.MACHINE] == {
        *(f"data.{key}" for key in ("path", "data_dir", "archives", "in_memory_gib", "num_workers", "corrupt")),
        "data.array_range",
        "data.captions",
        "text.frozen",
        "training.pairs",
        "training.fsdp",
    }
    assert {name for name in by[Differs.ALLOWED] if name.startswith("optim.")} == {
        *(f"optim.{key}" for key in ("lr", "beta1", "eps", "weight_decay", "warmup", "grad_clip")),
        *(f"optim.{key}" for key in ("beta2", "warmup_images", "decay_after", "nan_gradients")),
    }
    identity = {name for name in by[Differs.NEVER] if name.partition(".")[0] not in ARGUMENTS}
    assert identity == {
        "seed",
        *(f"training.{key}" for key in ("continuous", "likelihood_weighting", "reduce_mean", "coupling")),
        "training.coupling_block",
        "training.privacy",
        "privacy.secret_seed",
        *(f"data.{key}" for key in ("image_size", "image_width", "num_channels", "centered")),
        "data.uniform_dequantization",
        *(f"text.{key}" for key in ("tokenizer", "max_tokens", "truncate", "vocab_size")),
        *(f"optim.{key}" for key in ("optimizer", "ema_rate", "ema_schedule")),
        "ema.profiles",
    }


def test_keys_are_explained_on_the_command_line(capsys):
    command = ["score_sde", f"--config={ROOT / CONFIG}", "--mode=describe"]
    assert main([*command, "--explain=optim"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "optim.beta1 = 0.9"
    assert lines[lines.index("optim.lr = 0.001") + 1] == (
        "    Learning rate after the warmup. Values: positive and finite. Default: 0.0002. "
        "May differ in a training that goes on, by --allow_change."
    )
    assert main([*command, "--explain"]) == 0
    explained_all = capsys.readouterr().out
    assert "sampling.eps = None\n    Time at which" in explained_all and "sde.beta_max = 20.0\n" in explained_all
    assert main([*command, "--explain=optm"]) == 2
    assert "did you mean 'optim'" in capsys.readouterr().err
    assert main([*command[:-1], "--mode=train", "--workdir=x", "--explain"]) == 2


def test_a_class_of_the_users_own_is_explained_too():
    values = {"model.name": "my.mixer:Mixer", "model.depth": 3}
    assert list(explained(values, "model.depth"))[1].startswith("    Argument of model.name=my.mixer:Mixer.")


def test_the_page_is_written_by_a_program(capsys):
    runpy.run_module("score_sde.config", run_name="__main__")
    assert capsys.readouterr().out == page()


def test_the_config_imports_no_other_room():
    program = "import sys, score_sde.config; print([m for m in sys.modules if m.startswith('jax')])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout
