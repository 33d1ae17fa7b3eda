"""The source d3: published rows are kept as they are, and every fault is told with its file and line."""

import json
from collections import Counter

import pytest
from source_files import D3_HEADER, D3_ROW, LONG, published, short, write

from igd_jax.core.errors import InputError
from igd_jax.data.sources import d3


@pytest.mark.parametrize("flat", [False, True])
def test_keeps_published_rows_and_the_whole_catalogue(tmp_path, flat):
    two = D3_ROW + "8,x,['NA'],Tab\tin it,[2],3,5\n"
    prepared = d3.read(published(tmp_path, train=two, flat=flat))
    train = prepared.splits["train"]
    assert prepared.titles == ["A", "B's", "NA", "Tab\tin it"]
    assert [train.history[r].tolist() for r in range(2)] == [[0, 1], [2]]
    assert (train.user.tolist(), train.target.tolist(), train.timestamp.tolist()) == (["7", "8"], [2, 3], [15, 5])
    assert prepared.meta["rows"] == {"train": 2, "valid": 1, "test": 1}
    assert prepared.meta["dropped"] == {}


def test_items_are_numbered_by_the_info_file(tmp_path):
    prepared = d3.read(published(tmp_path, info="NA\t2\nA\t0\nB's\t1\n"))
    assert prepared.item_ids == ["2", "0", "1"]
    assert prepared.splits["train"].history[0].tolist() == [1, 2]
    assert prepared.splits["train"].target.tolist() == [0]


def test_counts_what_it_drops_and_what_disagrees(tmp_path):
    rows = D3_ROW + "8,x,[],NA,[],2,5\n" + "9,x,['A'],Not NA,[0],2,6\n" + "9,x,['Not A'],NA,[0],2,6\n"
    prepared = d3.read(published(tmp_path, train=rows, info="A\t0\nB's\t1\nNA\t2\n \t3\nOther\t0\n"))
    assert prepared.meta["rows"]["train"] == 3
    assert prepared.titles == ["A", "B's", "NA", " "]
    assert prepared.meta["dropped"] == {
        "title other than the item's first in the info file: lines": 1,
        "no history: rows": 1,
    }
    assert prepared.meta["notes"] == {
        "items with a blank title, kept as published": 1,
        "rows with other titles than in the info file, whose titles count": 2,
    }


@pytest.mark.parametrize(
    ("train", "info", "message"),
    [
        ("7,x,\"['A']\",NA,__import__('os').getpid(),2,15\n", "A\t0\nB\t1\nNA\t2\n", "line 2: expected a list"),
        ("7,x,['A'],NA,(0),2,15\n", None, "line 2: expected a list such as [12, 7], got '(0)'"),
        ("7,x,['A'],NA,{[]: 0},2,15\n", None, "line 2: expected a list such as [12, 7], got '{[]: 0}'"),
        ("7,x,['A'],NA,[9],2,15\n", None, "line 2: item '9' is not in the info file"),
        ("7,x,['A'],NA,[0],2,noon\n", None, "line 2: 'noon' is not epoch seconds from the year 1 to 9999"),
        ("7,x,['A'],NA,[0],2,-99999999999\n", None, "line 2: '-99999999999' is not epoch seconds"),
        (D3_ROW + " ,x,['A'],NA,[0],2,15\n", None, "line 3: user_id is empty; fill it or remove the row"),
        (f"7,x,['A'],NA,['{LONG}'],2,15\n", None, "is not in the info file"),
        (f"7,x,['A'],NA,[0],2,{LONG}\n", None, "is not epoch seconds"),
        (f"7,x,['A'],NA,{LONG},2,15\n", None, "line 2: expected a list"),
        (D3_ROW, LONG, "line 1: expected a title, a tab and an id"),
        (D3_ROW.encode() + b"7,x,['\xe9'],NA,[0],2,15\n", None, "line 3: not UTF-8 text (byte 0xe9)"),
        (D3_ROW + "7,x,['A'],NA,[0],2\n", None, "line 3: 6 cells where the header has 7"),
        (D3_ROW, "A\t0\nB's 1\n", 'line 2: expected a title, a tab and an id, got "B\'s 1"'),
        (D3_ROW, "", "is empty"),
    ],
    ids=short,
)
def test_faults_are_told_with_their_line(tmp_path, train, info, message):
    folder = published(tmp_path, train=train, **({} if info is None else {"info": info}))
    with pytest.raises(InputError) as caught:
        d3.read(folder)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_wants_each_file_once(tmp_path):
    with pytest.raises(InputError, match=r"0 files like train/\*\.csv or \*\.train\.csv"):
        d3.read(tmp_path)
    write(published(tmp_path) / "test/Other.csv", D3_HEADER)
    with pytest.raises(InputError, match=r"2 files like test/\*\.csv .*Other\.csv, Toys_5\.csv"):
        d3.read(tmp_path)


@pytest.mark.slow
def test_reads_amazon_books_exactly(shared):
    prepared = d3.read(shared / "data/amazon_books")
    assert prepared.meta["rows"] == {"train": 31_554, "valid": 3_506, "test": 4_383}
    assert prepared.meta["items"] == 6_344
    assert prepared.meta["dropped"] == {}
    golden = json.loads((shared / "golden/igd_amazon_books/item_frequency.json").read_text(encoding="utf-8"))
    assert Counter(prepared.titles[item] for item in prepared.splits["train"].target) == golden
