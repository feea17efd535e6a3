"""Quality against the length of the average: what the table says of widths, and what is refused before any work."""

import json

import pytest
from score_sde.experiments.ema_length.__main__ import program
from score_sde.experiments.ema_length.run import Row, about, text_table, write

ROWS = [
    Row(0.05, 0.0, 0.2, 0.01, [10.0, 12.0, 14.0]),
    Row(0.1, 0.001, 0.3, 0.02, [10.1, 11.9, 14.1]),
    Row(0.2, 0.02, 0.4, 0.02, [12.0, 14.1, 15.9]),
]


def test_a_width_is_worse_where_the_differences_of_the_same_noise_say_so():
    assert about(ROWS, ROWS[0]) == "worse, with 95 % confidence: 0.2; not: 0.1"
    assert about([ROWS[0]._replace(distances=[1.0])], ROWS[0]._replace(distances=[1.0])) == (
        "one set of samples gives no interval"
    )


def test_the_table_and_the_page_have_each_width(tmp_path):
    lines = text_table(ROWS).splitlines()
    assert [line.split()[0] for line in lines] == ["width", "0.05", "0.1", "0.2"]
    assert lines[1].split() == ["0.05", "0.0e+00", "0.20000", "0.01", "12.00", "1.2"]
    write(tmp_path, ROWS, {"step": 3})
    content = json.loads((tmp_path / "ema_length.json").read_text())
    assert content["step"] == 3 and [row["width"] for row in content["rows"]] == [0.05, 0.1, 0.2]
    page = (tmp_path / "ema_length.html").read_text()
    assert page.count("<svg") == 2 and "0.2" in page


def test_a_run_that_is_none_is_refused_and_nothing_is_written(tmp_path, capsys):
    assert program(["ema_length", f"--workdir={tmp_path / 'out'}", f"--run={tmp_path / 'none'}"]) == 2
    assert "No checkpoint in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_widths_that_are_no_numbers_are_refused(capsys):
    with pytest.raises(SystemExit):
        program(["ema_length", "--sigma_rel=short"])
    assert "short is no list of numbers" in capsys.readouterr().err
