"""Figures as CSV and pictures."""

import importlib.util
import sys

import pytest

from igd_jax.evaluation.figures import Figure, can_draw, figure_table, write_figure

LINES = Figure("lines", "Lines", {"step": [1, 2, 3], "loss": [2.5, None, 1.0], "rate": [0.1, 0.2, 0.3]}, ("loss",), "x")
BARS = Figure("bars", "Bars", {"group": ["0", "1, or more"], "hr": [0.5, None], "n": [1200, 0]}, ("hr", "n"), "share")
TABLE = Figure("table", "Table", {"split": ["train"], "rows": [7]})


def test_columns_are_a_csv_in_which_none_is_empty(tmp_path):
    for figure in (LINES, BARS):
        write_figure(tmp_path, figure)
    assert (tmp_path / "lines.csv").read_text() == "step,loss,rate\n1,2.5,0.1\n2,,0.2\n3,1.0,0.3\n"
    assert (tmp_path / "bars.csv").read_text() == 'group,hr,n\n0,0.5,1200\n"1, or more",,0\n'


def test_lines_and_bars_are_drawn_and_a_mere_table_is_not(tmp_path):
    pytest.importorskip("matplotlib")
    for figure in (LINES, BARS, TABLE):
        write_figure(tmp_path, figure)
    assert {path.name for path in tmp_path.glob("*.png")} == {"lines.png", "bars.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))


def test_without_matplotlib_there_is_the_csv_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_figure(tmp_path, LINES)
    assert [path.name for path in tmp_path.iterdir()] == ["lines.csv"]
    assert not can_draw()


def test_the_table_is_for_people():
    assert figure_table(BARS).splitlines() == [
        "| group      |     hr |     n |",
        "| :--------- | -----: | ----: |",
        "| 0          | 0.5000 | 1,200 |",
        "| 1, or more |      - |     0 |",
    ]
