"""Averages after the fact: the algebra of profiles by closed forms, and runs that save averages and make others."""

import json
import shutil

import jax
import numpy as np
import pytest

import score_sde
from score_sde.cli.describe import describe
from score_sde.cli.main import main
from score_sde.cli.make_averages import make_averages
from score_sde.ema import Power, weights
from score_sde.errors import UsageError
from score_sde.evaluation import identities
from score_sde.evaluation.evaluate import evaluate
from score_sde.inference import posthoc_weights
from score_sde.inference.pretrained import load
from score_sde.inference.snapshots import restore_state
from score_sde.io import checkpoints
from score_sde.training.average_snapshots import AverageSnapshots
from score_sde.training.build import Experiment
from score_sde.training.posthoc import combination, nearest
from score_sde.training.run import train

TRACKED = Power(0.05), Power(0.1)


def evenly(number, total):
    return [total * (k + 1) // number for k in range(number)]


def columns(steps, total):
    """Weights of each saved average, (updates, snapshots, profiles)."""
    made = np.zeros((total, len(steps), len(TRACKED)))
    for i, step in enumerate(steps):
        for j, profile in enumerate(TRACKED):
            made[:step, i, j] = weights(profile, step)[1:]
    return made


@pytest.mark.parametrize("number", [2, 16, 64, 256])
def test_a_tracked_profile_at_a_snapshot_has_the_coefficient_one_there_and_zero_elsewhere(number):
    steps = evenly(number, 5120)
    for i, j in ((number - 1, 0), (number - 1, 1), (number // 2, 0), (number // 2, 1)):
        made = nearest(TRACKED, steps[: i + 1], TRACKED[j], steps[i])
        expected = np.zeros_like(made.coefficients)
        expected[i, j] = 1
        np.testing.assert_allclose(made.coefficients, expected, rtol=0, atol=1e-12)
        assert made.error < 1e-12


@pytest.mark.parametrize("step", [400, 390])
def test_the_coefficients_are_the_papers_the_solution_of_its_system_of_inner_products(step):
    steps = evenly(8, 400)
    a = columns(steps, 400).reshape(400, -1)
    b = np.append(weights(Power(0.075), step)[1:], np.zeros(400 - step))
    x = np.linalg.solve(a.T @ a, a.T @ b)
    x /= x.sum()
    made = nearest(TRACKED, steps, Power(0.075), step)
    np.testing.assert_allclose(made.coefficients.ravel(), x, atol=1e-10)
    assert made.error == pytest.approx(np.abs(a @ x - b).sum(), rel=1e-8)
    assert made.coefficients.sum() == pytest.approx(1, abs=1e-14)


# L1 of the residual for evenly spaced snapshots of the widths 0.05 and 0.10, to one or two digits, by another program.
WIDTHS = (0.06, 0.075, 0.125, 0.15, 0.20, 0.25, 0.03)
RESIDUALS = {
    8: (1.2e-2, 1.4e-2, 1.7e-2, 3.5e-2, 8e-2, 1.7e-1, 1.3e-1),
    32: (8e-4, 9e-4, 1.1e-3, 2.5e-3, 7e-3, 2.5e-2, 1.0e-2),
    64: (2.0e-4, 2.1e-4, 2.9e-4, 6e-4, 1.9e-3, 9e-3, 2.6e-3),
    128: (5e-5, 5e-5, 7e-5, 1.6e-4, 5e-4, 3e-3, 6.5e-4),
    256: (1.3e-5, 1.3e-5, 1.8e-5, 3.9e-5, 1.3e-4, 1e-3, 1.6e-4),
}


def test_the_predicted_errors_are_those_of_another_program_and_fall_by_four_where_snapshots_double():
    total = 7680
    errors = {
        number: [nearest(TRACKED, evenly(number, total), Power(width), total).error for width in WIDTHS]
        for number in RESIDUALS
    }
    for number, expected in RESIDUALS.items():
        np.testing.assert_allclose(errors[number], expected, rtol=0.12)
    between = slice(0, 4)
    for number in (64, 128):
        ratios = np.divide(errors[number], errors[2 * number])[between]
        np.testing.assert_allclose(ratios, 4, rtol=0.02)


def averaged(profile, path, steps):
    """Averages of a path of parameters (updates, n) at some steps, by the recursion of training in float64."""
    total, at = np.zeros(path.shape[1]), []
    for n in range(1, max(steps) + 1):
        kept, new = profile.shares(np.asarray(float(n)))
        total = kept * total + new * path[n - 1]
        at += [total] if n in steps else []
    return np.stack(at)


def test_the_error_of_a_made_average_is_the_predicted_one_for_a_real_path_of_parameters():
    steps, target, total = evenly(10, 300), Power(0.15), 300
    made = nearest(TRACKED, steps, target, total)
    residual = np.tensordot(columns(steps, total), made.coefficients, 2) - weights(target, total)[1:]
    walk = np.cumsum(np.random.default_rng(0).normal(size=(total, 50)), axis=0)
    walk = 2 * (walk - walk.min(0)) / np.ptp(walk, axis=0) - 1  # in [-1, 1]
    path = np.concatenate([walk, np.sign(residual)[:, None]], axis=1)
    saved = np.stack([averaged(profile, path, steps) for profile in TRACKED], axis=1)
    error = np.abs(np.tensordot(made.coefficients, saved, 2) - averaged(target, path, [total])[0])
    assert made.error > 1e-3
    assert error[:-1].max() < made.error
    assert error[-1] == pytest.approx(made.error, rel=1e-9)  # the path for which it is largest
    np.testing.assert_allclose(error, np.abs(residual @ path), atol=1e-12)


def test_snapshots_of_every_update_give_any_profile_exactly():
    made = combination(TRACKED, range(1, 41), Power(0.2), 40)
    assert made.error < 1e-12


def test_snapshots_that_are_saved_later_change_no_average():
    early, late = (combination(TRACKED, range(10, last + 1, 10), Power(0.1), 198) for last in (200, 400))
    np.testing.assert_array_equal(early.coefficients, late.coefficients)


def test_millions_of_updates_are_seconds_and_no_power_overflows():
    steps = range(100_000, 1_000_001, 100_000)
    few = combination(TRACKED, range(1_000, 10_001, 1_000), Power(0.075), 10_000)
    many = combination(TRACKED, steps, Power(0.075), 1_000_000)
    np.testing.assert_allclose(many.coefficients, few.coefficients, atol=1e-4)
    narrow = nearest([Power(0.001)], steps, Power(0.001), 1_000_000)
    assert narrow.coefficients[-1, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("tracked", "steps", "width", "step", "words"),
    [
        ((), (1, 2), 0.1, 2, "no power-function average to combine"),
        (TRACKED, (), 0.1, 2, "no snapshots of averages"),
        (TRACKED, (10,), 0.1, 10, "of two snapshots of averages or more"),
        (TRACKED, (10, 20), 0.075, 21, "The last snapshot of the averages is of step 20; step 21 is after it"),
        (TRACKED, range(10, 101, 10), 0.01, 100, "it is narrower than all that were tracked"),
        (TRACKED, range(10, 101, 10), 0.28, 100, "it is wider than all that were tracked"),
        (TRACKED, range(10, 101, 10), 0.06, 95, "no snapshot is of step 95; choose one of 90, 100"),
        ((Power(0.02), Power(0.2)), range(20, 101, 20), 0.08, 100, "the snapshots are too far apart"),
    ],
)
def test_an_average_that_would_be_none_is_refused_with_the_reason(tracked, steps, width, step, words):
    with pytest.raises(UsageError, match=words):
        combination(tracked, steps, Power(width), step)


UPDATES = 6
SAVING = {"ema.profiles": ("power:0.1", "power:0.2"), "ema.snapshot_freq": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("posthoc")


@pytest.fixture
def run(folder, one_block, compiled_once, tiny_config):
    """(workdir, config) of a run that is made once, whose averages and states after each update are kept."""
    config = tiny_config()
    config.update_from_flattened_dict(SAVING)
    config.training.update(n_iters=UPDATES, snapshot_freq=UPDATES, snapshot_freq_for_preemption=1, keep_last=UPDATES)
    config.training.snapshot_sampling = False
    config.optim.update(lr=1e-2, warmup=0)
    if not (folder / "run").exists():
        train(config, folder / "run", SAVING)
    return folder / "run", config


def states(workdir, config):
    experiment = Experiment(config)
    return [restore_state(experiment, workdir / "checkpoints", step)[0] for step in range(1, UPDATES + 1)]


def saved(workdir, step):
    with AverageSnapshots(workdir / "averages") as snapshots:
        return {name: snapshots.load_part(step, name) for name in SAVING["ema.profiles"]}, snapshots.digest(step)


def test_the_averages_of_the_run_are_saved_by_schedule_to_the_last_bit(run):
    workdir, config = run
    assert checkpoints.steps(workdir / "averages") == list(range(1, UPDATES + 1))
    for step, state in zip(range(1, UPDATES + 1), states(workdir, config), strict=True):
        jax.tree.map(np.testing.assert_array_equal, saved(workdir, step)[0], state.ema_params)


def test_a_made_average_weighs_the_parameters_after_each_update_by_its_profile(run):
    workdir, config = run
    history = [state.params for state in states(workdir, config)]
    model = score_sde.load(workdir, ema=0.15)
    assert (model.ema, model.step, model.profile) == ("power:0.15", UPDATES, Power(0.15))
    shares = weights(Power(0.15), UPDATES)[1:]
    expected = jax.tree.map(lambda *leaves: np.tensordot(shares, np.stack(leaves).astype(np.float64), 1), *history)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), model.params, expected)
    early = model.at(4)
    shares = weights(Power(0.15), 4)[1:]
    expected = jax.tree.map(lambda *leaves: np.tensordot(shares, np.stack(leaves), 1), *history[:4])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), early.params, expected)
    jax.tree.map(np.testing.assert_array_equal, model.at(ema=0.1).params, score_sde.load(workdir).params)


def test_a_run_killed_between_a_checkpoint_and_its_averages_goes_on_with_all_of_them(run, tmp_path):
    workdir, config = run
    again = shutil.copytree(workdir, tmp_path / "run")
    for step in (5, 6):
        shutil.rmtree(again / "checkpoints" / str(step))
    shutil.rmtree(again / "averages" / "4")  # the run goes on from 4
    untouched = (again / "averages" / "5").stat().st_mtime_ns
    shutil.rmtree(again / "averages" / "6")
    shutil.copytree(again / "averages" / "1", again / "averages" / "6")  # of another run, say
    train(config, again)
    assert (again / "averages" / "5").stat().st_mtime_ns == untouched
    for step in range(1, UPDATES + 1):
        (before, digest), (after, other) = saved(workdir, step), saved(again, step)
        jax.tree.map(np.testing.assert_array_equal, before, after)
        assert digest == other


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run[0], tmp_path / "run")


def test_the_program_writes_what_a_load_makes_and_says_the_predicted_error(copy, capsys):
    made = score_sde.load(copy, ema=0.15)
    for step in (1, 2, 4, 5):
        shutil.rmtree(copy / "averages" / str(step))
    few = score_sde.load(copy, ema=0.15)
    assert main(["score_sde", "--mode=ema", f"--workdir={copy}", "--sigma_rel=0.15,0.1"]) == 0
    printed = capsys.readouterr().out
    plan = posthoc_weights.planned(copy, few.experiment.profiles, Power(0.15), UPDATES)
    assert f"power:0.15 at step {UPDATES}: predicted profile error {plan.error:.2g}, from 2 snapshots" in printed
    assert f"power:0.1 at step {UPDATES}: predicted profile error 0, from the snapshot of that step" in printed
    file = copy / "ema" / f"step_{UPDATES:08d}_power_0.15.npz"
    with np.load(file) as content:
        facts = json.loads(str(content["facts"]))
    coefficients = [average["coefficient"] for average in facts["averages"]]
    assert facts["predicted_error"] == plan.error > 1e-3
    np.testing.assert_array_equal(coefficients, plan.coefficients.ravel())
    shutil.rmtree(copy / "averages")  # the disk is needed for other things
    from_file = score_sde.load(copy, UPDATES, ema=0.15)
    jax.tree.map(np.testing.assert_array_equal, few.params, from_file.params)
    assert few.digest == from_file.digest != made.digest


def test_a_file_that_is_damaged_or_of_other_snapshots_is_not_used(copy, capsys):
    whole = score_sde.load(copy, ema=0.15)
    (file,) = make_averages(copy, [0.15])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert score_sde.load(copy, ema=0.15).digest == whole.digest
    assert "is damaged; its average is made again" in capsys.readouterr().err
    make_averages(copy, [0.15])
    capsys.readouterr()
    shutil.rmtree(copy / "averages" / "3")
    shutil.copytree(copy / "averages" / "2", copy / "averages" / "3")
    assert score_sde.load(copy, ema=0.15).digest != whole.digest
    assert "was made of other snapshots than those in" in capsys.readouterr().err


def test_a_snapshot_with_a_changed_byte_is_refused_by_its_step(copy):
    with AverageSnapshots(copy / "averages") as snapshots:
        tree = {name: snapshots.load_part(2, name) for name in SAVING["ema.profiles"]}
    metadata = (copy / "averages" / "2" / checkpoints.METADATA).read_bytes()
    changed = jax.tree.map(lambda leaf: leaf + np.float32(1e-3), tree)
    shutil.rmtree(copy / "averages" / "2")
    with AverageSnapshots(copy / "averages") as snapshots:
        snapshots.save(2, changed)
    (copy / "averages" / "2" / checkpoints.METADATA).write_bytes(metadata)
    with pytest.raises(UsageError, match=r"snapshot of the averages of step 2 .* its bytes have changed"):
        score_sde.load(copy, ema=0.15)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--sigma_rel=WIDTH,... is missing"),
        (["--sigma_rel=narrow"], "--sigma_rel=narrow is no number"),
        (["--sigma_rel=0.3"], "sigma_rel must be a number in [0.0001, 0.2886]"),
        (["--sigma_rel=0.15", "--step=7"], "The last snapshot of the averages is of step 6; step 7 is after it"),
        (["--sigma_rel=0.15", "--step=0"], "--step=0 is no update of a run"),
        (["--sigma_rel=0.15", "--step=1"], "of two snapshots of averages or more"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_sentence_and_writes_nothing(copy, flags, words, capsys):
    assert main(["score_sde", "--mode=ema", f"--workdir={copy}", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (copy / "ema").exists()


def test_a_run_without_power_averages_or_snapshots_says_what_to_train_with(copy, tmp_path):
    shutil.rmtree(copy / "averages")
    with pytest.raises(UsageError, match=r"no snapshots of averages.* train with ema\.snapshot_freq"):
        make_averages(copy, [0.15])
    config = json.loads((copy / "config.json").read_text())
    config["ema"] = {"profiles": [], "snapshot_freq": 0}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"keeps no power average.* train with ema\.profiles=power:0\.05"):
        make_averages(copy, [0.15])
    with pytest.raises(UsageError, match=r"There is no average 'power:0\.15'; this run has ramp:"):
        score_sde.load(copy, ema=0.15)


def test_evaluations_and_caches_tell_made_averages_apart(run, tmp_path):
    workdir, config = run
    config.sampling.ema = "power:0.15"
    config.eval.update(enable_bpd=False, enable_sampling=False)
    models = [load(workdir, config=config), *(load(workdir, ema=width) for width in (0.12, 0.1))]
    assert [model.ema for model in models] == ["power:0.15", "power:0.12", "power:0.1"]
    names = {identities.name_of(model, identities.of_model(model)) for model in models}
    assert len(names) == 3
    evaluate(config, workdir, out=tmp_path)
    (entry,) = json.loads((tmp_path / "eval" / "report.json").read_text())["checkpoints"]
    identity = json.loads((tmp_path / "eval" / f"step_{UPDATES:08d}" / "loss.json").read_text())["checkpoint"]
    assert identity == {"step": UPDATES, "digest": models[0].digest, "ema": "power:0.15"}
    assert entry["step"] == UPDATES


def test_a_training_draws_with_an_average_that_it_keeps(run, tmp_path):
    _, config = run
    config.sampling.ema = "power:0.15"
    with pytest.raises(UsageError, match=r"There is no average .power:0\.15.; this run has power:0\.1, power:0\.2"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_snapshots_of_averages_are_counted_in_the_disk_and_need_a_power_profile(run, tmp_path, monkeypatch, capsys):
    _, config = run
    describe(config)
    assert "up to 6 checkpoints of" in (printed := capsys.readouterr().out)
    assert "and 6 snapshots of averages of" in printed
    state = Experiment(config).state_shapes
    of_state, of_averages = (sum(leaf.size * 4 for leaf in jax.tree.leaves(t)) for t in (state, state.ema_params))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, of_state + of_averages - 1))
    with pytest.raises(UsageError, match="A checkpoint with its averages takes"):
        train(config, tmp_path / "run")
    config.ema.profiles = ("half_life:3",)
    with pytest.raises(UsageError, match=r"ema\.snapshot_freq=1 saves power averages"):
        Experiment(config)
