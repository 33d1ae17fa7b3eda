"""Events from a saved Hugging Face dataset, from parquet, csv or JSON lines files, or from a dataset on the Hub."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int32

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress, say
from igd_jax.core.shown import shortened
from igd_jax.data.arrow_columns import as_numbers, as_seconds, as_text, holds_words, without_blanks
from igd_jax.data.columns import REQUIRED, choose_columns, parse_columns
from igd_jax.data.event_log import IdCodes, align_texts
from igd_jax.data.hf_datasets import TableDataset, is_hub_id, opened
from igd_jax.data.interactions import Interactions, keep_rated, settle_repeats
from igd_jax.data.prepared import ITEM_FIELDS

elsewhere = is_hub_id
"""Whether an input that does not exist as a path can be read."""


def read(
    path: Path,
    *,
    columns: str = "",
    min_rating: float | None = None,
    duplicates: str = "drop",
    hf_subset: str | None = None,
    hf_split: str | None = None,
) -> Interactions:
    """Read the events of one or more splits.

    Ids and titles are texts or whole numbers; timestamps are as in the csv source, or dates or datetimes. Rows without
    a user, item or time are dropped and counted. An item keeps its first title, and its first description, brand and
    category if there are such columns. Column names are not guessed; one line says which columns are read.

    Args:
      columns: column names by role, see `columns.parse_columns`.
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "drop" or "keep", see `settle_repeats`.
      hf_subset: configuration of the dataset.
      hf_split: splits to read, joined by "+"; may be left out if there is only one.

    Raises:
      InputError: there is nothing readable, a column is missing or has another type, or no row is complete.
    """
    named = parse_columns(columns)
    with opened(path, hf_subset) as dataset:
        splits = _choose_splits(dataset, hf_split)
        say(f"{path}: {dataset.what}, split {'+'.join(splits)}")
        schema = dataset.schema
        chosen = choose_columns(
            schema.names,
            named,
            where=str(path),
            rating=min_rating is not None,
            unusable=[field.name for field in schema if field.name in ITEM_FIELDS and not holds_words(field.type)],
        )
        events = _Events(chosen)
        counts = [dataset.splits[split] for split in splits]
        total = None if None in counts else sum(filter(None, counts))
        with Progress(path.name, total, "rows", done=0) as progress:
            for split, table in dataset.tables(splits, list(chosen.values())):
                events.add(table, where=f"{path}, split {split}")
                progress.update(events.n_rows)
        log, ratings = events.finish(path, dataset.notes)
        return settle_repeats(keep_rated(log, ratings, min_rating), duplicates)


def _choose_splits(dataset: TableDataset, wanted: str | None) -> list[str]:
    names = list(dataset.splits)
    if wanted is None and len(names) > 1:
        raise InputError(
            f"{dataset.path} has the splits {', '.join(names)}; choose with --hf_split={names[0]}, or several with "
            f"--hf_split={'+'.join(names)}"
        )
    chosen = names if wanted is None else wanted.split("+")
    if not set(chosen) <= set(names) or len(set(chosen)) < len(chosen):
        raise InputError(f"--hf_split={wanted}: expected splits of {dataset.path}, joined by '+': {', '.join(names)}")
    return chosen


class _Events:
    """Collects tables into `Interactions` and ratings; columns by role come from `choose_columns`."""

    def __init__(self, columns: Mapping[str, str]):
        self.n_rows = 0
        self._columns = columns
        self._users, self._items, self._titles = IdCodes(), IdCodes(), IdCodes()
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._words: dict[str, dict[str, str]] = {name: {} for name in ITEM_FIELDS if name in columns}
        self._dropped: Counter[str] = Counter()

    def add(self, table: pa.Table, *, where: str) -> None:
        """Append the rows that have a user, an item and a time."""
        where = f"{where}, rows {self.n_rows + 1:,} to {self.n_rows + len(table):,}"
        self.n_rows += len(table)
        rows = self._whole_rows(table, where)
        try:
            seconds = as_seconds(rows["timestamp"].combine_chunks())
        except ValueError as error:
            raise InputError(
                f"{where}: cannot read column {self._columns['timestamp']} as timestamp ({shortened(str(error))}); "
                "expected epoch seconds or milliseconds, 2018-01-31, 2018-01-31T12:00:00, dates or datetimes"
            ) from None
        item = self._items.encode(rows["item"].combine_chunks())
        title = np.full(len(rows), -1, np.int32)
        titled = rows["title"].is_valid()
        title[titled.to_numpy()] = self._titles.encode(rows["title"].filter(titled).combine_chunks())
        rating = rows["rating"].to_numpy() if "rating" in self._columns else np.full(len(rows), np.nan)
        self._parts.append((self._users.encode(rows["user"].combine_chunks()), item, seconds, title, rating))
        for name, words in self._words.items():
            written = rows.select(["item", name]).filter(rows[name].is_valid())
            first = written.group_by("item", use_threads=False).aggregate([(name, "first")])
            for item_id, text in zip(first["item"].to_pylist(), first[f"{name}_first"].to_pylist(), strict=True):
                words.setdefault(item_id, text)

    def _whole_rows(self, table: pa.Table, where: str) -> pa.Table:
        """Columns by role of the rows that have a user, an item and a time; other rows are counted."""
        read = {"timestamp": without_blanks, "rating": as_numbers}
        cells = {}
        for role, column in self._columns.items():
            try:
                cells[role] = read.get(role, as_text)(table[column].combine_chunks())
            except ValueError as error:
                reason = shortened(str(error))
                raise InputError(f"{where}: cannot read column {column} as {role} ({reason})") from None
        rows = pa.table(cells)
        for role in REQUIRED[:3]:
            whole = rows.filter(rows[role].is_valid())
            self._dropped[f"no {role}: events"] += len(rows) - len(whole)
            rows = whole
        return rows

    def finish(self, path: Path, notes: dict[str, str | int]) -> tuple[Interactions, Float64[np.ndarray, " events"]]:
        """All events and their ratings, NaN if missing; raises `InputError` if there is no event."""
        if not len(self._items):
            raise InputError(f"none of the {self.n_rows:,} rows of {path} has a user, an item and a time")
        user, item, timestamp, title, ratings = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        title_of, n_renamed = _first_titles(item, title, len(self._items))
        titles, item_ids = [*self._titles.ids(), ""], self._items.ids()
        log = Interactions(
            user=user,
            item=item,
            timestamp=timestamp,
            user_ids=self._users.ids(),
            item_ids=item_ids,
            titles=[titles[code] for code in title_of],
            texts=align_texts(self._words, item_ids),
            dropped={**self._dropped, "title other than the item's first: items": n_renamed},
            notes=notes,
        )
        return log, ratings


def _first_titles(
    item: Int32[np.ndarray, " events"], title: Int32[np.ndarray, " events"], n_items: int
) -> tuple[Int32[np.ndarray, " items"], int]:
    """The first title of each item, -1 if it has none, and the number of items with several titles."""
    item, title = item[title >= 0], title[title >= 0]
    titled, first = np.unique(item, return_index=True)
    title_of = np.full(n_items, -1, np.int32)
    title_of[titled] = title[first]
    return title_of, len(np.unique(item[title != title_of[item]]))
