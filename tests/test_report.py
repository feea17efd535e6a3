"""The page of an evaluation shows what its report says, and nothing unescaped."""

import numpy as np
import pytest
from jinja2 import UndefinedError

from score_sde.evaluation import report
from score_sde.evaluation.figure_names import short_names
from score_sde.io import html_page

SCRIPT = "<script>alert(1)</script>"


def entry(step: int, loss: float, error: float | None = 0.012) -> dict:
    return {"step": step, "loss": {"mean": loss, "standard_error": error, "images": 9}}


def written(tmp_path, entries, **config) -> str:
    content = {"config": config, "versions": {"jax": "0"}, "devices": ["cpu"], "checkpoints": entries}
    return report.write(tmp_path / "eval", content).read_text()


def test_a_page_has_every_figure_a_curve_over_checkpoints_and_samples_of_each(tmp_path):
    for step in (2, 4):
        (tmp_path / "eval" / f"step_{step:08d}").mkdir(parents=True)
        np.savez(tmp_path / "eval" / f"step_{step:08d}" / "samples.0000.npz", images=np.zeros((9, 8, 8, 1), np.uint8))
    entries = [entry(2, 1.5) | {"sampling": {}}, entry(4, 1.25) | {"sampling": {}}]
    content = written(tmp_path, entries)
    assert content == written(tmp_path, entries)
    assert "1.500 ± 0.012" in content and "1.250 ± 0.012" in content
    assert content.count("<svg") == 1
    assert content.count("data:image/png;base64,") == 2


def test_samples_of_an_earlier_evaluation_are_not_shown_as_this_ones(tmp_path):
    folder = tmp_path / "eval" / "step_00000002"
    folder.mkdir(parents=True)
    for name in ("samples.npz", "samples_0000.npz", "samples.0000.npz"):
        np.savez(folder / name, images=np.zeros((9, 8, 8, 1), np.uint8))
    assert "<img" not in written(tmp_path, [entry(2, 1.5)])


def test_one_checkpoint_without_samples_is_a_table(tmp_path):
    content = written(tmp_path, [entry(2, 1.5)])
    assert "<svg" not in content and "<img" not in content


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [
        (4.90412, 0.0234, "4.904 ± 0.023"),
        (131.7, 12.1, "132 ± 12"),
        (2.5, None, "2.5"),
        (0.5, 0.0, "0.5000 ± 0"),
        (3.16, 0.0199, "3.160 ± 0.020"),
    ],
)
def test_an_error_has_two_digits(mean, error, expected):
    assert report.text({"mean": mean, "standard_error": error}) == expected


def test_a_figure_that_one_checkpoint_lacks_was_not_run(tmp_path):
    assert "not run" in written(tmp_path, [entry(2, 1.5), {"step": 4}])


def test_only_figures_of_one_protocol_share_a_curve(tmp_path):
    def measured(step: int, fingerprint: str) -> dict:
        figure = {"fid": {"mean": 3.0 + step, "standard_error": 0.1}}
        return {"step": step, "sampling": {"metrics": {"fingerprint": fingerprint, "protocol": {}} | figure}}

    content = written(tmp_path, [measured(2, "aa"), measured(4, "bb"), measured(6, "bb")])
    assert "fid (aa)" in content and "fid (bb)" in content
    assert "fid (" not in written(tmp_path, [measured(2, "aa"), measured(4, "aa")])


def test_a_table_has_short_names_and_their_fingerprints_once_beneath_it(tmp_path):
    figure, name = {"mean": 3.0, "standard_error": 0.1}, "frechet_distance[features=trained-7bb6f4a4]"

    def measured(step: int, fingerprint: str) -> dict:
        return {"step": step, "sampling": {"metrics": {"fingerprint": fingerprint, "protocol": {}, name: figure}}}

    content = written(tmp_path, [measured(2, "0123456789ab")])
    assert "<th>Fréchet (trained)</th>" in content and content.count("trained-7bb6f4a4") == 1
    assert "trained: features trained-7bb6f4a4." in content
    content = written(tmp_path, [measured(2, "0123456789ab"), measured(4, "0129456789ab")])
    assert "<th>Fréchet (trained) (0123)</th><th>Fréchet (trained) (0129)</th>" in content
    assert "0129: fingerprint 0129456789ab." in content


def test_short_names_tell_features_of_one_kind_and_fingerprints_apart():
    names = [f"precision[features=trained-{digest}]" for digest in ("7bb6f4a4", "0123abcd")]
    short, footnotes = short_names([*names, "fid (012345678901)", "fid (012345678999)", "bits/dim", "fid"])
    assert list(short.values()) == [
        *("precision (trained 1)", "precision (trained 2)"),
        *("fid (01234567890)", "fid (01234567899)", "bits/dim", "fid"),
    ]
    assert "trained 2: features trained-0123abcd." in footnotes


def test_a_kernel_distance_over_blocks_does_not_stand_with_one_over_all_pairs():
    """Those of reports before 0.6 are over blocks, and do not say so."""
    figure = {"mean": 3.0, "standard_error": 0.1}
    earlier, later = ({"sampling": {"metrics": {"kid": of}}} for of in (figure, figure | {"over": "all pairs"}))
    assert [*report.figures(earlier), *report.figures(later)] == ["kid, over blocks", "kid"]
    assert report.figures(earlier)["kid, over blocks"] == figure
    rows = report.baselines([{"sampling": {"metrics": {"baselines": {"noise": {"images": 9, "kid": figure}}}}}])
    assert rows == {"noise (9)": {"kid, over blocks": figure}}


def test_a_curve_without_points_leaves_the_others_their_colours_and_names():
    drawn = html_page.chart({"a": ([], [], None), "_b $x$": ([1, 2], [1, 2], None)}, "x", "y")
    assert html_page.COLOURS[1] in drawn and html_page.COLOURS[0] not in drawn
    assert "_b $x$ -->" in drawn
    assert html_page.chart({"a": ([], [], None), "b": ([], [], None)}, "x", "y")


def test_what_a_config_holds_is_shown_as_text(tmp_path):
    content = written(tmp_path, [entry(2, 1.5), entry(3, 1.5)], dataset=SCRIPT)
    assert SCRIPT not in content
    assert "&lt;script&gt;" in content
    assert SCRIPT not in html_page.figure(SCRIPT, "") + html_page.table([SCRIPT], [[SCRIPT]]) + html_page.note(SCRIPT)
    assert SCRIPT not in html_page.chart({SCRIPT: ([1], [1], None), "b": ([1], [1], None)}, SCRIPT, SCRIPT)


def test_what_is_no_element_is_shown_as_text_wherever_it_stands(tmp_path):
    body = [html_page.note("a note"), html_page.division("grids", SCRIPT, html_page.heading(SCRIPT, 3)), SCRIPT]
    html_page.write(tmp_path / "page.html", SCRIPT, [*body, html_page.figure("a caption", SCRIPT)])
    content = (tmp_path / "page.html").read_text()
    assert '<p class="note">a note</p>' in content
    assert SCRIPT not in content and content.count("&lt;script&gt;") == 6  # in the title and the heading of the page


def test_a_value_that_a_page_lacks_is_an_error_and_no_gap():
    with pytest.raises(UndefinedError):
        html_page.element("<p>{{ text }}</p>", txt="")
