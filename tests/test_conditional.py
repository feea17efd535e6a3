"""Conditions through configs, workdirs and the command line, with networks of random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.cli.describe import planned_nfe
from score_sde.cli.main import main
from score_sde.conditioning import GUIDES, Average, Blur, Inpaint
from score_sde.errors import UsageError
from score_sde.evaluation.evaluate import evaluate, sample
from score_sde.evaluation.inverse_problems import mean_nfe
from score_sde.inference.conditional_samplers import Conditional, Conditions, finished
from score_sde.inference.pretrained import Pretrained, load
from score_sde.inference.sampling_plan import plan
from score_sde.io import workdir
from score_sde.io.checkpoints import Checkpoints, Retention
from score_sde.randomness import sample_keys
from score_sde.sampling import solve
from score_sde.training.build import Experiment, trainable
from score_sde.training.state import initial_state

KEYS = sample_keys(jax.random.key(0), jnp.arange(4))


def random_params(experiment, seed=0):
    """Unlike fresh ones, which give 0 whatever the input."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: 0.1 * generator.standard_normal(leaf.shape, np.float32), experiment.param_shapes)


def saved(config, folder, steps=(4,)):
    """A workdir with checkpoints of random weights."""
    experiment = trainable(config)
    workdir.write(folder, "config.json", config.to_dict())
    with Checkpoints(folder / "checkpoints", Retention(9)) as checkpoints:
        for step in steps:
            params = random_params(experiment, step)
            state = jax.jit(initial_state, static_argnums=(1, 2))(params, experiment.optimizer, experiment.profiles)
            checkpoints.save(step, state._replace(step=jnp.int32(step)))
            checkpoints.wait()
    return folder


@pytest.fixture
def fast(tiny_config):
    def build(name="vp/digits_ddpmpp_continuous", **sampling):
        config = tiny_config(name)
        if "ddpmpp" in name:
            config.model.update(num_classes=10, attn_resolutions=())
        config.sampling.update(method="ddim", num_steps=3, clip="none", **sampling)
        return config

    return build


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {}, tmp_path_factory.mktemp("conditional")


@pytest.fixture
def model(folders, fast):
    """A score with classes, of two checkpoints, and a classifier."""
    done, folder = folders
    if not done:
        done["score"] = saved(fast(), folder / "score", (2, 4))
        done["plain"] = saved(_without_classes(fast()), folder / "plain")
        done["classifier"] = saved(fast("vp/digits_wideresnet"), folder / "classifier")
    return done


def _without_classes(config):
    config.model.num_classes = 0
    return config


def test_a_network_with_classes_alone_and_at_weight_one_is_its_conditional_score(fast):
    experiment = Experiment(fast())
    params, cond = random_params(experiment), {"labels": jnp.array([3, 1, 4, 1])}
    x_T = experiment.prior(KEYS)

    def sampled(given, scale):
        config = fast()
        config.guidance.scale = scale
        return solve(Conditional(Experiment(config)).sampler({"score": params}, given), KEYS, x_T)

    alone = solve(experiment.sampler_of(params, experiment.model_of(params, "ddim", cond), "ddim")(), KEYS, x_T)
    without = solve(experiment.sampler(params), KEYS, x_T)
    for scale, expected in ((1.0, alone), (0.0, without)):
        found = sampled(Conditions(cond), scale)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], 4)
    assert np.abs(np.asarray(alone[0] - without[0])).max() > 1e-3
    guided, nfe = sampled(Conditions(cond), 2.0)
    assert np.abs(np.asarray(guided - alone[0])).max() > 1e-3
    np.testing.assert_array_equal(nfe, 8)


def test_classifiers_and_weaker_networks_of_workdirs_guide(model):
    score, key = load(model["plain"]), jax.random.key(0)
    plain = score.sample(key, 3)
    guided = {
        scale: score.sample(key, 3, labels=[1, 2, 3], classifier=str(model["classifier"]), scale=scale)
        for scale in (0.0, 5.0)
    }
    np.testing.assert_array_equal(guided[0.0], plain)
    assert np.abs(np.asarray(guided[5.0] - plain)).max() > 1e-3

    strong = load(model["score"])
    extrapolated = strong.sample(key, 3, scale=3.0, weak=str(model["score"]), weak_step=2)
    assert np.abs(np.asarray(extrapolated - strong.sample(key, 3))).max() > 1e-3


def test_known_pixels_of_a_network_are_exact_and_grey_values_stay(model, fast):
    score, truth = load(model["score"]), np.random.default_rng(1).uniform(size=(3, 8, 8, 1)).astype(np.float32)
    mask = np.broadcast_to(np.arange(8)[None, None, :, None] < 4, truth.shape)
    known = jnp.asarray(np.where(mask, truth, 0))
    x = np.asarray(score.posterior(jax.random.key(0), Inpaint(jnp.asarray(mask)), known, inverse="pigdm"))
    np.testing.assert_array_equal(x[:, :, :4], truth[:, :, :4])
    assert np.min(x) >= 0 and np.max(x) <= 1

    config = fast()
    config.data.num_channels = 3
    experiment = Experiment(config)
    conditional, operator = Conditional(experiment), Average(grey=True)
    grey = jax.random.uniform(jax.random.key(2), (4, 8, 8, 1))
    conditions = Conditions(observation=jax.jit(conditional.observed, static_argnums=2)(operator, grey, 0.0))
    solver = conditional.sampler({"score": random_params(experiment)}, conditions)
    x, _ = solve(solver, KEYS, experiment.prior(KEYS))
    colours = np.asarray(jax.jit(lambda x: finished(experiment.scaling.to_unit(x), operator, grey, 0.0))(x))
    np.testing.assert_allclose(colours.mean(-1, keepdims=True), grey, atol=1e-5)
    assert np.min(colours) >= 0 and np.max(colours) <= 1 and np.ptp(colours, axis=-1).max() > 0.05


def test_options_are_of_one_call_only(model):
    score, conditions = load(model["score"]), Conditions({"labels": jnp.arange(2)})

    def nfe(**options):
        return plan(score, "ddim", options).conditional.sampler({"score": score.params}, conditions, "ddim").nfe

    first, other, again = nfe(scale=2.0), nfe(num_steps=7, scale=3.0, interval=(0.2, 0.8)), nfe(scale=4.0)
    assert first == again == 8 < other < 16


def test_the_evaluations_foretold_count_every_network_that_is_asked(model, fast):
    def foretold(without_classes=False, guidance=(), **sampling):
        config = fast()
        config.sampling.update(dict(method="dpmpp_2m", num_steps=30) | sampling)
        config.guidance.update(dict(guidance))
        return planned_nfe(Experiment(_without_classes(config) if without_classes else config))

    classifier, weak = dict(classifier=str(model["classifier"])), dict(weak=str(model["score"]), scale=2.0)
    with pytest.raises(UsageError, match="none is asked for"):
        foretold(guidance=dict(scale=2.0))
    assert foretold(condition="class=3") == 31
    assert foretold(condition="class=3", guidance=dict(scale=2.0)) == 62
    assert foretold(condition="class=3;inpaint=center", guidance=dict(scale=2.0)) == 62
    assert foretold(condition="class=3", guidance=classifier, without_classes=True) == 62
    assert foretold(guidance=weak) == 62
    assert foretold(condition="class=all", method="ode") is None
    particles = dict(inverse="particles", particles=4)
    assert foretold(condition="superresolve=2", guidance=particles, method="pc", num_scales=25) == 100


def test_what_a_batch_makes_beside_its_samples_is_said(model, fast, monkeypatch, capsys):
    def counted(self, keys, report, cond, start):
        return jnp.zeros((len(keys), 8, 8, 1)), jnp.arange(len(keys)), jnp.full(len(keys), 40)

    config = fast(num_samples=4)
    monkeypatch.setattr(Pretrained, "draw", counted)
    sample(config, model["score"])
    assert "4 samples, 1.5 network evaluations each, 40 made for the batch" in capsys.readouterr().out
    listed = workdir.read(model["score"] / "samples", "index.json")
    (stem,) = (name for name, each in listed.items() if each["nfe"] == 1.5)
    kept = np.load(model["score"] / "samples" / f"{stem}.npz")
    assert kept["nfe"].tolist() == [0, 1, 2, 3] and kept["batch_nfe"].tolist() == [40] * 4
    assert mean_nfe(np.array([3, 5]), np.array([3, 5])) == {"nfe": 4.0}


def test_steps_of_diffusion_posterior_sampling_are_those_of_the_sampler(fast, monkeypatch):
    told = []

    def dps(sde, score_fn, observation, options):
        told.append(sde.num_scales if options.num_steps is None else options.num_steps)
        return score_fn

    monkeypatch.setitem(GUIDES, "dps", dps)
    config = fast(num_scales=40)
    config.guidance.inverse = "dps"
    conditional = Conditional(Experiment(config))
    conditions = Conditions(observation=conditional.observed(Average(2), jnp.zeros((4, 4, 4, 1)), 0.0))
    for method in ("ddim", "pc"):
        conditional.sampler({"score": conditional.experiment.param_shapes}, conditions, method)
    assert told == [3, 40]


def test_observations_enter_model_range(fast):
    """y of [0, 1] is that of [-1, 1] through the same A, and so is its noise."""
    conditional, x = Conditional(Experiment(fast())), np.random.default_rng(0).uniform(size=(2, 8, 8, 1))
    for operator in (Average(2), Blur(1.0)):
        forward = jax.jit(operator.forward)
        observation = jax.jit(conditional.observed, static_argnums=2)(operator, forward(x), 0.1)
        np.testing.assert_allclose(observation.y, forward(2 * x - 1), atol=1e-5)
        np.testing.assert_allclose(observation.noise, 0.2, rtol=1e-6)


def test_particles_are_drawn_by_the_predictor_alone(model):
    score, y = load(model["plain"]), jnp.full((2, 4, 4, 1), 0.5)
    options = dict(inverse="particles", particles=3, num_scales=25)
    x = score.posterior(jax.random.key(0), Average(2), y, 0.1, "pc", **options)
    assert x.shape == (2, 8, 8, 1) and np.all(np.isfinite(x))
    with pytest.raises(UsageError, match=r"sampling\.corrector=none"):
        score.posterior(jax.random.key(0), Average(2), y, 0.1, "pc", corrector="ald", **options)


def test_the_command_line_fills_in_hidden_halves_of_test_images(model, fast, capsys):
    config, folder = fast(condition="inpaint=right_half", num_samples=7), model["score"]
    config.guidance.samples_each = 3
    config.eval.batch_size = 4
    sample(config, folder)
    (figures,) = (folder / "samples").glob("step_00000004_ddim_3_inpaint_right_half_*.figures.json")
    stem = figures.name.removesuffix(".figures.json")
    first = figures.with_name(f"{stem}.0000.npz")
    parts = [np.load(first.with_name(f"{stem}.{number:04d}.npz")) for number in range(2)]
    pixels, truth, index = (np.concatenate([part[name] for part in parts]) for name in ("images", "truth", "index"))
    assert index.tolist() == [0, 0, 0, 1, 1, 1, 2]
    np.testing.assert_array_equal(pixels[:, :, :4], truth[:, :, :4])
    figures = json.loads(figures.read_text())
    assert figures["residual"] == 0 and figures["psnr"]["images"] == 2 and figures["nfe"] == 4
    error = np.square(pixels[:6].astype(float) - truth[:6]).reshape(6, -1).mean(1) / 255**2
    assert figures["psnr"]["mean"] == pytest.approx(-10 * np.log10(error).mean(), rel=1e-6)
    assert first.with_name(f"{stem}.png").exists()
    assert "psnr of mean" in capsys.readouterr().out

    before = first.stat().st_mtime_ns
    sample(config, folder)  # nothing is drawn again
    assert first.stat().st_mtime_ns == before


def test_the_command_line_samples_classes(model, fast):
    config = fast(condition="class=all", num_samples=12)
    sample(config, model["score"])
    ours = np.load(next((model["score"] / "samples").glob("step_00000004_ddim_3_class_all_*.npz")))["images"]
    config.sampling.condition = "class=1"
    sample(config, model["score"])
    ones = np.load(next((model["score"] / "samples").glob("step_00000004_ddim_3_class_1_*.npz")))["images"]
    same = [np.array_equal(a, b) for a, b in zip(ours, ones, strict=True)]
    assert same[1] and same[11] and not all(same)  # an image of 0 and 1 alone may be two classes'


def test_hidden_halves_are_filled_in_as_the_class_that_is_asked_for(model, fast, monkeypatch):
    told = []

    def drawn(self, keys, report, cond, observed):
        told.append((cond["labels"].tolist(), observed[0]))
        return jnp.zeros((len(keys), 8, 8, 1)), jnp.full(len(keys), 4), jnp.full(len(keys), 4)

    monkeypatch.setattr(Pretrained, "draw", drawn)
    for condition in ("class=all;inpaint=right_half", "inpaint=right_half;class=2"):
        config = fast(condition=condition, num_samples=3)
        sample(config, model["score"])
    assert [labels for labels, _ in told] == [[0, 1, 2], [2, 2, 2]]
    assert all(isinstance(operator, Inpaint) for _, operator in told)
    assert list((model["score"] / "samples").glob("step_00000004_ddim_3_class_all_inpaint_right_half_*.figures.json"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.sampling.condition=class=10"], "labels 0 to 9, not [10]"),
        (["--config.sampling.condition=inpaint=right_haf"], "did you mean 'right_half'"),
        (["--config.sampling.condition=superresolve=3"], "divides the images' 8x8 pixels"),
        (["--config.guidance.inverse=pidgm"], "did you mean 'pigdm'"),
        (["--config.guidance.scale=-1"], "guidance.scale=-1"),
        (["--config.guidance.interval=(0.5,0.2)"], "guidance.interval=(0.5, 0.2)"),
        (["--config.guidance.noise=-1"], "guidance.noise=-1"),
        (["--config.guidance.particles=1"], "guidance.particles=1"),
        (["--config.guidance.classifier=missing"], "There is no run in missing"),
        (["--config.sampling.method=ode", "--config.sampling.condition=inpaint=center"], "pigdm or tmpd"),
        (
            ["--config.guidance.inverse=dps", "--config.sampling.method=ode", "--config.sampling.condition=sense=0.5"],
            "no N",
        ),
        (["--config.guidance.inverse=particles", "--config.sampling.condition=inpaint=center"], "sampling.method=pc"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(model, fast, arguments, words, capsys):
    folder = model["score"]
    before = sorted(folder.rglob("*"))
    base, own = (workdir.flatten(config.to_dict()) for config in (_digits(), fast()))
    overrides = {key: value for key, value in own.items() if base[key] != value}
    workdir.write(folder, "launch.json", {"overrides": overrides})
    command = ["score_sde", "--config=configs/vp/digits_ddpmpp_continuous.py", f"--workdir={folder}", "--mode=sample"]
    assert main([*command, "--config.sampling.method=ddim", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sorted(set(folder.rglob("*")) - {folder / "launch.json"}) == [
        path for path in before if path.name != "launch.json"
    ]


def _digits():
    from score_sde.configs.vp.digits_ddpmpp_continuous import get_config

    return get_config()


def test_what_nothing_can_give_is_refused(model, fast):
    config = _without_classes(fast(condition="class=1"))
    with pytest.raises(UsageError, match=r"guidance\.classifier, the workdir"):
        sample(config, model["plain"])
    config.sampling.condition = "inpaint=center"
    config.eval.update(enable_loss=False, enable_sampling=True)
    with pytest.raises(UsageError, match="--mode=sample"):
        evaluate(config, model["plain"])
    with pytest.raises(UsageError, match="must take the same condition"):
        load(model["plain"]).sample(jax.random.key(0), 1, weak=str(model["score"]))
    with pytest.raises(UsageError, match=r"makes \(2, 4, 4, 1\)"):
        load(model["plain"]).posterior(jax.random.key(0), Average(2), jnp.zeros((2, 8, 8, 1)))
