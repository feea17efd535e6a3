"""Recipes, half an hour on two cores, and EDM on a GPU: their runs, their tables, and which differences count."""

import json
import re

import numpy as np
import pytest
from scipy import stats
from score_sde.experiments.edm import run as edm
from score_sde.experiments.edm.__main__ import program as edm_program
from score_sde.experiments.half_hour import run as half_hour
from score_sde.experiments.half_hour.__main__ import program as half_hour_program
from score_sde.experiments.half_hour.config import CELLS
from score_sde.experiments.recipes import comparisons, report, sweep
from score_sde.experiments.recipes import run as recipes
from score_sde.experiments.recipes.__main__ import program as recipes_program
from score_sde.experiments.recipes.config import RECIPES, SIGMA_DATA, get_config

from score_sde.errors import UsageError
from score_sde.training.build import Experiment
from score_sde.training.run import load_data

RNG = np.random.default_rng(0)
STEP = 4
SHORT = f"--config.training.n_iters={STEP}"


def finish(run, **parts):
    """Writes what training and evaluation of a run leave, without its arrays; returns the folder of the step."""
    (run.workdir / "checkpoints" / str(STEP)).mkdir(parents=True, exist_ok=True)
    folder = run.workdir / run.jobs[-1].folder
    of_step = folder / f"step_{STEP:08d}"
    of_step.mkdir(parents=True)
    whole = {
        "config": {},
        "versions": {},
        "checkpoints": [{"step": STEP, **parts}],
        "devices": ["fake"],
        "complete": True,
    }
    (folder / "report.json").write_text(json.dumps(whole))
    return of_step


def samples(distance, nfe=35.0, features="trained-00000000", error=0.5):
    figure = {"mean": distance, "standard_error": error}
    protocol = {"features": features, "num_samples": 512, "nfe": nfe}
    baselines = {"held-out images": {"frechet_distance[features=x]": {"mean": 5.0, "standard_error": 1.3}, "images": 9}}
    measured = {"frechet_distance[features=x]": figure, "fingerprint": "0", "protocol": protocol}
    return {"sampling": {"num_samples": 512, "nfe": nfe, "metrics": measured | {"baselines": baselines}}}


# Comparisons.


def test_holms_correction_is_that_of_the_definition():
    p_values = [0.04, 0.01, 0.03, 0.005, 0.9]
    by_definition = [min(1, max((5 - sorted(p_values).index(q)) * q for q in p_values if q <= p)) for p in p_values]
    assert comparisons.holm(p_values) == pytest.approx(by_definition)
    assert comparisons.holm([0.2]) == [0.2]


def test_two_recipes_are_compared_by_the_paired_t_test():
    values = RNG.normal(size=(2, 5))
    (pair,) = comparisons.compare(["a", "b"], values)
    paired = stats.ttest_rel(*values)
    assert (pair.p, pair.freedom) == (pytest.approx(paired.pvalue), 4)
    low, high = paired.confidence_interval(0.95)
    assert (pair.difference - pair.half, pair.difference + pair.half) == pytest.approx((low, high))


def test_the_error_of_many_recipes_is_that_of_a_two_way_layout():
    values = RNG.normal(size=(7, 3))
    square, freedom = comparisons.residuals(values)
    recipe, seed = (np.repeat(np.arange(7), 3), np.tile(np.arange(3), 7))
    design = np.concatenate([np.eye(7)[recipe], np.eye(3)[seed][:, 1:]], axis=1)
    _, (rest,), rank, _ = np.linalg.lstsq(design, values.ravel())
    assert freedom == 21 - rank == 12
    assert square == pytest.approx(rest / freedom)
    shifted = comparisons.compare("abcdefg", values + 10 * RNG.normal(size=3))  # a seed's own effect cancels
    assert [each.p for each in shifted] == pytest.approx([each.p for each in comparisons.compare("abcdefg", values)])


def test_the_error_over_images_is_added_with_its_degrees_of_freedom():
    images = RNG.normal(size=(2, 3, 40))
    values = images.mean(axis=2)
    (pair,) = comparisons.compare(["a", "b"], values, images)
    seeds = (values[0] - values[1]).var(ddof=1) / 3
    over_images = (images[0] - images[1]).mean(axis=0).var(ddof=1) / 40
    assert pair.error == pytest.approx(np.sqrt(seeds + over_images))
    assert pair.freedom == pytest.approx((seeds + over_images) ** 2 / (seeds**2 / 2 + over_images**2 / 39))


def test_recipes_of_one_law_are_rarely_called_different():
    """The share of tables with any significant pair is at most 5 %; of 400, within 3 standard errors."""
    wrong = [any(each.significant for each in comparisons.compare("abcd", RNG.normal(size=(4, 3)))) for _ in range(400)]
    assert np.mean(wrong) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_one_seed_has_no_differences_with_an_error():
    with pytest.raises(UsageError, match="7 recipes with 1 seeds have no differences with an error"):
        comparisons.residuals(np.zeros((7, 1)))


# Recipes.


def test_recipes_differ_in_their_objective_and_are_of_equal_size():
    configs = {name: get_config(name) for name in RECIPES}
    for key in ("batch_size", "n_iters"):
        assert len({config.training[key] for config in configs.values()}) == 1
    others = [config for name, config in configs.items() if name != "edm2"]
    assert len({(config.model.nf, config.model.ch_mult, config.model.num_res_blocks) for config in others}) == 1
    assert len({(config.optim.lr, config.optim.warmup, config.optim.ema_rate) for config in others}) == 1
    objectives = {Experiment(config).objective for config in configs.values()}
    assert len({str(objective) for objective in objectives}) == len(RECIPES)


def test_the_digits_are_as_wide_as_edm_is_told():
    source = load_data(get_config("edm"), train=True)
    assert (source.take(np.arange(len(source))).images / 127.5 - 1).std() == pytest.approx(SIGMA_DATA, abs=5e-4)


@pytest.mark.parametrize(("figure", "nfe"), [("10 evaluations", 10), ("35 evaluations", 35), ("1,000 of pc", 1000)])
def test_samplers_make_as_many_evaluations_as_their_column_says(figure, nfe, tmp_path):
    for recipe in ("vp", "ve", "flow"):
        (run,) = recipes._planned(tmp_path, [recipe], 1, {})[figure][recipe]
        experiment = Experiment(run.config)
        assert experiment.sampler(experiment.param_shapes).nfe == nfe


@pytest.fixture
def finished(tmp_path):
    """A folder with all runs of three recipes: VP's distances are three times flow's, EDM's are as flow's."""
    planned = recipes._planned(tmp_path, ["vp", "edm", "flow"], 3, {"training.n_iters": STEP})
    rng = np.random.default_rng(1)
    of_image = rng.normal(0, 0.4, 50)
    for figure, of_figure in planned.items():
        for recipe, of_recipe in of_figure.items():
            for run in of_recipe:
                noise, lift = rng.normal(0, 0.02), {"vp": 1.0, "edm": 0.0, "flow": 0.0}[recipe]
                if figure == sweep.BITS:
                    bits = 4.5 + 0.3 * lift + of_image + noise + rng.normal(0, 0.02, 50)
                    parts = {"bits_per_dim": {"mean": bits.mean(), "standard_error": bits.std() / 50**0.5}}
                    folder = finish(run, **parts)
                    np.savez(folder / "bits_per_dim.00_0000.npz", bits_per_dim=bits[:30])
                    np.savez(folder / "bits_per_dim.00_0001.npz", bits_per_dim=bits[30:])
                else:
                    finish(run, **samples(4.0 * 3**lift * np.exp(noise)))
    return tmp_path


def test_the_recipes_that_differ_are_named_and_the_others_too(finished, capsys):
    assert recipes_program(["recipes", "--report", "--recipes=vp,edm,flow", f"--folder={finished}", SHORT]) == 0
    told = capsys.readouterr().out
    assert told.count("2 of 3 differences are significant. EDM is below VP; flow is below VP.") == 5
    assert told.count("Not significant: EDM and flow.") == 5
    result = json.loads((finished / recipes.RESULTS).read_text())
    assert result["seeds"] == 3 and len(result["comparisons"]["bits/dim"]) == 3
    assert report.markdown(result) == (finished / report.TABLE).read_text()
    page = (finished / "report.html").read_text()
    assert re.search(r"<td>VP</td>\s*<td>flow</td>\s*<td>[23]\.\d+ \(", page)
    assert "All 3 pairs" in page and "first divided by second" in page and "held-out images (9)" in page


def test_distances_on_several_features_are_not_compared(finished):
    run = recipes._planned(finished, ["vp"], 1, {"training.n_iters": STEP})["10 evaluations"]["vp"][0]
    (run.workdir / run.jobs[-1].folder / "report.json").unlink()
    (run.workdir / run.jobs[-1].folder / f"step_{STEP:08d}").rmdir()
    finish(run, **samples(4.0, features="trained-11111111"))
    with pytest.raises(UsageError, match="by 2 kinds of features or statistics and do not compare"):
        recipes.run(finished, None, recipes=["vp", "edm"], common={"training.n_iters": STEP})


def test_a_missing_run_leaves_its_recipe_out_of_the_comparisons(finished, capsys):
    run = recipes._planned(finished, ["edm"], 1, {"training.n_iters": STEP})["10 evaluations"]["edm"][0]
    (run.workdir / run.jobs[-1].folder / "report.json").unlink()
    recipes.run(finished, None, recipes=["vp", "edm", "flow"], common={"training.n_iters": STEP})
    assert "Distance, 10 evaluations: 1 of 1 differences are significant" in capsys.readouterr().out


def test_without_runs_there_is_nothing_to_report(tmp_path):
    with pytest.raises(UsageError, match="No run of the recipes is complete"):
        recipes_program(["recipes", "--report", "--recipes=vp", "--seeds=1", f"--folder={tmp_path}"])
    with pytest.raises(UsageError, match="did you mean 'vp'"):
        recipes_program(["recipes", "--report", "--recipes=vpp", f"--folder={tmp_path}"])


# Half an hour.


def test_every_cell_is_a_run_with_samples_and_bits_of_1000_images(tmp_path):
    for cell in CELLS:
        of_cell = half_hour._planned(tmp_path, cell, False, {})
        assert len({run.workdir for run in of_cell.values()}) == 1
        assert of_cell["bits/dim"].config.eval.max_images == 1000
        for name, run in of_cell.items():
            experiment = Experiment(run.config)
            assert experiment.image_shape == ((32, 32, 3) if cell.startswith("cifar10") else (28, 28, 1))
            if name != "bits/dim":
                assert f"{experiment.sampler(experiment.param_shapes).nfe} evaluations" in name
    assert half_hour._planned(tmp_path, "cifar10_vp", True, {})["bits/dim"].config.eval.max_images is None


def test_cells_that_are_not_run_say_so_with_their_commands(tmp_path, capsys):
    assert half_hour_program(["half_hour", "--report", f"--folder={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"^(fashion_mnist|cifar10)_(vp|edm|flow) +not run", told, re.MULTILINE)) == len(CELLS)
    assert told.count("score_sde --mode=experiment --name=half_hour --cells=") == len(CELLS)
    assert "Nothing in this table has been run." in (tmp_path / "table.md").read_text()
    with pytest.raises(UsageError, match="cell 'cifar_vp'"):
        half_hour_program(["half_hour", "--report", "--cells=cifar_vp", f"--folder={tmp_path}"])


def test_a_cell_has_its_figures_and_the_distance_of_test_images(tmp_path, capsys):
    of_cell = half_hour._planned(tmp_path, "cifar10_edm", False, {"training.n_iters": STEP})
    for name, run in of_cell.items():
        bits = {"mean": 4.25, "standard_error": 0.02, "images": 1000, "of": 10_000}
        finish(run, **({"bits_per_dim": bits} if name == "bits/dim" else samples(12.5)))
    (next(iter(of_cell.values())).jobs[0].status).parent.mkdir()
    next(iter(of_cell.values())).jobs[0].status.write_text('{"seconds": 60.0}')
    assert half_hour_program(["half_hour", "--report", f"--folder={tmp_path}", SHORT]) == 0
    told = capsys.readouterr().out
    assert re.search(
        r"cifar10_edm +4 +1.0 +2 +4.250 ± 0.020 \(1,000 images\) +dpmpp_2m_sde.* 12.50 ± 0.50 +5.0 ± 1.3", told
    )


# EDM on a GPU.


def test_the_table_of_edm_says_not_run_beside_the_papers_figures(tmp_path, capsys):
    assert edm_program(["edm", f"--folder={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"edm/cifar10_ddpmpp +1.97 +not run", told)
    assert "--mode=train" in told and "--config.eval.num_samples=150000" in told
    with pytest.raises(UsageError, match="network 'edm/cifar10'"):
        edm_program(["edm", "--networks=edm/cifar10", f"--folder={tmp_path}"])


def test_edms_samples_are_three_sets_of_50000_by_35_evaluations(tmp_path):
    for name in edm.PUBLISHED:
        run = edm._planned(tmp_path, name, {})
        experiment = Experiment(run.config)
        cond = {"labels": np.zeros(1, np.int32)} if run.config.model.num_classes else None
        assert experiment.sampler(experiment.param_shapes, cond=cond).nfe == 35
        assert run.config.sampling.condition == ("class=all" if cond else "")
        assert run.config.eval.num_samples == 150_000 and run.config.metrics.features == "inception"
        assert run.config.metrics.split == "train"


def test_each_set_has_its_own_distance(tmp_path, monkeypatch):
    """Features of mean m, as far from data of mean 0 as m^2 and what the covariances differ by."""
    run = edm._planned(tmp_path, "edm/cifar10_ddpmpp", {"training.n_iters": STEP})
    folder = finish(run, **samples(1.0))
    sets = [RNG.normal(m, 1, (400, 2)) for m in (0, 1, 2)]
    whole = np.concatenate(sets).astype(np.float32)
    np.savez(folder / "features.0000.npz", features=whole[:500])
    np.savez(folder / "features.0001.npz", features=whole[500:])
    statistics = type("Statistics", (), {"mean": np.zeros(2), "covariance": np.eye(2)})
    monkeypatch.setattr(edm, "measure", lambda config: type("Measure", (), {"statistics": statistics}))
    assert edm.distances(run, STEP) == pytest.approx([0, 2, 8], abs=0.6)
    assert edm.run(tmp_path, None, networks=[], common={"training.n_iters": STEP}) == 0
    measured = json.loads((tmp_path / edm.RESULTS).read_text())["edm/cifar10_ddpmpp"]
    assert measured["sets"] == edm.distances(run, STEP)
    assert "do not compare with the paper's" in edm.text({"edm/cifar10_ddpmpp": measured})


# The real program on the digits.

DIGITS = [
    f"--config.data.{value}" for value in ("dataset=digits", "image_size=8", "num_channels=1", "random_flip=False")
]
TINY = ["training.n_iters=2", "training.batch_size=8", "eval.batch_size=8", "eval.num_samples=24", "metrics.n_iters=2"]
TINY = [f"--config.{value}" for value in (*TINY, "metrics.features=trained", "model.nf=8", "model.num_res_blocks=1")]


def test_a_short_run_of_half_an_hour_fills_its_cell(tmp_path, capsys):
    flags = ["--config.eval.max_images=8", "--config.eval.rtol=1e-2", "--config.model.attn_resolutions=4,"]
    command = ["half_hour", "--cells=cifar10_flow", f"--folder={tmp_path}", *DIGITS, *TINY, *flags]
    assert half_hour_program(command) == 0
    cell = json.loads((tmp_path / half_hour.RESULTS).read_text())["cells"]["cifar10_flow"]
    assert cell["bits/dim"]["images"] == 8 and cell["bits/dim"]["of"] == 299 and cell["updates"] == 2
    assert [each["nfe"] for each in cell["samples"].values()] == [40, 35]
    assert all(each["held_out"] for each in cell["samples"].values())
    first = capsys.readouterr().out
    assert half_hour_program([*command, "--report"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == next(
        line for line in first.splitlines() if line.startswith("cell")
    )
    assert "Test images" in (tmp_path / "report.html").read_text()


def test_a_short_run_of_edm_has_three_distances(tmp_path, capsys):
    flags = ["--config.model.ch_mult=(1,)", "--config.model.attn_resolutions=4,", "--config.sampling.num_steps=2"]
    assert edm_program(["edm", "--run", f"--folder={tmp_path}", *DIGITS, *TINY, *flags]) == 0
    measured = json.loads((tmp_path / edm.RESULTS).read_text())["edm/cifar10_ddpmpp"]
    assert len(set(measured["sets"])) == 3 and measured["nfe"] == 5
    assert "edm/cifar10_ddpmpp: 24 samples on trained" in capsys.readouterr().out


def test_a_short_comparison_of_recipes_fills_its_table(tmp_path):
    flags = [*TINY[:-2], "--config.eval.max_images=8", "--config.training.snapshot_freq=2"]
    assert recipes_program(["recipes", "--recipes=edm2", "--seeds=1", f"--folder={tmp_path}", *flags]) == 0
    figures = json.loads((tmp_path / recipes.RESULTS).read_text())["figures"]
    assert list(figures) == list(sweep.FIGURES) and all(len(of["edm2"]["values"]) == 1 for of in figures.values())
    assert [round(of["edm2"]["nfe"]) for of in list(figures.values())[1:4]] == [10, 35, 1000]
    assert "Samples: 1,000 of pc" in (tmp_path / "report.html").read_text()
