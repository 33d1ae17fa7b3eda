"""The source huggingface: every form of a dataset gives the same events, and faults of columns are one line."""

import itertools
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hf_files import EVENTS, FORMS, ROWS, columns_of, csv_file, csv_folder, parquet_folder, saved
from source_files import events_of, short

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import to_prepared
from igd_jax.data.sources import csv, huggingface, movielens

pytestmark = [
    pytest.mark.usefixtures("files_are_closed"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_same_events(tmp_path, write):
    log = huggingface.read(write(tmp_path))
    assert events_of(log) == EVENTS
    assert log.item_ids == ["007", "i", "j"]
    assert log.titles == ["None", "NA, and more", ""]
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "title other than the item's first: items": 1
    }


def test_many_batches_are_one_log(tmp_path, monkeypatch):
    monkeypatch.setattr("igd_jax.data.hf_datasets._BATCH_ROWS", 2)
    for write in (saved, parquet_folder, csv_folder):
        (folder := tmp_path / write.__name__).mkdir()
        log = huggingface.read(write(folder))
        assert (events_of(log), log.titles) == (EVENTS, ["None", "NA, and more", ""])


def test_columns_are_those_that_are_named_and_the_rest_is_told(tmp_path, capsys):
    row = {"user_id": 7, "parent_asin": "a", "time": 5, "name": "T", "rating": 5.0, "description": ["two", "words"]}
    rows = [row, row | {"user_id": 8, "brand": "never read"}, row | {"parent_asin": "b", "description": None}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    columns = "user=user_id,item=parent_asin,timestamp=time,title=name"
    log = huggingface.read(tmp_path / "set", columns=columns)
    assert events_of(log) == [("7", "a", 5), ("8", "a", 5), ("7", "b", 5)]
    assert log.texts == {"description": ["two, words", ""]}
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path / 'set'}: a saved dataset, split train"
    assert out[1] == (
        "columns: user_id as user, parent_asin as item, time as timestamp, name as title, description; not read: rating"
    )


def test_ratings_are_a_filter_and_texts_can_have_other_names(tmp_path):
    row = {"user": "u", "item": "i", "timestamp": 5, "title": "T", "stars": 4.5, "maker": "M"}
    rows = [row, row, row | {"user": "v", "stars": None}, row | {"user": "w", "stars": 4.0}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    log = huggingface.read(tmp_path / "set", columns="rating=stars,brand=maker", min_rating=4.5)
    assert (events_of(log), log.texts) == ([("u", "i", 5)], {"brand": ["M"]})
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "no rating: events": 1,
        "no rating: users": 1,
        "rating below 4.5: events": 1,
        "rating below 4.5: users": 1,
        "repeat of an event (same user, item and time): events": 1,
    }


def test_rows_without_a_user_an_item_or_a_time_are_dropped_and_counted(tmp_path):
    whole = {"user": 1.0, "item": "i", "timestamp": 5.5, "title": "T"}
    faults = [{"user": None}, {"user": float("nan")}, {"item": "  "}, {"timestamp": float("nan")}, {"title": " "}]
    datasets.Dataset.from_list([whole, *(whole | fault for fault in faults)]).save_to_disk(tmp_path / "set")
    log = huggingface.read(tmp_path / "set", duplicates="keep")
    assert events_of(log) == [("1", "i", 5), ("1", "i", 5)]
    assert log.notes == {"repeat of an event (same user, item and time), kept: events": 1}
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "no user: events": 2,
        "no item: events": 1,
        "no timestamp: events": 1,
    }


def test_the_same_file_reads_as_by_the_csv_source(tmp_path):
    path = csv_file(tmp_path)
    path.write_text(path.read_text().replace(',"None"', ',"007"').replace(',""', ",x").replace(",\n", ",T\n") + "T")
    ours, theirs = huggingface.read(path), csv.read(path)
    assert events_of(ours) == events_of(theirs)
    assert ours.titles == theirs.titles


def test_how_fast_rows_are_read(tmp_path, monkeypatch, capsys):
    clock = itertools.count(step=10)
    monkeypatch.setattr("igd_jax.core.log.time.monotonic", lambda: next(clock))
    huggingface.read(csv_file(tmp_path))
    assert "my.csv: 5 rows (0.5/s)" in capsys.readouterr().out


def write_rows(path: Path, **changes) -> Path:
    pq.write_table(pa.table(columns_of([row | changes for row in ROWS])), path / "my.parquet")
    return path / "my.parquet"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"columns": "user=userId"}, ": no column userId; name yours with --columns=user=NAME, out of user, item"),
        ({}, {"columns": "title=item"}, "a column is one thing only, but they are user=user,item=item,timestamp="),
        ({"user": 1.5}, {}, "split train, rows 1 to 5: cannot read column user as user (double, and not all of them"),
        ({"title": True}, {}, "cannot read column title as title (expected texts or whole numbers, got bool)"),
        ({"timestamp": "soon"}, {}, "cannot read column timestamp as timestamp ('soon': "),
        ({"timestamp": False}, {}, "(expected numbers, texts, dates or datetimes, got bool); expected epoch seconds"),
        ({}, {"min_rating": 4.0}, ": no column rating; name yours with --columns=rating=NAME, out of user, item"),
        ({"rating": 3.5}, {"min_rating": 4.0}, "--min_rating=4: none of the 5 events has a rating so high"),
        ({"rating": "good"}, {"min_rating": 4.0}, "cannot read column rating as rating ("),
        ({"timestamp": "x" * 100_000}, {}, "cannot read column timestamp as timestamp ('xxx"),
        ({"item": None}, {}, "none of the 5 rows of "),
        ({}, {"hf_subset": "x"}, "--hf_subset=x: "),
    ],
    ids=short,
)
def test_faults_of_columns_are_told(tmp_path, changes, options, message):
    with pytest.raises(InputError) as caught:
        huggingface.read(write_rows(tmp_path, **changes), **options)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.slow
def test_real_ratings_read_as_by_their_own_source(shared, tmp_path):
    log = movielens.read(shared / "data/ml-100k")
    columns = {
        "user": np.array(log.user_ids)[log.user],
        "item": np.array(log.item_ids)[log.item].astype(np.int64),
        "timestamp": log.timestamp.astype("datetime64[s]"),
        "title": np.array([title.strip() for title in log.titles])[log.item],
        "category": np.array(log.texts["category"])[log.item],
    }
    pq.write_table(pa.table(columns), tmp_path / "ratings.parquet", row_group_size=30_000)
    read = huggingface.read(tmp_path / "ratings.parquet")
    assert (events_of(read), read.texts) == (events_of(log), log.texts)
    assert read.titles == [title.strip() for title in log.titles]
    assert to_prepared(read).meta["rows"] == to_prepared(log).meta["rows"]
