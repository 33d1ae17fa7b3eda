"""The prepared folder comes back as it was written, or with one clear line why not."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from igd_jax.core import fingerprint as fingerprints
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data import prepared as folders
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import Rows, load, save

ROOT = Path(__file__).resolve().parents[2]
TITLES = ["None", "NA", "Tab\tand, comma", "Ünïcode 書 🎲", "NA"]


def make_rows(user, history, target, timestamp):
    return Rows(
        user=np.array(user, object),
        history=Ragged.from_lists(history),
        target=np.array(target, np.int32),
        timestamp=np.array(timestamp, np.int64),
    )


@pytest.fixture
def small():
    splits = {
        "train": make_rows(["a", "b", "a"], [[0], [1, 2, 3], [0, 4]], [1, 0, 2], [10, 11, 12]),
        "valid": make_rows(["b"], [[2, 3]], [4], [20]),
        "test": make_rows(["007"], [[4]], [3], [1541030400]),
    }
    ids = [f"B00{i}" for i in range(5)]
    return assemble(item_ids=ids, titles=TITLES, splits=splits, dropped={"x: rows": 3, "y: rows": 0}, notes={"n": 1})


@pytest.fixture
def saved(small, tmp_path):
    save(small, tmp_path / "data")
    return tmp_path / "data"


def assert_same_rows(a, b):
    assert a.user.tolist() == b.user.tolist()
    for name in ("history.ids", "history.start", "target", "timestamp"):
        x, y = map(attrgetter(name), (a, b))
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_folder_comes_back_as_it_was_written(small, saved):
    back = load(saved)
    assert (back.item_ids, back.titles, back.meta) == (small.item_ids, small.titles, small.meta)
    assert list(back.splits) == ["train", "valid", "test"]
    for name, rows in small.splits.items():
        assert_same_rows(back.splits[name], rows)
    assert not list(saved.parent.glob("*.partial"))


def test_files_have_the_agreed_columns(saved):
    items, rows = pq.read_table(saved / "items.parquet"), pq.read_table(saved / "train.parquet")
    assert items.to_pylist()[3] == {"item": 3, "id": "B003", "title": TITLES[3]}
    assert rows.to_pylist()[1] == {"user": "b", "history": [1, 2, 3], "target": 0, "timestamp": 11}
    assert rows.schema.field("history").type == pa.list_(pa.int32())


def test_texts_come_back_if_there_are_any_and_belong_to_the_fingerprint(small, tmp_path):
    known = {"item_ids": small.item_ids, "titles": small.titles, "splits": small.splits, "dropped": {}, "notes": {}}
    texts = {"description": ["a, b", "", "", "", "書"], "category": ["x"] * 5}
    worded = assemble(**known, texts=texts)
    assert worded.meta["items_with_text"] == {"description": 2, "category": 5}
    save(worded, tmp_path / "data")
    assert load(tmp_path / "data").texts == texts
    assert load(tmp_path / "data").meta == worded.meta
    marks = [small, worded, assemble(**known, texts=texts | {"category": ["y"] * 5})]
    assert len({one.meta["fingerprint"] for one in marks}) == 3
    table = pq.read_table(tmp_path / "data" / "items.parquet")
    for broken, message in (
        (table.set_column(3, "description", table["category"]), "was altered"),
        (table.append_column("author", table["title"]), "does not hold the columns item, id, title"),
        (table.set_column(3, "description", pa.array(range(5))), "does not hold the columns item, id, title"),
    ):
        pq.write_table(broken, tmp_path / "data" / "items.parquet")
        with pytest.raises(InputError, match=message):
            load(tmp_path / "data")


def test_meta_counts_the_data(small):
    meta = small.meta
    assert (meta["users"], meta["items"]) == (3, 5)
    assert meta["rows"] == {"train": 3, "valid": 1, "test": 1}
    assert meta["dates"] == ["1970-01-01T00:00:10Z", "2018-11-01T00:00:00Z"]
    assert meta["dropped"] == {"x: rows": 3}
    assert meta["titles_shared_by_several_items"] == 1
    assert meta["items_with_a_shared_title"] == 2


def test_histories_that_cannot_be_written_are_refused(small):
    rows = small.splits["train"]
    many = dataclasses.replace(rows, history=Ragged(rows.history.ids, np.array([0, 0, 0, 2**31])))
    with pytest.raises(InputError, match=r"train has histories of 2,147,483,648 items, 2\^31 or more; limit them"):
        assemble(item_ids=small.item_ids, titles=TITLES, splits=small.splits | {"train": many}, dropped={}, notes={})


def test_take_gathers_whole_rows_in_the_asked_order(small):
    rows = small.splits["train"].take(np.array([2, 1, 2]))
    assert [rows.history[r].tolist() for r in range(len(rows))] == [[0, 4], [1, 2, 3], [0, 4]]
    assert (rows.user.tolist(), rows.target.tolist()) == (["a", "b", "a"], [2, 0, 2])
    assert len(small.splits["train"].take(np.array([], np.int64))) == 0


def test_seen_items_are_targets_or_in_a_history(small):
    assert small.splits["train"].seen(6).tolist() == [True, True, True, True, True, False]
    assert small.splits["valid"].seen(5).tolist() == [False, False, True, True, True]


def test_fingerprint_sees_every_part(small):
    train = small.splits["train"]
    shifted = dataclasses.replace(train, history=Ragged(train.history.ids, np.array([0, 2, 4, 6])))
    others = [
        (small.titles[::-1], small.splits),
        (small.titles, small.splits | {"train": dataclasses.replace(train, target=train.target[::-1].copy())}),
        (small.titles, small.splits | {"train": dataclasses.replace(train, user=train.user[[0, 1, 1]])}),
        (small.titles, small.splits | {"train": dataclasses.replace(train, timestamp=train.timestamp + 1)}),
        (small.titles, small.splits | {"train": shifted}),
        (small.titles, {**small.splits, "valid": small.splits["test"], "test": small.splits["valid"]}),
    ]
    prints = {
        assemble(item_ids=small.item_ids, titles=titles, splits=splits, dropped={}, notes={}).meta["fingerprint"]
        for titles, splits in others
    }
    assert len(prints | {small.meta["fingerprint"]}) == len(others) + 1


@pytest.mark.parametrize("at_once", [2, 1 << 16])
def test_the_fingerprint_of_a_folder_never_changes(small, monkeypatch, at_once):
    monkeypatch.setattr(fingerprints, "_AT_ONCE", at_once)
    known = {"item_ids": small.item_ids, "titles": small.titles, "splits": small.splits, "dropped": {}, "notes": {}}
    assert assemble(**known).meta["fingerprint"] == "1b9e3116190328f7"
    assert assemble(**known, texts={"brand": ["x", "", "書", "", ""]}).meta["fingerprint"] == "c823b71fe629cb2f"


def test_a_user_is_one_text_however_many_rows_there_are(saved):
    users = load(saved).splits["train"].user
    assert users[0] is users[2]


def test_user_ids_may_have_more_than_two_gibibytes_in_all_rows():
    names = [letter * 2**20 for letter in "ab"]
    user = pa.chunked_array([pa.array([name]) for name in names] * 1025)  # Arrow holds each text once here
    n_rows = len(user)
    table = pa.table(
        {
            "user": user,
            "history": pa.array([[0]] * n_rows, pa.list_(pa.int32())),
            "target": pa.array([1] * n_rows, pa.int32()),
            "timestamp": pa.array(range(n_rows), pa.int64()),
        }
    )
    rows = folders._table_rows(table)
    assert len(rows) == n_rows
    assert set(rows.user[::2]) == {names[0]}
    assert set(rows.user[1::2]) == {names[1]}


def test_reading_a_folder_does_not_import_pandas(saved):
    program = (
        "import sys; from pathlib import Path; from igd_jax.data.prepared import load; "
        "load(Path(sys.argv[1])); assert 'pandas' not in sys.modules"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program, str(saved)], env=env, check=True)


def test_altered_rows_are_noticed(saved):
    table = pq.read_table(saved / "train.parquet")
    pq.write_table(table.slice(1), saved / "train.parquet")
    with pytest.raises(InputError, match="was altered"):
        load(saved)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("valid.parquet", None, "valid.parquet is missing"),
        ("valid.parquet", b"PAR1 but nothing else", "valid.parquet is damaged"),
        ("items.parquet", b"", "items.parquet is damaged"),
        ("meta.json", None, "is not a prepared folder"),
        ("meta.json", b"{", "is not valid JSON"),
        ("meta.json", b"[]", "schema version None"),
        ("meta.json", b'{"schema_version": 99}', "schema version 99; this program reads 1"),
    ],
)
def test_damage_is_told_in_one_line(saved, name, content, message):
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(saved)


def test_cut_parquet_is_damage(saved):
    whole = (saved / "train.parquet").read_bytes()
    (saved / "train.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train\.parquet is damaged"):
        load(saved)


def test_other_columns_are_refused(saved):
    table = pq.read_table(saved / "test.parquet")
    pq.write_table(table.set_column(2, "target", table["target"].cast(pa.int64())), saved / "test.parquet")
    with pytest.raises(InputError, match="does not hold the columns user, history, target, timestamp"):
        load(saved)


def test_older_prepared_folder_is_replaced_whole(small, saved):
    renamed = dataclasses.replace(small, meta=small.meta | {"notes": {"second": 2}})
    save(renamed, saved)
    assert load(saved).meta["notes"] == {"second": 2}
    assert {path.name for path in saved.parent.iterdir()} == {"data"}


@pytest.mark.parametrize("foreign", ["thesis.tex", "train.parquet"])
def test_foreign_files_are_left_alone(small, tmp_path, foreign):
    (tmp_path / foreign).write_text("years of work")
    with pytest.raises(InputError, match=f"holds '{foreign}', which this program did not write"):
        save(small, tmp_path)
    assert (tmp_path / foreign).read_text() == "years of work"


def test_notes_beside_the_prepared_files_are_left_alone(small, saved):
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        save(small, saved)
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_file_is_no_output_folder(small, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match="is a file"):
        save(small, tmp_path / "data")


def test_failed_write_leaves_nothing(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.io, "write_json", full)
    with pytest.raises(OSError, match="No space left on device"):
        save(small, tmp_path / "data")
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from igd_jax.data.interactions import to_prepared
from igd_jax.data.prepared import save
from igd_jax.data.sources import synthetic

write = pq.write_table
def write_until_valid(table, path):
    write(table, path)
    if path.name == "valid.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
pq.write_table = write_until_valid
save(to_prepared(synthetic.read(None, n_items=20, n_users=20, n_events=100)), Path(sys.argv[1]))
"""


def kill_while_saving(folder):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed_save_leaves_nothing_that_looks_finished(small, tmp_path):
    kill_while_saving(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    for leftover in tmp_path.iterdir():
        with pytest.raises(InputError, match="is not a prepared folder"):
            load(leftover)
    save(small, tmp_path / "data")
    assert load(tmp_path / "data").meta == small.meta


def test_killed_save_keeps_the_older_folder(small, saved):
    kill_while_saving(saved)
    assert load(saved).meta == small.meta


def test_meta_is_json_that_scripts_can_read(small, saved):
    assert json.loads((saved / "meta.json").read_text(encoding="utf-8")) == small.meta
