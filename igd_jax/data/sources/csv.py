"""A csv file of your own, with columns for user, item, timestamp and title in any order and under any names.

Columns for description, brand and category are optional (SETRec reads them).
"""

from array import array
from operator import itemgetter
from pathlib import Path

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shortened, shown
from igd_jax.data.columns import REQUIRED, choose_columns, parse_columns
from igd_jax.data.event_log import EventLog
from igd_jax.data.interactions import Interactions, keep_rated, settle_repeats
from igd_jax.data.prepared import ITEM_FIELDS
from igd_jax.data.source_io import DELIMITERS, csv_table, parse_rating, parse_timestamp


def read(
    path: Path,
    *,
    columns: str = "",
    delimiter: str = ",",
    min_rating: float | None = None,
    duplicates: str = "drop",
) -> Interactions:
    """Read the events of a csv file, gzipped or not; spaces around cells are stripped, also around quotes.

    Timestamps are ISO dates or datetimes (without a zone: UTC), epoch seconds, or epoch milliseconds above 1e11.
    An item keeps its first title, description, brand and category that are not empty; `to_prepared` drops items without
    any title. Items are numbered in order of appearance.

    Args:
      columns: column names by role, see `columns.parse_columns`; one line says which columns are read.
      delimiter: one of `DELIMITERS`.
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "drop" or "keep", see `settle_repeats`.

    Raises:
      InputError: a column is missing, a user, an item or a time is, a value cannot be read, or there is no row; with
        the line.
    """
    named = parse_columns(columns)
    if delimiter not in DELIMITERS:
        raise InputError(f"--delimiter={shown(delimiter)}: expected one of {' '.join(DELIMITERS)}")
    header, rows = csv_table(path, delimiter=DELIMITERS[delimiter], skipinitialspace=True)
    if not header:
        raise InputError(f"{path} is empty; expected a line with the names of columns, and one per event")
    for name, separator in DELIMITERS.items():
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{path} line 1: one column, {shown(header[0])}; is it --delimiter={shown(name)}?")
    is_rated = min_rating is not None
    chosen = choose_columns(header, named, where=f"{path} line 1", rating=is_rated)
    pick = itemgetter(*map(header.index, chosen.values()))
    log, ratings = EventLog(), array("d")
    titles: dict[str, str] = {}
    texts: dict[str, dict[str, str]] = {name: {} for name in ITEM_FIELDS if name in chosen}
    renamed: set[str] = set()
    for line, cells in rows:
        user, item, when, title, *further = map(str.strip, pick(cells))
        if "" in (user, item, when):
            empty = REQUIRED[(user, item, when).index("")]
            raise InputError(f"{path} line {line}: {empty} is empty; fill it or remove the row")
        try:
            log.add(user, item, parse_timestamp(when))
        except ValueError as error:
            raise InputError(
                f"{path} line {line}: cannot read timestamp {shown(when)} ({shortened(str(error))}); expected"
                " 2018-01-31, 2018-01-31T12:00 or epoch (milli)seconds"
            ) from None
        if is_rated:
            ratings.append(parse_rating(further.pop(0), where=f"{path} line {line}"))
        if title and titles.setdefault(item, title) != title:
            renamed.add(item)
        for words, text in zip(texts.values(), further, strict=True):
            if text:
                words.setdefault(item, text)
    events = log.finish(titles, texts=texts, dropped={"title other than the item's first: items": len(renamed)})
    if not len(events):
        raise InputError(f"{path} has a header but no rows")
    return settle_repeats(keep_rated(events, np.array(ratings), min_rating), duplicates)
