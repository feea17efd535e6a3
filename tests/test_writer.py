import json
import socket
import sys
import threading
import types

import numpy as np
import pytest
from PIL import Image

from score_sde.io import metrics_log as module
from score_sde.io.metrics_log import Writer

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


def test_wandb_offline_keeps_team_group_and_pictures(tmp_path):
    """The real package, which needs no network in this mode."""
    pytest.importorskip("wandb")
    options = DISABLED | {"mode": "offline", "id": "abc", "entity": "team", "group": "rates"}
    with Writer(tmp_path, 0, options, {"seed": 1}) as writer:
        writer.scalars(1, loss=1.0)
        writer.image(2, "samples", np.zeros((20, 20, 3), np.uint8))
        run = writer._wandb
        assert (run.entity, run.group, run.name, run.id) == ("team", "rates", tmp_path.name, "abc")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-abc")
    (picture,) = (folder / "files/media/images").glob("samples_*.png")
    with Image.open(picture) as image:
        assert image.size == (20, 20)
    assert b"rates" in (folder / "run-abc.wandb").read_bytes()


def test_wandb_is_asked_for_no_team_or_group_where_none_is_set(tmp_path, monkeypatch):
    asked = []
    run = types.SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(
        sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: asked.append(options) or run)
    )
    for more in ({}, {"entity": "", "group": ""}):
        with Writer(tmp_path, 0, DISABLED | {"mode": "offline"} | more, {}):
            pass
    assert len(asked) == 2 and not any({"entity", "group"} & options.keys() for options in asked)


def test_a_wandb_that_never_finishes_does_not_hold_the_run(tmp_path, monkeypatch, capsys):
    forever = threading.Event()
    run = types.SimpleNamespace(log=lambda *_, **__: None, finish=forever.wait)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: run))
    monkeypatch.setattr(module, "WANDB_SECONDS", 0.1)
    with Writer(tmp_path, 0, DISABLED | {"mode": "online"}, {}) as writer:
        writer.scalars(1, loss=1.0)
    assert "`wandb sync` uploads what is left" in capsys.readouterr().err
    forever.set()


def test_a_server_that_cannot_be_reached_costs_the_mirror_and_no_line(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_X_DISABLE_VIEWER", "true")  # it would wait ten seconds more, to greet the user by name
    monkeypatch.setattr(module, "WANDB_SECONDS", 2)
    with Writer(tmp_path, 0, DISABLED | {"mode": "online", "name": "n"}, {}) as writer:
        writer.scalars(1, loss=1.0)
    assert "wandb is off from here on" in capfd.readouterr().err
    assert len(lines(tmp_path)) == 1
