"""Events of a saved Hugging Face dataset, of files of parquet, csv or JSON lines, or of a dataset on the Hub."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress, say
from igd_jax.data.arrow_columns import as_seconds, as_text, holds_words, without_blanks
from igd_jax.data.hf_datasets import TableDataset, is_hub_id, opened
from igd_jax.data.interactions import Interactions
from igd_jax.data.prepared import TEXT_FIELDS, align_texts
from igd_jax.data.source_io import IdCodes

elsewhere = is_hub_id
"""Which inputs that are no path here may be read all the same."""


def read(
    path: Path,
    *,
    user_column: str = "user",
    item_column: str = "item",
    timestamp_column: str = "timestamp",
    title_column: str = "title",
    hf_subset: str | None = None,
    hf_split: str | None = None,
) -> Interactions:
    """Read the events of one split, or of several joined by "+"; where there are several, one must be chosen.

    Ids and titles are texts or whole numbers; timestamps are read as those of the csv source, and dates and datetimes,
    too. A row without a user, item or time is dropped and counted. An item keeps the first title that it is given, and
    the first description, brand and category, where there are such columns. No name is guessed: which columns are read
    and which are not is printed.

    Raises:
      InputError: nothing that can be read is there, a column is missing or of another kind, or no row is whole.
    """
    columns = {"user": user_column, "item": item_column, "timestamp": timestamp_column, "title": title_column}
    if len(set(columns.values())) < len(columns):
        named = ", ".join(f"--{role}_column={column}" for role, column in columns.items())
        raise InputError(f"a column is one thing only, but they are {named}")
    with opened(path, hf_subset) as dataset:
        splits = _choose_splits(dataset, hf_split)
        say(f"{path}: {dataset.what}, split {'+'.join(splits)}")
        texts = _choose_texts(dataset, columns)
        events = _Events(columns, texts)
        counts = [dataset.splits[split] for split in splits]
        total = None if None in counts else sum(filter(None, counts))
        with Progress(path.name, total, "rows") as progress:
            for split, table in dataset.tables(splits, [*columns.values(), *texts]):
                events.add(table, where=f"{path}, split {split}")
                progress.update(events.n_rows)
        return events.finish(path, dataset.notes)


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


def _choose_texts(dataset: TableDataset, columns: Mapping[str, str]) -> list[str]:
    """Columns with further texts of items; says what every column is taken for."""
    schema = dataset.schema
    if missing := [role for role, column in columns.items() if column not in schema.names]:
        raise InputError(
            f"{dataset.path} has no column {', '.join(columns[role] for role in missing)}; name yours with "
            f"{' '.join(f'--{role}_column=NAME' for role in missing)}, out of {', '.join(schema.names)}"
        )
    free = [name for name in TEXT_FIELDS if name in schema.names and name not in columns.values()]
    texts = [name for name in free if holds_words(schema.field(name).type)]
    others = [name for name in schema.names if name not in (*columns.values(), *texts)]
    taken = [column if role == column else f"{column} as {role}" for role, column in columns.items()]
    say(f"columns: {', '.join(taken + texts)}" + (f"; not read: {', '.join(others)}" if others else ""))
    return texts


class _Events:
    """Collects tables into the columns of `Interactions`."""

    def __init__(self, columns: Mapping[str, str], texts: Sequence[str]):
        self.n_rows = 0
        self._columns = columns
        self._users, self._items, self._titles = IdCodes(), IdCodes(), IdCodes()
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._words: dict[str, dict[str, str]] = {name: {} for name in texts}
        self._dropped: Counter[str] = Counter()

    def add(self, table: pa.Table, *, where: str) -> None:
        """Take the rows that have a user, an item and a time."""
        where = f"{where}, rows {self.n_rows + 1:,} to {self.n_rows + len(table):,}"
        self.n_rows += len(table)
        read = {"timestamp": without_blanks, "user": as_text, "item": as_text, "title": as_text}
        cells = {}
        for role, column in self._columns.items():
            try:
                cells[role] = read[role](table[column].combine_chunks())
            except ValueError as error:
                raise InputError(f"{where}: cannot read column {column} as {role} ({error})") from None
        cells |= {name: as_text(table[name].combine_chunks()) for name in self._words}
        rows = pa.table(cells)
        for role in ("user", "item", "timestamp"):
            whole = rows.filter(rows[role].is_valid())
            self._dropped[f"no {role}: events"] += len(rows) - len(whole)
            rows = whole
        try:
            seconds = as_seconds(rows["timestamp"].combine_chunks())
        except ValueError as error:
            raise InputError(
                f"{where}: cannot read column {self._columns['timestamp']} as timestamp ({error}); expected epoch "
                "seconds or milliseconds, 2018-01-31, 2018-01-31T12:00:00, dates or datetimes"
            ) from None
        item = self._items.encode(rows["item"].combine_chunks())
        title = np.full(len(rows), -1, np.int32)
        titled = rows["title"].is_valid()
        title[titled.to_numpy()] = self._titles.encode(rows["title"].filter(titled).combine_chunks())
        self._parts.append((self._users.encode(rows["user"].combine_chunks()), item, seconds, title))
        for name, words in self._words.items():
            written = rows.select(["item", name]).filter(rows[name].is_valid())
            first = written.group_by("item", use_threads=False).aggregate([(name, "first")])
            for item_id, text in zip(first["item"].to_pylist(), first[f"{name}_first"].to_pylist(), strict=True):
                words.setdefault(item_id, text)

    def finish(self, path: Path, notes: dict[str, str | int]) -> Interactions:
        """All events; raises `InputError` where there is none."""
        if not len(self._items):
            raise InputError(f"none of the {self.n_rows:,} rows of {path} has a user, an item and a time")
        user, item, timestamp, title = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        title_of, n_renamed = _first_titles(item, title, len(self._items))
        titles, item_ids = [*self._titles.ids(), ""], self._items.ids()
        return Interactions(
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


def _first_titles(
    item: Int32[np.ndarray, "events"], title: Int32[np.ndarray, "events"], n_items: int
) -> tuple[Int32[np.ndarray, "items"], int]:
    """Each item's first title, -1 where it has none, and how many items have others as well."""
    item, title = item[title >= 0], title[title >= 0]
    titled, first = np.unique(item, return_index=True)
    title_of = np.full(n_items, -1, np.int32)
    title_of[titled] = title[first]
    return title_of, len(np.unique(item[title != title_of[item]]))
