"""One's own csv file with the columns user, item, timestamp and title, in any order.

Columns description, brand and category are kept where there are (SETRec reads them); others are ignored.
"""

from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import Interactions
from igd_jax.data.prepared import TEXT_FIELDS
from igd_jax.data.source_io import EventLog, csv_rows, parse_timestamp

_COLUMNS = ("user", "item", "timestamp", "title")


def read(path: Path) -> Interactions:
    """Read the events of a UTF-8 csv file; spaces around cells do not count.

    Timestamps are ISO dates or datetimes (without a zone: UTC), epoch seconds, or epoch milliseconds above 1e11.
    An item keeps the first title, description, brand and category that it is given. Items are numbered in the order in
    which they first appear.

    Raises:
      InputError: a column or a cell is missing, a timestamp cannot be read, or there is no row; with the line.
    """
    log = EventLog()
    titles: dict[str, str] = {}
    texts: dict[str, dict[str, str]] = {name: {} for name in TEXT_FIELDS}
    renamed: set[str] = set()
    for line, cells in csv_rows(path, _COLUMNS, optional=TEXT_FIELDS):
        user, item, when, title, *further = map(str.strip, cells)
        if "" in (user, item, when, title):
            empty = _COLUMNS[(user, item, when, title).index("")]
            raise InputError(f"{path} line {line}: {empty} is empty; fill it or remove the row")
        try:
            log.add(user, item, parse_timestamp(when))
        except ValueError as error:
            raise InputError(
                f"{path} line {line}: cannot read timestamp {when!r} ({error}); expected 2018-01-31,"
                " 2018-01-31T12:00:00 or epoch seconds"
            ) from None
        if titles.setdefault(item, title) != title:
            renamed.add(item)
        for name, text in zip(TEXT_FIELDS, further, strict=True):
            if text:
                texts[name].setdefault(item, text)
    if not titles:
        raise InputError(f"{path} has a header but no rows")
    return log.finish(titles, texts=texts, dropped={"title other than the item's first: items": len(renamed)})
