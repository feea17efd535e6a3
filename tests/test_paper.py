"""The paper's tables: their cells are runs that can be made, and what they say follows from the runs there are."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from score_sde.experiments.paper import run as paper
from score_sde.experiments.paper import toy
from score_sde.experiments.paper.__main__ import program
from score_sde.experiments.paper.cells import BITS, DISTANCE, Comparison, Finding, judge, picked
from score_sde.experiments.paper.tables import SCALES, TABLES
from score_sde.experiments.sweep import runs
from score_sde.experiments.sweep.results import Figure

from score_sde.errors import UsageError
from score_sde.io import workdir
from score_sde.training.build import Experiment

FAKE = (sys.executable, "-S", str(Path(__file__).parent / "fake_program.py"))


@pytest.mark.parametrize(("name", "scale"), list(itertools.product(TABLES, SCALES)))
def test_every_cell_is_a_run_of_a_config_that_there_is(name, scale, tmp_path):
    whole = TABLES[name](SCALES[scale])
    sweep = paper._sweep(whole, scale, (), {}, best=False)
    made = runs.plan(sweep, tmp_path)
    places = [(cell.row, cell.column) for cell in whole.cells]
    assert len(set(places)) == len(places) == len(made)
    for finding in whole.findings:
        assert {place for comparison in finding.comparisons for place in comparison} <= set(places)
    for cell, run in zip(whole.cells, made, strict=True):
        measured = "enable_bpd" if cell.figure == BITS else "enable_bound" if "bound" in cell.figure[0] else None
        assert run.config.eval[measured or "enable_sampling"]


def test_table_1_has_the_samplers_of_the_paper(tmp_path):
    n = toy.NUM_SCALES
    whole = TABLES["table1"](SCALES["toy"])
    made = runs.plan(paper._sweep(whole, "toy", (), {}, best=False), tmp_path)
    assert len({run.workdir for run in made}) == 2  # two networks, 20 samplers
    nfe = {}
    for cell, run in zip(whole.cells, made, strict=True):
        if cell.row.startswith("VE"):
            continue  # the same samplers
        experiment = Experiment(run.config)
        assert not run.config.training.continuous and run.config.model.name == "ddpm"
        nfe[cell.row.split(", ")[1], cell.column] = experiment.sampler(experiment.param_shapes).nfe
        if cell.column == f"P{2 * n}":
            # Twice the steps of the same SDE, seen by a network that was trained with N.
            assert (experiment.sde.num_scales, experiment.sampling_sde.num_scales) == (n, 2 * n)
    # The figures at as many evaluations are those that the paper compares.
    for predictor in ("ancestral", "reverse diffusion", "probability flow"):
        assert [nfe[predictor, column] for column in (f"P{n}", f"P{2 * n}", f"PC{n}")] == [n, 2 * n, 2 * n]
    assert nfe["none", f"C{2 * n}"] == 2 * n


@pytest.mark.parametrize(
    "name", sorted({cell.config for table in TABLES.values() for cell in table(SCALES["toy"]).cells})
)
def test_a_shrunk_config_is_the_papers_in_all_but_size(name):
    config = toy.get_config(name)
    experiment = Experiment(config)
    assert experiment.image_shape == (8, 8, 1) and experiment.sde.num_scales == toy.NUM_SCALES
    assert sum(leaf.size for leaf in jax.tree.leaves(experiment.param_shapes)) < 2e6
    whole = runs.parsed(f"configs/{name}.py", [])
    for section, keys in {
        "training": ("continuous", "reduce_mean", "likelihood_weighting"),
        "sampling": ("predictor", "corrector", "snr", "n_steps_each", "method"),
        "model": ("name", "scale_by_sigma", "conditional", "nonlinearity", "resamp_with_conv"),
        "sde": ("name",),
        "data": ("centered",),
    }.items():
        assert [config[section][key] for key in keys] == [whole[section][key] for key in keys]


def test_a_claim_is_judged_by_the_intervals_of_its_differences():
    figures = {"a": Figure(1.0, 0.3, 1), "b": Figure(2.0, 0.4, 1), "c": Figure(1.4, 0.4, 1), "d": None}

    def verdict(*pairs):
        comparisons = tuple(Comparison((less, "x"), (more, "x")) for less, more in pairs)
        return judge(Finding("Less is less", comparisons), lambda place: figures[place[0]])

    assert verdict(("a", "b")).word == "reproduced"
    assert verdict(("a", "b")).differences == ["b, x minus a, x: +1 ± 0.5"]  # 0.5 = hypot(0.3, 0.4)
    assert verdict(("a", "c")).word == "undecided"
    assert verdict(("b", "a")).word == "not reproduced"
    assert verdict(("a", "b"), ("a", "c")).word == "reproduced where decided"
    assert verdict(("a", "b"), ("b", "a")).word == "reproduced in part"
    assert verdict(("a", "b"), ("a", "d")).word == "not run"


def test_a_figure_is_found_by_its_name_and_never_by_the_start_of_another():
    figures = {"fid_infinity": 1, "frechet_distance_infinity[features=x]": 2, "frechet_distance[features=x]": 3}
    assert picked(figures, DISTANCE) == 3
    assert picked(figures | {"fid": 4}, DISTANCE) == 4
    assert picked({"fid_infinity": 1}, DISTANCE) is None


def test_a_table_without_runs_says_so_with_the_commands_that_fill_it(tmp_path, capsys):
    assert program(["paper", "table2", f"--folder={tmp_path}"]) == 0
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if re.search("DDPM.*3.28", line)]
    assert len(lines) == 1 and lines[0].count("not run") == 2
    trainings = {
        line for line in told.splitlines() if "--mode=train" in line and line.startswith("python -m score_sde")
    }
    imports = {line for line in told.splitlines() if line.startswith("python -m score_sde --mode=import")}
    assert len(trainings) == len(imports) == 7
    assert any("--config=subvp/cifar10_ddpmpp_deep_continuous " in line for line in trainings)
    page = (tmp_path / "table2-paper.html").read_text()
    assert "not run (3.28)" in page and "--mode=import" in page


def test_a_table_is_filled_by_its_runs_and_by_the_authors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "PROGRAM", FAKE)
    command = ["paper", "table1", "--scale=toy", f"--folder={tmp_path}", "--slots=3", "--seeds=1"]
    assert program([*command, "--run", "--config.training.n_iters=4"]) == 0
    told = capsys.readouterr().out
    assert "python -m score_sde" not in told and FAKE[-1] not in told.split("Cells without")[-1]
    # Of the fake: ten times r, with a standard error of 0.05.
    assert re.search(r"VE, none +C100 +distance +20.43 ± .07 +not run +6.000 ± 0.098 +100 +fake", told)
    assert "reproduced: Correctors alone (C100)" in told and "VE, reverse diffusion, P50: +0 ± 0.14" in told
    assert "0123456789ab" not in told  # the fingerprint is of the protocol, and not what a file says it is
    # The same from what lies there, without a launcher.
    assert program([*command, "--config.training.n_iters=4"]) == 0
    assert capsys.readouterr().out.splitlines()[3:10] == told[told.index("Table 1") :].splitlines()[3:10]


def test_the_authors_checkpoint_stands_beside_ours(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "PROGRAM", FAKE)
    whole = TABLES["table2"](SCALES["paper"])
    sweep = paper._sweep(whole, "paper", (), {}, best=False)
    theirs = paper._authors(sweep, whole.cells[0], "paper", tmp_path)
    (theirs.workdir / "checkpoints" / "8").mkdir(parents=True)
    (theirs.workdir / "values.json").write_text('{"lr": 1, "seed": 0}')
    subprocess.run(theirs.jobs[0].command, check=True)
    assert program(["paper", "table2", f"--folder={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"DDPM \(VP, discrete\) +bits/dim +bits/dim +3.28 +3.160 ± 0.020 +not run", told)


def test_the_last_checkpoint_counts_or_the_best_by_its_distance(tmp_path, capsys):
    whole = TABLES["table3"](SCALES["paper"])
    for best, flags, distance, score in ((True, ["--best"], "2.500", "9.100"), (False, [], "3.500", "9.300")):
        run = runs.plan(paper._sweep(whole, "paper", (), {}, best=best), tmp_path)[0]

        def entry(step: int, fid: float, score: float) -> dict:
            figures = {"fid": fid, "inception_score": score}
            metrics = {name: {"mean": mean, "standard_error": 0.01} for name, mean in figures.items()}
            return {"step": step, "sampling": {"nfe": 1000.0, "metrics": metrics | {"protocol": {"n": 1}}}}

        entries = [entry(1, 4.5, 9.2), entry(2, 2.5, 9.1), entry(3, 3.5, 9.3)]
        content = {"checkpoints": entries, "devices": ["H200"] * 2, "complete": True}
        workdir.write(run.workdir / run.jobs[-1].folder, "report.json", content)
        assert program(["paper", "table3", *flags, f"--folder={tmp_path}"]) == 0
        told = capsys.readouterr().out
        for column, number in (("distance", distance), ("IS", score)):
            line = rf"DDPM \(VP, discrete\) +{column} +{column} +[\d.± ]+ +not run +{number} ± 0.020 +1000 +2 x H200"
            assert re.search(line, told)


def test_an_unknown_key_is_said_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown config key 'optim\.lrr'"):
        program(["paper", "table1", "--run", "--config.optim.lrr=1", f"--folder={tmp_path / 'runs'}"])
    with pytest.raises(UsageError, match="Unknown argument --fast"):
        program(["paper", "table1", "--fast"])
