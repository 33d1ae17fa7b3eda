"""The prepared folder: a catalogue and three splits of rows as parquet files, and a meta.json that vouches for them."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int, Int32, Int64, Shaped

from igd_jax.core import io
from igd_jax.core.arrays import check_range
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint, json_list
from igd_jax.core.ragged import Ragged, starts_of

SCHEMA_VERSION = 1
SPLITS = ("train", "valid", "test")
TEXT_FIELDS = ("description", "brand", "category")
"""What else may be known of items in words, in the order in which it is kept."""
ITEM_FIELDS = (*TEXT_FIELDS, "code")
"""All that may be kept of items beside id and title; of a code, see `parts_of_code`."""

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""Epoch seconds of the first and the last second that a date can be written of: years 1 to 9999."""
AGAIN = "run igd_jax.prepare again"

_ITEMS_SCHEMA = pa.schema([("item", pa.int32()), ("id", pa.string()), ("title", pa.string())])
_SEEN = "seen_beside_rows"
_MORE_OF_ITEMS = [*((name, pa.string()) for name in ITEM_FIELDS), (_SEEN, pa.bool_())]
_ROWS_SCHEMA = pa.schema(
    [("user", pa.string()), ("history", pa.list_(pa.int32())), ("target", pa.int32()), ("timestamp", pa.int64())]
)
_BETWEEN_PARTS = re.compile(r"[\s,]+|(?<=>)(?=<)")


def parts_of_code(code: str) -> list[str]:
    """Parts of an item's code, which are apart by white space or commas, or stand in angle brackets: ``<a_1><b_2>``."""
    return [part for part in _BETWEEN_PARTS.split(code) if part]


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples before tokens: a user's past items and the next one. Items are catalogue indices.

    Attributes:
      user: the source's own user ids, an object array of str.
      history: items before each target, oldest first.
      target: the item that followed.
      timestamp: time of the target, epoch seconds UTC.
    """

    user: Shaped[np.ndarray, " rows"]
    history: Ragged
    target: Int32[np.ndarray, " rows"]
    timestamp: Int64[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.target)

    def seen(self, n_items: int) -> Bool[np.ndarray, " items"]:
        """Items that these rows have as a target or in a history."""
        seen = np.zeros(n_items, bool)
        seen[self.target] = seen[self.history.ids] = True
        return seen

    def take(self, index: Int[np.ndarray, " taken"]) -> "Rows":
        """The rows at `index`, in that order."""
        return Rows(self.user[index], self.history.take(index), self.target[index], self.timestamp[index])


@dataclass(frozen=True, eq=False)
class Prepared:
    """What every later stage starts from.

    Attributes:
      item_ids: the source's own item ids, by catalogue index.
      titles: item titles, by catalogue index; several items may share one.
      splits: "train", "valid" and "test".
      meta: what meta.json holds: counts, dates, everything dropped by reason, fingerprint, and where it came from.
      texts: those of `ITEM_FIELDS` that the source has, by catalogue index; blank where an item has none.
      seen_beside_rows: items of train that none of its rows holds; None where there are none.
    """

    item_ids: list[str]
    titles: list[str]
    splits: dict[str, Rows]
    meta: dict[str, Any]
    texts: dict[str, list[str]] = field(default_factory=dict)
    seen_beside_rows: Bool[np.ndarray, " items"] | None = None

    @property
    def words(self) -> dict[str, list[str]]:
        """Those of `texts` that are words about the items."""
        return {name: column for name, column in self.texts.items() if name in TEXT_FIELDS}

    def seen(self, used: Rows) -> Bool[np.ndarray, " items"]:
        """Items that training sees: those of the train rows in use and, where all rows are, those beside them."""
        seen, is_whole = used.seen(len(self.titles)), len(used) == len(self.splits["train"])
        return seen if self.seen_beside_rows is None or not is_whole else seen | self.seen_beside_rows


def headline(meta: dict[str, Any]) -> str:
    """One line about a prepared folder: counts, dates, fingerprint."""
    rows = ", ".join(f"{split} {meta['rows'][split]:,}" for split in SPLITS)
    first, last = (date[:10] for date in meta["dates"])
    return (
        f"data: users {meta['users']:,}, items {meta['items']:,}, rows {rows}, dates {first} to {last}, "
        f"fingerprint {meta['fingerprint']}"
    )


def save(prepared: Prepared, folder: Path) -> None:
    """Write the folder whole or not at all; an older prepared folder of that name is replaced.

    Raises:
      InputError: something else lies there.
    """
    folder = Path(os.path.abspath(folder))
    io.check_replaceable(folder)
    items = {
        "item": pa.array(np.arange(len(prepared.item_ids), dtype=np.int32)),
        "id": pa.array(prepared.item_ids, pa.string()),
        "title": pa.array(prepared.titles, pa.string()),
        **{name: pa.array(column, pa.string()) for name, column in prepared.texts.items()},
    }
    if prepared.seen_beside_rows is not None:
        items[_SEEN] = pa.array(prepared.seen_beside_rows)
    with io.atomic_folder(folder) as partial:
        pq.write_table(pa.table(items), partial / "items.parquet")
        for split, rows in prepared.splits.items():
            pq.write_table(_rows_table(rows), partial / f"{split}.parquet")
        io.write_json(partial / "meta.json", prepared.meta)


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of a prepared folder, whose other files are not read.

    Raises:
      InputError: it is missing, or another version of the project wrote it.
    """
    if not (folder / "meta.json").is_file():
        raise InputError(f"{folder} is not a prepared folder (no meta.json in it); make one with igd_jax.prepare")
    meta = io.read_json(folder / "meta.json")
    version = meta.get("schema_version") if isinstance(meta, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{folder} has schema version {version}; this program reads {SCHEMA_VERSION}: {AGAIN}")
    return meta


def load(folder: Path) -> Prepared:
    """Read a prepared folder and check that it is what was written.

    Raises:
      InputError: a file is missing, damaged, altered or forged, or another version of the project wrote it.
    """
    meta = read_meta(folder)
    items = _read_table(folder / "items.parquet", _ITEMS_SCHEMA, further=_MORE_OF_ITEMS)
    item_ids, titles = items["id"].to_pylist(), items["title"].to_pylist()
    texts = {name: items[name].to_pylist() for name in items.column_names if name in ITEM_FIELDS}
    beside = np.array(items[_SEEN].to_pylist(), bool) if _SEEN in items.column_names else None
    splits = {split: _table_rows(_read_table(folder / f"{split}.parquet", _ROWS_SCHEMA)) for split in SPLITS}
    pa.default_memory_pool().release_unused()  # several times what the rows have
    found = fingerprint_of(prepared := Prepared(item_ids, titles, splits, meta, texts, beside))
    if found != meta.get("fingerprint"):
        raise InputError(
            f"{folder} was altered: meta.json says fingerprint {meta.get('fingerprint')}, the files have {found};"
            f" {AGAIN}"
        )
    for split, rows in splits.items():
        _check_rows(folder / f"{split}.parquet", rows, n_items=len(item_ids))
    _check_meta(folder / "meta.json", meta, n_items=len(item_ids), splits=splits)
    return prepared


def _rows_table(rows: Rows) -> pa.Table:
    history = pa.ListArray.from_arrays(pa.array(rows.history.start).cast(pa.int32()), pa.array(rows.history.ids))
    columns = {
        "user": pa.array(rows.user, pa.string()),
        "history": history,
        "target": pa.array(rows.target),
        "timestamp": pa.array(rows.timestamp),
    }
    return pa.table(columns, schema=_ROWS_SCHEMA)


def _check_meta(path: Path, meta: dict[str, Any], *, n_items: int, splits: dict[str, Rows]) -> None:
    """Raise `InputError` unless meta.json says of the files what they hold, as far as anything is read from it."""
    rows = {split: len(rows) for split, rows in splits.items()}
    if (meta.get("items"), meta.get("rows")) != (n_items, rows):
        raise InputError(
            f"{path} tells of {meta.get('items')} items and rows {meta.get('rows')}, the files have {n_items} and "
            f"{rows}; {AGAIN}"
        )
    dates = meta.get("dates")
    if not isinstance(meta.get("users"), int) or not isinstance(dates, list) or [*map(type, dates)] != [str, str]:
        raise InputError(
            f"{path} has users {meta.get('users')!r} and dates {dates!r}; expected a number and two; {AGAIN}"
        )


def _check_rows(path: Path, rows: Rows, *, n_items: int) -> None:
    """Raise `InputError` unless there are rows, of items of the catalogue, at times that can be written as dates."""
    if not len(rows):
        raise InputError(f"{path} has no rows; {AGAIN}")
    for name, items in (("target", rows.target), ("history", rows.history.ids)):
        check_range(f"{name} in {path}", items, 0, n_items - 1, remedy=AGAIN)
    check_range(f"timestamp in {path}", rows.timestamp, EARLIEST, LATEST, remedy=AGAIN)


def _table_rows(table: pa.Table) -> Rows:
    # One str per user, not per row; and before chunks are combined, as one array of texts holds at most 2 GiB.
    user = table["user"].dictionary_encode().combine_chunks()
    history, target, timestamp = (table[name].combine_chunks() for name in _ROWS_SCHEMA.names[1:])
    return Rows(
        user=np.array(user.dictionary.to_pylist(), object)[_numbers(user.indices)],
        history=Ragged(_numbers(history.flatten()), starts_of(_numbers(history.value_lengths()))),
        target=_numbers(target),
        timestamp=_numbers(timestamp),
    )


def _numbers(column: pa.Array) -> np.ndarray:
    """A column without nulls; Arrow's own way would import pandas, which takes longer than a small folder."""
    return np.from_dlpack(column)


def _read_table(path: Path, schema: pa.Schema, *, further: Sequence[tuple[str, pa.DataType]] = ()) -> pa.Table:
    """The table of `schema`, which may end in some of the `further` columns."""
    if not path.is_file():
        raise InputError(f"{path} is missing; {AGAIN}")
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged ({error}); {AGAIN}") from None
    more = [pa.field(name, dtype) for name, dtype in further if name in table.column_names]
    if not table.schema.equals(pa.schema([*schema, *more])) or any(map(_has_nulls, table.columns)):
        raise InputError(f"{path} does not hold the columns {', '.join(schema.names)}; {AGAIN}")
    return table


def _has_nulls(column: pa.ChunkedArray) -> bool:
    inside = pc.list_flatten(column).null_count if pa.types.is_list(column.type) else 0
    return bool(column.null_count or inside)


def fingerprint_of(prepared: Prepared) -> str:
    """Fingerprint of all ids, titles, texts and rows; of `meta` nothing is read."""
    parts: list[bytes | str | np.ndarray] = [json_list(prepared.item_ids), json_list(prepared.titles)]
    parts += [json.dumps(prepared.texts)] if prepared.texts else []
    parts += [] if prepared.seen_beside_rows is None else [_SEEN, prepared.seen_beside_rows]
    for split in SPLITS:
        rows = prepared.splits[split]
        parts += [split, json_list(rows.user), rows.history.ids, rows.history.start, rows.target, rows.timestamp]
    return fingerprint(*parts)
