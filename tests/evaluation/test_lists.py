"""Predictions read back as catalogue rows."""

import json

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.evaluation.lists import read_lists

ROW_OF_ID = {"a": 0, "b": 1, "b again": 1, "c": 2}


def _line(row: int, targets: list[str], ranked: list[str]) -> dict:
    results = [
        {"items": [item] if item else [], "title": item, "score": -float(place), "tokens": [1, 0] if item else []}
        for place, item in enumerate(ranked)
    ]
    target = {"items": targets, "title": targets[0], "warm": [True] * len(targets)}
    return {"row": row, "user": f"u{row}", "target": target, "ranked": results}


@pytest.fixture
def read(tmp_path):
    def run(*lines: dict, n_rows: int = 9):
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_lists(tmp_path / "p.jsonl", ROW_OF_ID, n_rows=n_rows, n_results=3)

    return run


def test_lists_of_any_length_targets_of_one_title_and_results_that_are_no_item(read):
    lists = read(_line(4, ["b", "c", "b again"], ["c", "", "a"]), _line(7, ["a"], ["b again"]))
    assert lists.row.tolist() == [4, 7]
    assert lists.ranked.tolist() == [[2, -1, 0], [1, -1, -1]]
    assert (lists.targets.ids.tolist(), lists.query.tolist()) == ([1, 2, 0], [0, 0, 1])
    assert lists.rank_of_targets().tolist() == [-1, 0, -1]
    one = lists.take(np.array([1]))
    assert (len(one), one.row.tolist(), one.targets.ids.tolist()) == (1, [7], [0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([_line(0, ["d"], ["a"])], r"p.jsonl names the item 'd', which the data does not have; run python -m igd"),
        ([_line(0, ["a"], ["x"])], r"names the item 'x'"),
        ([_line(9, ["a"], ["a"])], r"tells of rows 9 to 9, the split has 9"),
        ([_line(-1, ["a"], ["a"])], r"tells of rows -1 to -1"),
        ([], r"has no rows"),
        ([_line(0, ["a"], [])], r"has no results"),
        ([_line(0, ["a"], ["a", "b", "c", ""])], r"has a list of 4 results, its config allows 3; run"),
    ],
)
def test_what_does_not_belong_to_the_data_is_bad_input(read, lines, message):
    with pytest.raises(InputError, match=message):
        read(*lines)
