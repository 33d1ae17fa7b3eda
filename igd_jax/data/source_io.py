"""What the sources share: reading files whose faults become one clear line, and numbering the ids found in them."""

import csv
import io
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress
from igd_jax.data.interactions import Interactions
from igd_jax.data.prepared import align_texts

_PROGRESS_LINES = 1000


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while `path` is read into `InputError`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not {error.encoding} text ({error.reason} at byte {error.start})") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {path} ({error})") from None


def csv_rows(
    path: Path, columns: tuple[str, ...], *, optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Give (line number, the cells of `columns`, then of `optional`) for each row of a UTF-8 csv file.

    Blank lines are no rows. Cells of an optional column that is not there are empty. All others stay the text they are:
    "None" and "NA" are titles like any other.

    Raises:
      InputError: no such file, empty, a column is missing, or a row has too few, too many or badly quoted cells.
    """
    with (
        reading(path),
        path.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        Progress(path.name, path.stat().st_size, "bytes") as progress,
    ):
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                found = ", ".join(header) or "nothing"
                raise InputError(f"{path} line 1: no column {', '.join(missing)}; the header has {found}")
            pick = itemgetter(*(header.index(name) if name in header else -1 for name in (*columns, *optional)))
            for cells in reader:
                if reader.line_num % _PROGRESS_LINES == 0:
                    progress.update(raw.tell() - 1)
                if len(cells) == len(header):
                    yield reader.line_num, pick([*cells, ""])
                elif cells:
                    raise InputError(
                        f"{path} line {reader.line_num}: {len(cells)} cells where the header has {len(header)};"
                        ' a cell that holds a comma needs quotes: "a, b"'
                    )
        except csv.Error as error:
            raise InputError(f"{path} line {reader.line_num}: {error}") from None


def parse_timestamp(text: str) -> int:
    """Epoch seconds UTC from an ISO date or datetime (without a zone: UTC) or from epoch seconds or milliseconds.

    Numbers above 1e11 are milliseconds (as seconds, they would lie after the year 5138).

    Raises:
      ValueError: it is none of these.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if len(text) == 8 and text[:2] in ("19", "20"):
        raise ValueError("eight digits are a date or epoch seconds: write 2018-01-31 or more digits")
    seconds = number / 1000 if abs(number) > 1e11 else number
    if not abs(seconds) <= 1e11:
        raise ValueError("out of range")
    return int(seconds // 1)


class IdCodes:
    """Numbers strings 0, 1, 2, ... in the order in which they first appear."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def __contains__(self, text: str) -> bool:
        return text in self._codes

    def code(self, text: str) -> int:
        """The number of one string, a new one if it is new."""
        return self._codes.setdefault(text, len(self._codes))

    def encode(self, column: pa.Array) -> Int32[np.ndarray, "events"]:
        """The numbers of a column of strings without nulls; Python sees each distinct string once."""
        coded = column.dictionary_encode()
        codes = np.array([self.code(text) for text in coded.dictionary.to_pylist()], np.int32)
        return codes[coded.indices.to_numpy()]

    def ids(self) -> list[str]:
        """All strings, by number."""
        return list(self._codes)


class EventLog:
    """Collects events one by one into the columns of `Interactions`."""

    def __init__(self) -> None:
        self._users, self._items = IdCodes(), IdCodes()
        self._user, self._item, self._timestamp = array("i"), array("i"), array("q")

    def add(self, user: str, item: str, timestamp: int) -> None:
        """Append an event; time in epoch seconds UTC."""
        self._user.append(self._users.code(user))
        self._item.append(self._items.code(item))
        self._timestamp.append(timestamp)

    def finish(
        self, titles: dict[str, str], *, texts: Mapping[str, Mapping[str, str]], dropped: dict[str, int]
    ) -> Interactions:
        """The log, with `titles` by item id and `texts` by field and item id; an item without one gets a blank."""
        item_ids = self._items.ids()
        return Interactions(
            user=np.array(self._user, np.int32),
            item=np.array(self._item, np.int32),
            timestamp=np.array(self._timestamp, np.int64),
            user_ids=self._users.ids(),
            item_ids=item_ids,
            titles=[titles.get(item, "") for item in item_ids],
            texts=align_texts(texts, item_ids),
            dropped=dropped,
        )
