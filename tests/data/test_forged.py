"""A prepared folder that was forged, fingerprint and all: every number in it is checked before it is used."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_run

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data import assembling
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import load, save


@pytest.fixture
def forge(tiny, tmp_path):
    """Write a folder whose train split has some columns changed, with the fingerprint that belongs to it."""

    def write(**columns):
        splits = dict(load(tiny / "data").splits)
        splits["train"] = replace(splits["train"], **columns)
        forged = assemble(item_ids=tiny_run.ITEM_IDS, titles=tiny_run.TITLES, splits=splits, dropped={}, notes={})
        save(forged, tmp_path / "data")
        return tmp_path / "data"

    return write


N = tiny_run.N_ROWS["train"]
N_ITEMS = len(tiny_run.TITLES)


@pytest.mark.parametrize("item", [-1, N_ITEMS, 2**31 - 1])
def test_items_that_are_not_in_the_catalogue(forge, item):
    with pytest.raises(InputError, match=rf"target in .*train.parquet: number 3 of them is {item}; expected 0 to 22; "):
        load(forge(target=np.where(np.arange(N) == 3, item, 0).astype(np.int32)))
    history = Ragged(np.full(N, item, np.int32), np.arange(N + 1))
    with pytest.raises(InputError, match=rf"history in .*: number 0 of them is {item}; .*; run igd_jax.prepare again"):
        load(forge(history=history))


def test_times_that_no_date_is_of(forge, monkeypatch):
    monkeypatch.setattr(assembling, "iso_time", str)  # which would refuse to write the folder
    with pytest.raises(InputError, match=r"timestamp in .*: number 0 of them is 9223372036854775807; expected -62,"):
        load(forge(timestamp=np.full(N, 2**63 - 1)))


def test_a_split_without_rows(forge, tmp_path):
    folder = forge()
    pq.write_table(pq.read_table(folder / "valid.parquet").slice(0, 0), folder / "valid.parquet")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match=r"the files have ([0-9a-f]{16})") as caught:
        load(folder)
    meta["fingerprint"] = str(caught.value).split("have ")[1][:16]
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(InputError, match=r"valid.parquet has no rows; run igd_jax.prepare again"):
        load(folder)


def test_histories_with_a_hole(forge):
    folder = forge()
    table = pq.read_table(folder / "test.parquet")
    holes = pa.array([[None, 1]] * len(table), pa.list_(pa.int32()))
    pq.write_table(table.set_column(1, table.schema.field(1), holes), folder / "test.parquet")
    with pytest.raises(InputError, match=r"test.parquet does not hold the columns user, history, target, timestamp"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": None}, r"tells of 23 items and rows None, the files have 23 and \{'train': 90,"),
        ({"rows": {"train": 90}}, r"tells of 23 items and rows \{'train': 90\}, the files have"),
        ({"items": 22}, r"tells of 22 items"),
        ({"users": "many"}, r"has users 'many' and dates \[.*\]; expected a number and two; run igd_jax.prepare again"),
        ({"dates": ["2020-01-01"]}, r"has users 125 and dates \['2020-01-01'\]; expected a number and two"),
    ],
)
def test_a_description_of_something_else(forge, change, message):
    path = forge() / "meta.json"
    meta = json.loads(path.read_text(encoding="utf-8")) | change
    path.write_text(json.dumps({name: value for name, value in meta.items() if value is not None}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load(path.parent)
