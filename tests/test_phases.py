"""What a training and an evaluation do besides computing: compile once, move nothing, leave a trace when asked."""

import gzip
import json
import re

import jax
import numpy as np
import pytest
from jax import monitoring

from score_sde.evaluation import evaluate
from score_sde.runtime.profiling import WARM_UP
from score_sde.training import run as training
from score_sde.training import sheets

pytestmark = pytest.mark.usefixtures("one_block")


@pytest.fixture
def compilations():
    """An event for each program that XLA compiles, or that is read from the cache."""
    events = []

    def note(event: str, _: float, **__) -> None:
        if event.endswith("backend_compile_duration"):
            events.append(event)

    monitoring.register_event_duration_secs_listener(note)
    yield events
    monitoring.unregister_event_duration_listener(note)


def test_nothing_is_compiled_after_the_first_step_of_each_phase(tiny_config, tmp_path, monkeypatch, compilations):
    """Phases: updates, evaluation, save, samples of a snapshot; then those of the evaluation, by checkpoint."""
    config = tiny_config()
    config.training.update(n_iters=6, snapshot_sampling=True)
    config.eval.update(begin_ckpt=1, end_ckpt=3, enable_sampling=True, num_samples=16, enable_bpd=True)
    counts, sheet, write = [], sheets.draw, evaluate.page.write
    monkeypatch.setattr(sheets, "draw", lambda *args: (sheet(*args), counts.append(len(compilations))))
    training.train(config, tmp_path)
    assert counts[0] > 0 and counts == counts[:1] * 3 and len(compilations) == counts[0]

    counts.clear()
    monkeypatch.setattr(evaluate.page, "write", lambda *args: (write(*args), counts.append(len(compilations))))
    evaluate.evaluate(config, tmp_path)
    assert counts == counts[:1] * 3


def test_a_step_moves_nothing_to_the_host(tiny_config, tmp_path, monkeypatch):
    config, guards, step = tiny_config(), [], training.train_step
    pixels = np.zeros((16, 8, 8, 1), np.uint8)
    config.training.update(n_iters=1, snapshot_sampling=False)

    def noted(experiment):
        update = step(experiment)
        text = jax.jit(update).lower(experiment.state_shapes, pixels).as_text()
        assert not re.search("callback|outfeed|infeed|send|recv", text)
        return lambda *args: (guards.append(jax.config.jax_transfer_guard_device_to_host), update(*args))[1]

    monkeypatch.setattr(training, "train_step", noted)
    training.train(config, tmp_path)
    assert guards == ["disallow"]  # on a CPU, where all memory is the host's, nothing else would show it


def test_a_profile_is_a_trace_that_opens_in_a_browser(tiny_config, tmp_path, capsys):
    config = tiny_config()
    config.training.update(n_iters=WARM_UP + 3, snapshot_freq=100, snapshot_freq_for_preemption=100)
    config.profile = 2
    training.train(config, tmp_path)
    (path,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    calls = sum(event.get("name", "").startswith("PjitFunction(step)") for event in events)
    assert 2 <= calls <= 4  # a call is one event, or one in another
    assert str(path) in capsys.readouterr().err
