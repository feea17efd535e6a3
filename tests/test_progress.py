import os
import pty
import select
import sys
import time

import pytest

from score_sde.runtime import progress
from score_sde.runtime.progress import Pace, bar, reporter


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock[0]` seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, seconds_each, n, **options):
    """The progress of n updates, the first after `seconds_each[0]`, the others after `seconds_each[1]`."""
    with bar("training", n, "step", **options) as shown:
        for i in range(n):
            clock[0] += seconds_each[min(i, 1)]
            shown.set_postfix_str("loss 0.5", refresh=False)
            shown.update()


def test_the_rate_leaves_out_the_first_update():
    pace = Pace()
    pace.add(1, 60.0)
    assert pace.rate is None
    for i in range(1, 9):
        pace.add(0, 60.0 + 0.5 * i - 0.1)  # by nothing, which does not count
        pace.add(1, 60.0 + 0.5 * i)
        assert pace.rate == pytest.approx(2.0)


def test_a_rate_that_changes_is_followed_within_minutes():
    pace = Pace()
    for i in range(1000):
        pace.add(1, 0.01 * i)
    for i in range(120):
        pace.add(1, 10.0 + i)
    assert 1.0 < pace.rate < 2.0  # it was 100


def test_a_log_file_gets_a_line_a_minute(clock, capsys):
    run(clock, (100.0, 2.0), 100)  # 100 s of compiling, and 198 s
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "training: 0 of 100 steps (0 %)",
        "training: 4 of 100 steps (4 %), loss 0.5, 2 s/step, 03:12 left",
        "training: 34 of 100 steps (34 %), loss 0.5, 2 s/step, 02:12 left",
    ]
    assert lines[-1] == "training: 100 of 100 steps (100 %), loss 0.5, in 04:58"
    assert len(lines) == 6


def test_a_run_that_goes_on_begins_at_its_step_and_one_without_work_says_nothing(clock, capsys):
    with bar("training", 10, "step", initial=9) as shown:
        shown.update()
    with bar("training", 10, "step", initial=10):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 9 of 10 steps (90 %)", "training: 10 of 10 steps (100 %), in 00:00"]


def test_a_progress_that_is_stopped_ends_its_lines_where_it_is(clock, capsys):
    with pytest.raises(KeyboardInterrupt), bar("sampling (pc)", 8, "img") as shown:
        reporter(shown, 8)(0.25)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines()[-1] == "sampling (pc): 2 of 8 images (25 %), in 00:00"


def test_reading_that_takes_less_than_its_delay_says_nothing(clock, capsys):
    run(clock, (0.3, 0.3), 3, delay=1.0)
    assert capsys.readouterr().err == ""
    run(clock, (0.3, 0.3), 4, delay=1.0)
    assert capsys.readouterr().err == "training: 4 of 4 steps (100 %), loss 0.5, in 00:01\n"


def test_other_processes_than_the_first_are_silent(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_first", lambda: False)
    run(clock, (1.0, 1.0), 3)
    assert capsys.readouterr().err == ""


def _read(terminal):
    """What a terminal has received so far; one read may give a part of it."""
    return os.read(terminal, 10_000).decode() if select.select([terminal], [], [], 0.2)[0] else ""


def test_a_terminal_has_a_bar_without_an_estimate_before_the_second_update(monkeypatch):
    master, slave = pty.openpty()  # a terminal without a window, as that of `script`
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with bar("training", 3, "step") as shown:
            for _ in range(3):
                time.sleep(0.01)
                shown.update()
                shown.refresh()
        terminal.flush()
        drawn = "".join(iter(lambda: _read(master), ""))
    os.close(master)
    redrawn = [line for line in drawn.replace("\n", "\r").split("\r") if line.strip()]
    assert all("<?, ? step/s]" in line for line in redrawn if "0/3" in line or "1/3" in line)
    assert all("?" not in line for line in redrawn if "2/3" in line or "3/3" in line)
    assert any("1/3" in line for line in redrawn) and any("3/3" in line for line in redrawn)
