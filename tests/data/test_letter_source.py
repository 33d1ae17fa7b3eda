"""Sequences and codes in the layout of LC-Rec and LETTER: the rows of its code, and what is refused."""

import json

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.prepared import SPLITS, Prepared, load, save
from igd_jax.data.sources.letter import read

CODES = {str(item): [f"<a_{item % 3}>", f"<b_{item}>"] for item in range(8)}
FILES = {
    "inter": {"u": [3, 1, 4, 0, 5], "v": [7, 2], "w": ["6"], "x": [2, 0, 1]},
    "index": CODES,
    "item": {item: {"title": f"title {item}", "brand": "", "categories": f"kind {item}"} for item in CODES},
}


def write(folder, *, without: str = "", **changes) -> None:
    for name, content in (FILES | changes).items():
        if name != without:
            (folder / f"Toys.{name}.json").write_text(json.dumps(content), encoding="utf-8")


def rows_of(prepared: Prepared) -> dict[str, list[tuple[str, list[int], int]]]:
    return {
        name: [(rows.user[r], rows.history[r].tolist(), int(rows.target[r])) for r in range(len(rows))]
        for name, rows in prepared.splits.items()
    }


def test_the_last_item_is_for_test_and_the_one_before_for_valid(tmp_path):
    write(tmp_path)
    save(read(tmp_path, max_history=2), tmp_path / "data")
    prepared = load(tmp_path / "data")
    assert rows_of(prepared) == {
        "train": [("u", [3], 1), ("u", [3, 1], 4)],
        "valid": [("u", [1, 4], 0), ("x", [2], 0)],
        "test": [("u", [4, 0], 5), ("v", [7], 2), ("x", [2, 0], 1)],
    }
    assert prepared.item_ids == list(CODES)
    assert prepared.titles[5] == "title 5"
    assert {name: column[5] for name, column in prepared.texts.items()} == {"category": "kind 5", "code": "<a_2> <b_5>"}
    assert prepared.words == {"category": [f"kind {item}" for item in CODES]}
    assert prepared.meta["dropped"] == {
        "first of its user, so without history: events": 4,
        "history cut to the last 2: rows": 2,
    }
    assert [rows.timestamp.tolist() for rows in prepared.splits.values()] == [[0, 0], [1, 1], [2, 2, 2]]


def test_an_item_with_a_blank_title_is_called_by_its_id(tmp_path):
    write(tmp_path, item=FILES["item"] | {"2": {"title": " "}})
    prepared = read(tmp_path)
    assert prepared.titles[1:4] == ["title 1", "item 2", "title 3"]
    assert prepared.meta["notes"]["items without a title, called by their ids"] == 1


def test_texts_and_codes_may_each_be_missing(tmp_path):
    write(tmp_path, without="item")
    prepared = read(tmp_path)
    assert (prepared.titles[2], [*prepared.texts]) == ("item 2", ["code"])
    assert prepared.meta["notes"]["items without a title, called by their ids"] == len(CODES)
    (tmp_path / "Toys.index.json").unlink()
    with pytest.raises(InputError, match=r"neither \*\.index\.json nor \*\.item\.json"):
        read(tmp_path)
    write(tmp_path, without="index")
    assert [*read(tmp_path).texts] == ["category"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inter": [1]}, "expected an object whose names are ids"),
        ({"inter": {"u": 3}}, "user 'u': 3; expected a list of items"),
        ({"inter": {"u": [1, 9]}}, "user 'u': item '9' is in no file of items"),
        ({"index": CODES | {"1": []}}, r"item '1': \[\]; expected a list of texts"),
        ({"index": CODES | {"1": [4]}}, r"item '1': \[4\]; expected a list of texts"),
        *(
            ({"index": CODES | {"1": ["a", part]}}, "expected a list of texts without blanks")
            for part in ("b c", "b,c", "")
        ),
        ({"item": {"1": {"title": 5}}}, "item '1': .* expected an object whose title is a text"),
        ({"item": {"1": "a title"}}, "item '1': .* expected an object whose title is a text"),
    ],
)
def test_malformed_files_are_told_with_their_place(tmp_path, changes, told):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=told):
        read(tmp_path)


def test_two_files_of_one_kind_are_ambiguous(tmp_path):
    write(tmp_path)
    (tmp_path / "Games.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"2 files like \*\.index\.json; expected exactly one"):
        read(tmp_path)


def test_rows_are_those_of_the_published_code(shared):
    """Pairs of text that its loader makes of a few users, and the counts of the published Instruments."""
    golden = shared / "golden" / "letter"
    pairs = json.loads((golden / "t5_data.json").read_text(encoding="utf-8"))
    prepared = read(golden)
    spelt = np.array([code.replace(" ", "") for code in prepared.texts["code"]], object)
    for split in SPLITS:
        assert [("".join(spelt[past]), spelt[target]) for _, past, target in rows_of(prepared)[split]] == [
            (pair["input_ids"], pair["labels"]) for pair in pairs[split]
        ]
    instruments = read(shared / "data" / "letter_instruments")
    counts = {"train": 131_837, "valid": 24_772, "test": 24_772}
    assert (instruments.meta["rows"], len(instruments.item_ids)) == (counts, 9_922)
    n_codes = len(set(instruments.texts["code"]))
    assert (9_922 - n_codes) / 9_922 == pytest.approx(0.0025, abs=5e-5)
