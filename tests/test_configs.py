"""All configs of the paper: their values, their full-size networks, and the whole life of each, shrunk."""

import copy
import functools
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_weights import load_json, seeded
from test_data import prepare
from test_end_to_end import metrics

from score_sde.config import FrozenConfig
from score_sde.data import DATASETS
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.io import workdir
from score_sde.models import MODELS, ncsn
from score_sde.paths import Linear
from score_sde.randomness import normal
from score_sde.sampling import solve
from score_sde.sde import SDES
from score_sde.training.build import Classification, Experiment, parameter_counts
from score_sde.training.run import load_data, train, train_step
from score_sde.training.trainable import warmup_of

ROOT = Path(__file__).parent.parent / "configs"
GOLDEN = load_json("configs.json")
PAPER = sorted(GOLDEN["configs"])
OURS = ["vp/digits_ddpmpp_continuous", "subvp/digits_ddpmpp_continuous", "ve/digits_ncsnpp_continuous"]
OURS += ["vp/own_images_ddpmpp_continuous", "vp/own_images_small"]
LATER = ["flow/digits_ddpmpp_velocity", "edm/digits_ddpmpp"]  # than the paper
LATER += ["edm2/digits", "edm2/cifar10", *(f"edm2/imagenet64_{size}" for size in ("xs", "s", "m", "l", "xl"))]
FLOW = {
    "cifar10_adm_velocity": 55_676_419,
    "cifar10_ddpmpp_velocity": 61_804_419,
    "cifar10_ddpmpp_optimal": 61_804_419,
    **dict.fromkeys(("digits_ddpmpp_uniform", "digits_ddpmpp_optimal", "digits_ddpmpp_reflow"), 748_737),
}
EDM = {  # parameters of the published networks; NCSN++'s 128 frequencies more do not train
    **{f"edm/cifar10_{arch}": count for arch, count in (("ddpmpp", 55_733_891), ("ncsnpp", 56_397_827))},
    **{f"edm/cifar10_{arch}_classes": count for arch, count in (("ddpmpp", 55_735_299), ("ncsnpp", 56_400_643))},
    **{f"edm/{data}_ddpmpp": 61_805_571 for data in ("ffhq64", "afhqv2_64")},
    **{f"edm/{data}_ncsnpp": 62_761_091 for data in ("ffhq64", "afhqv2_64")},
    "edm/imagenet64_adm": 295_899_267,
    "edm/digits_augmented": 749_025,
}
LATER += list(EDM)
TRANSFORMERS = {  # DiT keeps no positions among its parameters
    "vp/cifar10_uvit": 44_255_328,
    "vp/digits_uvit": 755_150,
    "vp/digits_private": 159_438,
    "flow/cifar10_dit": 32_471_436,
    "flow/digits_dit": 722_788,
}
LATER += list(TRANSFORMERS)
CAPTIONS = {"flow/scenes_unet": 1_932_995, "flow/scenes_uvit": 1_917_328}  # of encoder and network
LATER += list(CAPTIONS)
LATER += [f"flow/{name}" for name in FLOW]
CLASSIFIERS = {  # all but the last 128 are trainable
    **{f"{sde}/cifar10_wideresnet": 38_913_242 for sde in ("vp", "subvp", "ve")},
    **{f"{sde}/digits_wideresnet": 801_946 for sde in ("vp", "subvp", "ve")},
}

# What the paper's files have otherwise. The batch does not fit any accelerator, and their programs stop before it.
CORRECTED = {
    ("ve/celebahq_ncsnpp_continuous", "eval.batch_size"): 8,
    ("ve/ffhq_ncsnpp_continuous", "eval.batch_size"): 8,
    # Nor do these two name what is to be evaluated.
    ("ve/celebahq_ncsnpp_continuous", "eval.enable_sampling"): True,
    ("ve/ffhq_ncsnpp_continuous", "eval.enable_sampling"): True,
}

# (trainable, in all) of the paper's code
CIFAR10_NCSNPP = {
    ("ve", ""): (62_693_251, 62_693_251),
    ("ve", "_continuous"): (62_758_787, 62_758_915),
    ("ve", "_deep_continuous"): (107_586_947, 107_587_075),
    ("vp", ""): (62_693_251, 62_693_251),
    ("vp", "_continuous"): (62_693_251, 62_693_251),
    ("vp", "_deep_continuous"): (107_521_411, 107_521_411),
    ("subvp", "_continuous"): (62_693_251, 62_693_251),
    ("subvp", "_deep_continuous"): (107_521_411, 107_521_411),
}
CIFAR10_DDPMPP = {"": 61_804_419, "_continuous": 61_804_419, "_deep_continuous": 106_632_579}
LARGE, HUGE = (65_574_421, 65_574_549), (105_785_880, 105_785_896)
COUNTS: dict[str, int | tuple[int, int]] = {
    **{f"{sde}/cifar10_ncsnpp{suffix}": counts for (sde, suffix), counts in CIFAR10_NCSNPP.items()},
    **{f"vp/cifar10_ddpmpp{suffix}": count for suffix, count in CIFAR10_DDPMPP.items()},
    **{f"subvp/cifar10_ddpmpp{suffix}": CIFAR10_DDPMPP[suffix] for suffix in ("_continuous", "_deep_continuous")},
    **{f"ve/{name}_ncsnpp_continuous": LARGE for name in ("bedroom", "church", "celebahq_256", "ffhq_256")},
    **{f"ve/{name}_ncsnpp_continuous": HUGE for name in ("celebahq", "ffhq")},
    "ve/celeba_ncsnpp": 62_693_251,
    **dict.fromkeys(("ve/cifar10_ddpm", "vp/ddpm/cifar10", "vp/ddpm/cifar10_continuous"), 35_218_947),
    "subvp/cifar10_ddpm_continuous": 35_218_947,
    "vp/ddpm/cifar10_unconditional": 32_329_347,
    **dict.fromkeys(("vp/ddpm/bedroom", "vp/ddpm/church", "vp/ddpm/celebahq"), 111_569_923),
    **dict.fromkeys(("ve/ncsnv2/celeba", "ve/ncsnv2/cifar10"), 33_970_563),
    "ve/ncsnv2/bedroom": 83_445_379,
    **{f"ve/ncsn/{data}{suffix}": 34_428_675 for data in ("celeba", "cifar10") for suffix in ("", "_5")},
    **dict.fromkeys(("ve/ncsn/cifar10_124", "ve/ncsn/cifar10_1245"), 44_828_931),
    **dict.fromkeys(("ve/ncsn/celeba_124", "ve/ncsn/celeba_1245"), 57_384_195),
    **dict(zip(OURS, (748_737, 748_737, (753_153, 753_185), 6_989_891, 1_260_547), strict=True)),
}


def config_of(name: str):
    return importlib.import_module("score_sde.configs." + name.replace("/", ".")).get_config()


def test_every_config_file_is_tested():
    files = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*/*.py")}
    files = {name for name in files if not name.endswith("__init__")}
    assert files == {*PAPER, *OURS, *LATER, *CLASSIFIERS}
    assert len(PAPER) == 39
    assert set(COUNTS) == {*PAPER, *OURS}


@pytest.mark.parametrize("name", PAPER)
def test_a_config_holds_the_papers_values(name):
    expected = GOLDEN["common"] | GOLDEN["configs"][name]
    found = workdir.flatten(config_of(name).to_dict())
    for key in expected.keys() & found.keys():
        assert found[key] == CORRECTED.get((name, key), expected[key]), key
    # What their files hold and ours do not is what the network or the SDE does not have.
    options = {f"model.{key}" for key in MODELS[found["model.name"]].__dataclass_fields__} | {"model.scale_by_sigma"}
    options |= {f"sde.{key}" for key in SDES[found["sde.name"]].__dataclass_fields__}
    assert not {
        key for key in expected.keys() - found.keys() if key in options or key.split(".")[0] not in ("model", "sde")
    }


@pytest.mark.parametrize("name", EDM)
def test_edms_configs_are_the_published_training(name):
    config = config_of(name)
    experiment = Experiment(config)
    assert parameter_counts(experiment.param_shapes)[0] == EDM[name]
    if name == "edm/digits_augmented":
        return
    images, ema = config.training.n_iters * config.training.batch_size, config.ema.profiles[0]
    published = {"cifar10": (200, 1e-3, 0.12, 0.5), "imagenet64": (2500, 1e-4, 0.0, 50)}
    millions, lr, p, half_life = published.get(name.split("/")[1].split("_")[0], (200, 2e-4, 0.15, 0.5))
    assert 0 <= images - millions * 1e6 < config.training.batch_size
    assert float(ema.removeprefix("half_life:")) * config.training.batch_size == half_life * 1e6
    assert (config.optim.lr, config.data.augment_p) == (lr, p)
    assert warmup_of(config) * config.training.batch_size == 10e6
    assert config.weight.reduction == "sum" and not config.data.random_flip


def grouped(names, key) -> list:
    """One name of each group that `key` maps to the same config, under the names of all."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(json.dumps(workdir.flatten(key(name))), []).append(name)
    return [pytest.param(group, id="=".join(group)) for group in groups.values()]


def full_size(name: str) -> dict:
    """What the network depends on."""
    config = config_of(name)
    levels = config.sde.num_scales if config.model.name == "ncsn" else None
    return {"model": config.model.to_dict(), "image_size": config.data.image_size, "levels": levels}


@pytest.mark.parametrize("name", CAPTIONS)
def test_configs_of_captions_have_their_parameters(name):
    assert parameter_counts(Experiment(config_of(name)).param_shapes) == (CAPTIONS[name],) * 2


@pytest.mark.parametrize("names", grouped(COUNTS, full_size))
def test_full_size_networks_have_the_papers_parameters_and_give_an_image(names):
    experiment = Experiment(config_of(names[0]))
    for name in names:
        counts = COUNTS[name]
        assert parameter_counts(experiment.param_shapes) == (counts if isinstance(counts, tuple) else (counts, counts))
    x = jax.ShapeDtypeStruct((2, *experiment.image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((2,), jnp.float32)
    score = jax.eval_shape(lambda params, x, t: experiment.score_fn(params)(x, t), experiment.param_shapes, x, t)
    assert (score.shape, score.dtype) == (x.shape, jnp.float32)


def test_own_images_need_a_path_only_and_are_not_flipped():
    config = config_of("vp/own_images_ddpmpp_continuous")
    assert (config.data.dataset, config.data.path, config.data.random_flip) == ("folder", "", False)
    training, optim = config.training, config.optim
    for updates in (optim.warmup, 1 / (1 - optim.ema_rate)):  # nothing of the start is left in what is sampled
        assert 10 * updates <= training.n_iters
    assert training.n_iters % training.snapshot_freq == 0
    assert (config.eval.begin_ckpt, config.metrics.features) == (-1, "trained")


@pytest.mark.parametrize("name", FLOW)
def test_configs_of_flow_matching_have_their_parameters_and_paths(name):
    experiment = Experiment(config_of(f"flow/{name}"))
    assert parameter_counts(experiment.param_shapes) == (FLOW[name], FLOW[name])
    assert (experiment.objective.process, experiment.coupled) == (Linear(), name.endswith(("optimal", "reflow")))


def test_skewed_times_are_edms_noise_levels():
    """t = 1 - 1 / (1 + sigma), log(sigma) ~ N(-1.2, 1.2^2); 25 steps of Heun's method are 50 evaluations."""
    experiment, keys = Experiment(config_of("flow/cifar10_adm_velocity")), jax.random.split(jax.random.key(0), 8)
    sigma = jnp.exp(-1.2 + 1.2 * normal(keys, ()))
    t = experiment.objective.times.sample(Linear(), keys)
    np.testing.assert_allclose(t, 1 - 1 / (1 + sigma), rtol=1e-5)
    assert experiment.sampler({}).nfe == 50


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_have_their_parameters(name):
    total = CLASSIFIERS[name]
    assert parameter_counts(Classification(config_of(name)).param_shapes) == (total - 128, total)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> str:
    """A data folder with a few small images of every data set that the paper's configs name."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in {config_of(name).data.dataset for name in PAPER}:
        entry = DATASETS[name]
        splits = dict.fromkeys(("train", entry.eval_split), 6)
        prepare(folder, entry.builder, (18, 16, 3), tuple(splits.items()), labels=name == "cifar10")
    return str(folder)


@pytest.mark.parametrize("name", PAPER)
def test_the_data_set_of_a_config_is_read_in_its_size(name, prepared):
    config = config_of(name)
    config.data.data_dir = prepared
    size = config.data.image_size
    for is_train in (True, False):
        assert load_data(config, train=is_train).images.shape == (6, size, size, 3)


def shrunk(name: str):
    """The config with a narrow network, 8x8 images, 25 noise levels and batches of 4.

    Of numbers that the tests above compare with the paper's, those that no code branches on become the same everywhere.
    """
    config = config_of(name)
    model = config.model
    if "ch_mult" in model:
        pyramids = (model.get("progressive"), model.get("progressive_input")) not in ((None, None), ("none", "none"))
        model.update(ch_mult=(1, 1) if pyramids else (1,), num_res_blocks=1, attn_resolutions=(), dropout=0.1)
    model.nf = 32 if model.name == "ddpm" else 8
    config.sde.num_scales = 25
    if "sigma_max" in config.sde:
        config.sde.sigma_max = 50.0
    config.optim.update(lr=1e-3, ema_rate=0.999)
    config.data.update(dataset="cifar10", image_size=8)
    config.training.update(
        batch_size=4, n_iters=2, snapshot_freq=2, snapshot_freq_for_preemption=2, log_freq=1, eval_freq=2
    )
    config.training.snapshot_sampling = False
    config.eval.update(batch_size=4, begin_ckpt=1, end_ckpt=1, num_samples=2, enable_sampling=False)
    config.sampling.update(num_samples=2, snr=0.1, n_steps_each=min(config.sampling.n_steps_each, 2))
    return config


SHRUNK = grouped(PAPER, lambda name: shrunk(name).to_dict())


@pytest.mark.parametrize("names", SHRUNK)
def test_an_update_the_sampler_and_the_evaluation_of_a_config_can_be_traced(names):
    experiment = Experiment(shrunk(names[0]))
    pixels, state = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8), experiment.state_shapes
    after, loss = jax.eval_shape(train_step(experiment), state, pixels)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert (loss.shape, loss.dtype) == ((), jnp.float32)

    def draw(params, keys):
        return solve(experiment.sampler(params), keys, experiment.prior(keys))

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    x, _ = jax.eval_shape(draw, state.ema_params, keys)
    assert (x.shape, x.dtype) == (pixels.shape, jnp.float32)
    indices = jax.ShapeDtypeStruct((4,), jnp.int32)
    assert jax.eval_shape(experiment.evaluation, state.ema_params, pixels, 0, indices)["loss"].shape == (4,)


# Every network, SDE, kind of training, predictor and corrector among them.
LIVES = (
    "subvp/cifar10_ncsnpp_continuous",
    "ve/bedroom_ncsnpp_continuous",
    "ve/ncsn/cifar10",
    "ve/ncsnv2/cifar10",
    "vp/cifar10_ddpmpp_continuous",
    "vp/ddpm/cifar10",
)


def test_every_choice_of_the_papers_configs_has_a_life():
    def choices(config):
        sections = [("sde", "name"), ("sampling", "predictor"), ("sampling", "corrector"), ("training", "continuous")]
        more = [("model", key) for key in ("embedding_type", "fir", "progressive", "progressive_input")]
        pairs = {(key, str(config[section].get(key))) for section, key in sections + more}
        return pairs | {("model", config.model.name.removesuffix("_128").removesuffix("_64"))}

    lived = set().union(*(choices(shrunk(name)) for name in LIVES))
    assert set().union(*(choices(shrunk(name)) for name in PAPER)) <= lived


@pytest.mark.parametrize("name", LIVES)
def test_a_config_shrunk_trains_stops_goes_on_samples_and_evaluates(name, prepared, tmp_path, monkeypatch):
    config = shrunk(name)
    config.data.data_dir = prepared
    # A stage of each kind between the two: at full resolution and halved, or dilated.
    monkeypatch.setattr(ncsn.RefineNet, "stages", ncsn.SMALL[:2] if config.model.name == "ncsn" else ncsn.SMALL[:3:2])
    experiment = Experiment(config)
    # Compiled once, where a new process would compile again; and initialisers, tested in test_parity.py, not at all.
    step = train_step(experiment)

    def of_frozen_config(*_, **__):
        held = copy.copy(experiment)
        held.config = FrozenConfig(config)
        return held

    monkeypatch.setattr("score_sde.training.trainable", lambda _: experiment)
    monkeypatch.setattr("score_sde.inference.pretrained.Pretrained._experiment_class", of_frozen_config)
    monkeypatch.setattr("score_sde.training.run.train_step", lambda _: step)
    monkeypatch.setattr(experiment, "init_params", functools.partial(seeded, experiment.param_shapes))

    train(config, tmp_path)
    config.training.n_iters = 3
    train(config, tmp_path)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 2, 3]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    sample(config, tmp_path)
    pixels = np.load(next((tmp_path / "samples").glob("*.npz")))["images"]
    assert (pixels.shape, pixels.dtype) == ((2, 8, 8, 3), np.uint8)
    evaluate(config, tmp_path)
    (entry,) = json.loads((tmp_path / "eval/report.json").read_text())["checkpoints"]
    assert entry["step"] == 2 and np.isfinite(entry["loss"]["mean"]) and entry["loss"]["images"] == 6
