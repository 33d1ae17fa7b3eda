"""Splits as published by SETRec: the rows of its code, read from JSON and never from pickles."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.prepared import Prepared, load, save
from igd_jax.data.sources.setrec import CONVERT, read
from igd_jax.evaluation.queries import make_queries

DICTS = {
    "training_dict": {"0": [3, 1, 4], "7": [*range(5, 15), *range(60)], "8": [2], "9": []},
    "validation_dict": {"0": [5, 2], "7": [], "8": [], "9": [0]},
    "testing_dict": {"0": [0, 6], "7": [60], "8": [], "9": [4]},
}


def write(folder, **changes) -> None:
    for name, content in (DICTS | changes).items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def rows_of(prepared: Prepared, split: str) -> list[tuple[str, list[int], int]]:
    rows = prepared.splits[split]
    return [(rows.user[r], rows.history[r].tolist(), int(rows.target[r])) for r in range(len(rows))]


def test_rows_are_those_of_the_published_code(tmp_path):
    write(tmp_path)
    prepared = read(tmp_path)
    train, valid, test = (rows_of(prepared, split) for split in ("train", "valid", "test"))
    latest = DICTS["training_dict"]["7"][-50:]
    assert train == [
        *(("0", [3, 1, 4][:t], [3, 1, 4][t]) for t in range(3)),
        *(("7", latest[:t], latest[t]) for t in range(50)),
    ]
    assert valid == [("0", [3, 1, 4], 5), ("0", [3, 1, 4, 5], 2)]
    assert test == [
        ("0", [3, 1, 4, 5, 2], 0),
        ("0", [3, 1, 4, 5, 2, 0], 6),
        ("7", DICTS["training_dict"]["7"], 60),
        ("9", [0], 4),
    ]
    assert prepared.meta["dropped"] == {
        "before the last 50 train events of a user: events": 20,
        "only train event of its user: events": 1,
        "first of its user, so without history: events": 1,
    }
    assert prepared.item_ids == [str(item) for item in range(61)]
    assert prepared.titles[17] == "item 17"
    assert prepared.meta["titles_shared_by_several_items"] == prepared.meta["train_rows_after_first_test_row"] == 0


def test_a_user_is_asked_once_with_train_or_with_train_and_valid_as_history(tmp_path):
    write(tmp_path)
    prepared = read(tmp_path)
    for split, histories in (("valid", [[3, 1, 4]]), ("test", [[3, 1, 4, 5, 2], DICTS["training_dict"]["7"], [0]])):
        rows = prepared.splits[split]
        queries = make_queries("users", user=rows.user, timestamp=rows.timestamp, target=rows.target)
        assert [rows.history[row].tolist() for row in queries.row.tolist()] == histories


def test_every_item_of_train_is_warm_even_where_no_row_of_train_holds_it(tmp_path):
    """A long history but for its last 50 items, and the only item of a user: item 2 is in both, item 5 in neither."""
    write(tmp_path, training_dict={"7": [2, 5, 0, 1, *range(10, 59), 5], "8": [2], "9": [3, 4], "6": [6]})
    save(read(tmp_path), tmp_path / "data")
    prepared = load(tmp_path / "data")
    train, warm = prepared.splits["train"], [*range(7), *range(10, 59)]
    assert np.flatnonzero(train.seen(61)).tolist() == [item for item in warm if item not in (0, 1, 2, 6)]
    assert np.flatnonzero(prepared.seen(train)).tolist() == warm
    some = train.take(np.arange(3))
    np.testing.assert_array_equal(prepared.seen(some), some.seen(61))


def test_prepared_splits_can_be_stored_with_their_empty_histories(tmp_path):
    write(tmp_path)
    (tmp_path / "titles.json").write_text(json.dumps([f"Toy {item}" for item in range(61)]), encoding="utf-8")
    prepared = read(tmp_path)
    save(prepared, tmp_path / "data")
    assert rows_of(load(tmp_path / "data"), "train") == rows_of(prepared, "train")
    assert prepared.titles[17] == "Toy 17"


def test_blank_titles_and_line_breaks_in_titles_are_kept_and_counted(tmp_path):
    write(tmp_path)
    titles = ["Toy", " ", "", "To\ny", "To\ry", "Toy\n"] + ["Toy"] * 55
    (tmp_path / "titles.json").write_text(json.dumps(titles), encoding="utf-8")
    prepared = read(tmp_path)
    assert prepared.titles == titles
    assert prepared.meta["notes"]["items with a blank title, kept as published"] == 2
    assert prepared.meta["notes"]["items with a line break in the title, kept as published"] == 3


def test_pickles_are_refused_with_the_command_that_converts_them(tmp_path):
    for name, content in DICTS.items():
        np.save(tmp_path / f"{name}.npy", np.array({int(user): items for user, items in content.items()}, object))
    with pytest.raises(
        InputError, match=r"training_dict\.npy is a pickle, which can run .*; convert it: python -c "
    ) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    _, option, program = shlex.split(CONVERT)
    subprocess.run([sys.executable, option, program], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "testing_dict.json").read_text(encoding="utf-8")) == DICTS["testing_dict"]
    assert len(rows_of(read(tmp_path), "train")) == 53


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_dict": [1]}, "training_dict.json holds [1]; expected an object of users"),
        ({"testing_dict": {"0": 5}}, "testing_dict.json, user '0': 5; expected a list of item numbers from 0"),
        ({"testing_dict": {"0": [True]}}, "user '0': [True]; expected a list"),
        ({"testing_dict": {"0": [-1]}}, "user '0': [-1]; expected a list"),
        ({"testing_dict": {"0": [2**31]}}, "user '0': [2147483648]; expected a list"),
        ({"testing_dict": {"0": [10**9]}}, "has items up to 1,000,000,000, but only 61 different ones; expected the"),
        ({"titles": ["bad \ud83d"] * 61}, "expected a list of 61 texts, one per item"),
        ({"testing_dict": {"\ud83d": [1]}}, "testing_dict.json has users that no file of text can hold"),
        ({"titles": ["one"]}, "titles.json holds ['one']; expected a list of 61 texts, one per item"),
        ({"validation_dict": {}}, "every split needs at least one row, but there are train 53, valid 0, test"),
    ],
)
def test_what_is_no_such_split_is_bad_input(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path)


def test_a_file_that_is_not_there_or_no_json_is_bad_input(tmp_path):
    write(tmp_path)
    (tmp_path / "testing_dict.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"testing_dict\.json is not valid JSON"):
        read(tmp_path)
    (tmp_path / "testing_dict.json").unlink()
    with pytest.raises(InputError, match=r"testing_dict\.json does not exist"):
        read(tmp_path)
