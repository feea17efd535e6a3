import json
import sys
import types

import numpy as np

from score_sde.writer import Writer

DISABLED = {"mode": "disabled", "project": "p", "name": "", "id": "1"}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_each_line_is_an_object_with_its_step(tmp_path):
    with Writer(tmp_path, 0, DISABLED, {}) as writer:
        writer.scalars(3, training_loss=np.float32(0.5))
    (line,) = lines(tmp_path)
    assert line.pop("time") > 1.7e9
    assert line == {"step": 3, "training_loss": 0.5}


def test_lines_after_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    with Writer(tmp_path, 0, DISABLED, {}) as first:
        for step in (1, 2, 3):
            first.scalars(step, loss=step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # killed while writing
    with Writer(tmp_path, 2, DISABLED, {}) as second:
        second.scalars(3, loss=30)
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 30)]


def test_a_wandb_failure_warns_and_stops_nothing(tmp_path, monkeypatch, capsys):
    def no_network(**_):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=no_network))
    with Writer(tmp_path, 0, DISABLED | {"mode": "online"}, {}) as writer:
        writer.scalars(1, loss=1.0)
    assert "wandb is off from here on (no network); metrics.jsonl goes on." in capsys.readouterr().err
    assert len(lines(tmp_path)) == 1


def test_wandb_is_given_every_scalar(tmp_path, monkeypatch):
    logged = []
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: logged.append("end")
    )
    monkeypatch.setitem(
        sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: logged.append(options) or run)
    )
    with Writer(tmp_path, 0, DISABLED | {"mode": "offline"}, {"seed": 1}) as writer:
        writer.scalars(5, loss=2.0)
    assert logged[0]["config"] == {"seed": 1}
    assert logged[1:] == [(5, {"loss": 2.0}), "end"]
