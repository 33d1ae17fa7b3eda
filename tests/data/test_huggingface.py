"""The source huggingface: every form of a dataset gives the same events, and every fault is told in one line."""

import datetime as dt
import gc
import gzip
import json
import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.arrow_columns import as_seconds, as_text
from igd_jax.data.hf_datasets import is_hub_id
from igd_jax.data.interactions import to_prepared
from igd_jax.data.source_io import parse_timestamp
from igd_jax.data.sources import csv, huggingface, movielens
from igd_jax.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def files_are_closed(request):
    """The library closes a csv file when its reader is forgotten: at the end of the test, and not in another."""
    yield
    if "tmp_path" in request.fixturenames:
        gc.collect()


ROWS = [
    {"user": "u1", "item": "007", "timestamp": 1541030400, "title": "None"},
    {"user": "u2", "item": "i", "timestamp": 1541030401, "title": " NA, and more "},
    {"user": "u1", "item": "i", "timestamp": 1541030402, "title": "Another title"},
    {"user": "u2", "item": "j", "timestamp": 1541030403, "title": None},
    {"user": "u2", "item": "007", "timestamp": 1541030404, "title": None},
]
EVENTS = [("u1", "007", 1541030400), ("u2", "i", 1541030401), ("u1", "i", 1541030402), ("u2", "j", 1541030403)]
EVENTS.append(("u2", "007", 1541030404))


def events_of(log):
    columns = log.user.tolist(), log.item.tolist(), log.timestamp.tolist()
    return [(log.user_ids[user], log.item_ids[item], time) for user, item, time in zip(*columns, strict=True)]


def columns_of(rows):
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def saved(path: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(path / "set")
    return path / "set"


def saved_dict(path: Path) -> Path:
    datasets.DatasetDict({"all": datasets.Dataset.from_list(ROWS)}).save_to_disk(path / "set")
    return path / "set"


def parquet_file(path: Path) -> Path:
    pq.write_table(pa.table(columns_of(ROWS)), path / "my.parquet")
    return path / "my.parquet"


def parquet_folder(path: Path) -> Path:
    for number, rows in enumerate((ROWS[:2], ROWS[2:])):
        pq.write_table(pa.table(columns_of(rows)), path / f"part-{number}.parquet")
    return path


def csv_file(path: Path) -> Path:
    lines = [",".join(f'"{row[name]}"' if row[name] else "" for name in ROWS[0]) for row in ROWS]
    (path / "my.csv").write_text("\n".join([",".join(ROWS[0]), *lines]))
    return path / "my.csv"


def tsv_file(path: Path) -> Path:
    lines = ["\t".join(str(row[name] or "") for name in ROWS[0]) for row in ROWS]
    (path / "my.tsv").write_text("\n".join(["\t".join(ROWS[0]), *lines]))
    return path / "my.tsv"


def csv_folder(path: Path) -> Path:
    csv_file(path)
    return path


def json_file(path: Path) -> Path:
    (path / "my [1].jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return path / "my [1].jsonl"


def packed_json_folder(path: Path) -> Path:
    (path / "my.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    return path


FORMS = [saved, saved_dict, parquet_file, parquet_folder, csv_file, tsv_file, csv_folder, json_file, packed_json_folder]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_same_events(tmp_path, write):
    log = huggingface.read(write(tmp_path))
    assert events_of(log) == EVENTS
    assert log.item_ids == ["007", "i", "j"]
    assert log.titles == ["None", "NA, and more", ""]
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "title other than the item's first: items": 1
    }


@pytest.mark.parametrize("write", FORMS)
def test_nothing_is_kept_beside_the_data_or_in_a_cache(tmp_path, write, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    huggingface.read(path)
    assert sorted(tmp_path.rglob("*")) == before


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
    named = {"user_column": "user_id", "item_column": "parent_asin", "timestamp_column": "time", "title_column": "name"}
    log = huggingface.read(tmp_path / "set", **named)
    assert events_of(log) == [("7", "a", 5), ("8", "a", 5), ("7", "b", 5)]
    assert log.texts == {"description": ["two, words", ""]}
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path / 'set'}: a saved dataset, split train"
    assert out[1] == (
        "columns: user_id as user, parent_asin as item, time as timestamp, name as title, description; not read: rating"
    )


def test_rows_without_a_user_an_item_or_a_time_are_dropped_and_counted(tmp_path):
    whole = {"user": 1.0, "item": "i", "timestamp": 5.5, "title": "T"}
    faults = [{"user": None}, {"user": float("nan")}, {"item": "  "}, {"timestamp": float("nan")}, {"title": " "}]
    datasets.Dataset.from_list([whole, *(whole | fault for fault in faults)]).save_to_disk(tmp_path / "set")
    log = huggingface.read(tmp_path / "set")
    assert events_of(log) == [("1", "i", 5), ("1", "i", 5)]
    assert {reason: count for reason, count in log.dropped.items() if count} == {
        "no user: events": 2,
        "no item: events": 1,
        "no timestamp: events": 1,
    }


def test_splits_are_chosen_by_name_and_never_mixed_silently(tmp_path):
    parts = {"train": ROWS[:2], "validation": ROWS[2:3], "test": ROWS[3:]}
    whole = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    whole.save_to_disk(tmp_path / "set")
    (tmp_path / "files").mkdir()
    for name, split in whole.items():
        pq.write_table(split.data.table, tmp_path / "files" / f"{name}.parquet")
    for path in (tmp_path / "set", tmp_path / "files"):
        with pytest.raises(InputError, match=r"has the splits train, validation, test; choose with --hf_split=train"):
            huggingface.read(path)
        with pytest.raises(InputError, match=r"--hf_split=dev: expected splits of .*: train, validation, test"):
            huggingface.read(path, hf_split="dev")
        with pytest.raises(InputError, match=r"--hf_split=test\+test"):
            huggingface.read(path, hf_split="test+test")
        assert events_of(huggingface.read(path, hf_split="test")) == EVENTS[3:]
        assert events_of(huggingface.read(path, hf_split="test+train")) == EVENTS[3:] + EVENTS[:2]


def test_subsets_are_chosen_by_name(tmp_path):
    for name, rows in (("one", ROWS[:2]), ("two", ROWS[2:])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns_of(rows)), tmp_path / name / "data.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(InputError, match=r"\['one', 'two'\]"):
        huggingface.read(tmp_path)
    assert events_of(huggingface.read(tmp_path, hf_subset="two")) == EVENTS[2:]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_files_of_other_columns_are_refused(tmp_path, ending):
    write = {"parquet": parquet_file, "csv": csv_file, "jsonl": json_file}[ending]
    path = write(tmp_path)
    path.rename(tmp_path / f"a.{ending}")
    other = datasets.Dataset.from_list([{"item": "i", "price": 5}])
    {"parquet": other.to_parquet, "csv": other.to_csv, "jsonl": other.to_json}[ending](tmp_path / f"b.{ending}")
    with pytest.raises(InputError, match=r"(?s)cannot read .*; if it has several files, are their columns the same\?"):
        huggingface.read(tmp_path)


def test_data_files_that_are_not_read_are_counted(tmp_path):
    csv_file(tmp_path)
    parquet_folder(tmp_path)
    log = huggingface.read(tmp_path)
    assert events_of(log) == EVENTS
    assert log.notes == {"data files that were not read, such as my.csv": 1}


def test_the_same_file_reads_as_by_the_csv_source(tmp_path):
    path = csv_file(tmp_path)
    path.write_text(path.read_text().replace(',"None"', ',"007"').replace(',""', ",x").replace(",\n", ",T\n") + "T")
    ours, theirs = huggingface.read(path), csv.read(path)
    assert events_of(ours) == events_of(theirs)
    assert ours.titles == theirs.titles


# --- columns


@pytest.mark.parametrize(
    "texts",
    [
        ["2018-11-01", "1960-01-01"],
        ["2018-11-01T00:00:00", "2018-11-01 23:59:59.9"],
        ["2018-11-01T00:00:00Z", "2018-11-01T02:00:00+02:00"],
        ["2018-11-01", "2018-11-01T02:00:00+02:00", "1541030400"],
        ["1541030400", "1541030400.7", "1541030400123", "1.5410304e9", "0", "-86400", "-0.5"],
    ],
)
def test_texts_are_the_times_that_parse_timestamp_gives(texts):
    assert as_seconds(pa.array(texts)).tolist() == [parse_timestamp(text) for text in texts]


MOMENT = dt.datetime(2018, 11, 1, 0, 0, 0, 900_000)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1541030400]),
        pa.array([1541030400], pa.uint32()),
        pa.array([1541030400123]),
        pa.array([1541030400.7]),
        pa.array([1541030400123.0]),
        *(pa.array([MOMENT]).cast(pa.timestamp(unit), safe=False) for unit in ("s", "ms", "us", "ns")),
        pa.array([MOMENT], pa.timestamp("us", "UTC")),
        pa.array([MOMENT], pa.timestamp("us")).cast(pa.timestamp("us", "Asia/Tokyo")),
        pa.array([MOMENT.date()]),
        pa.array([MOMENT.date()]).cast(pa.date64()),
    ],
    ids=lambda column: str(column.type),
)
def test_times_of_every_type_are_utc_seconds(column):
    assert as_seconds(column).tolist() == [1541030400]


def test_times_before_1970_are_rounded_down():
    column = pa.array([dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)])
    assert as_seconds(column).tolist() == as_seconds(pa.array([-0.5])).tolist() == [-1]


@pytest.mark.parametrize(
    "column",
    [["yesterday"], ["5", "31.01.2018"], ["20181101"], ["nan"], ["1e30"], [20181101], [1e30], [float("inf")], [2**62]],
    ids=str,
)
def test_other_times_are_refused(column):
    with pytest.raises(ValueError, match=r"31\.01|yesterday|eight digits|range"):
        as_seconds(pa.array(column))


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([7, None, -1]), ["7", None, "-1"]),
        (pa.array([7.0, float("nan"), None]), ["7", None, None]),
        (pa.array([" 007 ", "", "\u00a0"], pa.large_string()), ["007", None, None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.nulls(2), [None, None]),
        (pa.array([["a", "b"], [], None]), ["a, b", None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids_and_titles_are_texts(column, texts):
    assert as_text(column).to_pylist() == texts


@pytest.mark.parametrize("column", [[1.5], [True], [{"a": 1}], [[1]], [b"x"]], ids=str)
def test_other_columns_are_no_texts(column):
    with pytest.raises(ValueError, match=r"whole numbers"):
        as_text(pa.array(column))


# --- faults


def write_rows(path: Path, **changes) -> Path:
    pq.write_table(pa.table(columns_of([row | changes for row in ROWS])), path / "my.parquet")
    return path / "my.parquet"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"user_column": "userId"}, "has no column userId; name yours with --user_column=NAME, out of user, item"),
        ({}, {"title_column": "item"}, "a column is one thing only, but they are --user_column=user, --item"),
        ({"user": 1.5}, {}, "split train, rows 1 to 5: cannot read column user as user (double, and not all of them"),
        ({"title": True}, {}, "cannot read column title as title (expected texts or whole numbers, got bool)"),
        ({"timestamp": "soon"}, {}, "cannot read column timestamp as timestamp ('soon': "),
        ({"timestamp": False}, {}, "(expected numbers, texts, dates or datetimes, got bool); expected epoch seconds"),
        ({"item": None}, {}, "none of the 5 rows of "),
        ({}, {"hf_subset": "x"}, "--hf_subset=x: "),
    ],
)
def test_faults_of_columns_are_told(tmp_path, changes, options, message):
    with pytest.raises(InputError) as caught:
        huggingface.read(write_rows(tmp_path, **changes), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.parquet", b"PAR1 not parquet", "cannot read .* as a dataset"),
        ("my.csv", b"user,item,timestamp,title\nu,i,1\nu,i,1,T,more,cells\n", "Expected 4 fields in line 3, saw 6"),
        ("my.csv", b"user,item,timestamp,title\nu,i,1,\xff\xfe\n", "cannot read .* as a dataset .*utf-8"),
        ("my.csv", b"", "cannot read .* as a dataset"),
        ("my.csv", b"user,item,timestamp,title\n", "holds no rows"),
        ("my.jsonl", b'{"user": 1\n', "cannot read .* as a dataset"),
        ("my.txt", b"words", r"is no data file; expected a name that ends in \.parquet, \.csv"),
        ("folder/my.txt", b"words", "holds files of the kind text; expected parquet, csv or JSON lines"),
        ("folder/README.md", b"", "cannot read .* as a dataset"),
    ],
)
def test_faults_of_files_are_told(tmp_path, name, content, message, capfd):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        huggingface.read(tmp_path / Path(name).parts[0])
    assert re.search(message, str(caught.value), re.DOTALL)
    assert capfd.readouterr() == ("", "")


# --- the Hub


@pytest.mark.parametrize("path", ["owner/name", "imdb", "Owner-1/na.me_2"])
def test_ids_of_the_hub(path):
    assert is_hub_id(Path(path))


@pytest.mark.parametrize("path", ["a/b/c", "/owner/name", "../name", "my.csv", "data/my.parquet", "my.jsonl.gz", "a b"])
def test_other_inputs_are_paths(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id(Path(path))
    with pytest.raises(InputError, match=f"--input={path} does not exist"):
        prepare("huggingface", path=Path(path), options={})


def test_only_this_source_takes_an_id_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"--input=owner/name does not exist"):
        prepare("csv", path=Path("owner/name"), options={})


def test_without_a_network_an_id_of_the_hub_is_one_clear_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"cannot read owner/name as a dataset \(ConnectionError: .*id of the Hub"):
        prepare("huggingface", path=Path("owner/name"), options={})  # tests are offline, see conftest.py
    assert capsys.readouterr().out == (
        "owner/name is no file or folder here: reading the dataset of that name on the Hugging Face Hub\n"
    )


def test_a_path_always_wins_over_an_id_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    parquet_folder(tmp_path / "owner/name")
    assert events_of(huggingface.read(Path("owner/name"))) == EVENTS


def test_a_dataset_of_the_hub_is_read_as_a_folder_is_and_its_commit_noted(tmp_path, monkeypatch):
    folder = tmp_path / f"hub@{'0123456789' * 4}"
    folder.mkdir()
    load = datasets.load_dataset_builder

    def from_hub(path, **options):
        assert path == "owner/name"
        assert "trust_remote_code" not in options
        builder = load(str(csv_folder(folder)), **options)
        files = {name: [f"hf://{file}" for file in files] for name, files in builder.config.data_files.items()}
        if "features" not in options:
            streaming = builder.as_streaming_dataset()
            builder.config.data_files = files
            builder.as_streaming_dataset = lambda: streaming
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", from_hub)
    log = huggingface.read(Path("owner/name"))
    assert events_of(log) == EVENTS
    assert log.notes == {"commit of the dataset": "0123456789" * 4}


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
