"""Builds an event log event by event, or the rows of a split row by row, and numbers ids."""

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from igd_jax.core.ragged import Ragged, starts_of
from igd_jax.data.interactions import Interactions
from igd_jax.data.prepared import ITEM_FIELDS, Rows


class IdCodes:
    """Numbers strings 0, 1, 2, ... in the order in which they first appear."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def __contains__(self, text: str) -> bool:
        return text in self._codes

    def code(self, text: str) -> int:
        """The number of a string; a new string gets the next number."""
        return self._codes.setdefault(text, len(self._codes))

    def encode(self, column: pa.Array) -> Int32[np.ndarray, " events"]:
        """The numbers of a column of strings without nulls; each distinct string is looked up once."""
        coded = column.dictionary_encode()
        codes = np.array([self.code(text) for text in coded.dictionary.to_pylist()], np.int32)
        return codes[coded.indices.to_numpy()]

    def ids(self) -> list[str]:
        """All strings, ordered by number."""
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
        self, titles: Mapping[str, str], *, texts: Mapping[str, Mapping[str, str]], dropped: dict[str, int]
    ) -> Interactions:
        """The log, with `titles` by item id and `texts` by field and item id; missing ones are blank."""
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


class RowLog:
    """Collects rows one by one into the columns of `Rows`."""

    def __init__(self) -> None:
        self._user: list[str] = []
        self._history, self._length = array("i"), array("q")
        self._target, self._timestamp = array("i"), array("q")

    def add(self, user: str, history: Sequence[int], target: int, timestamp: int) -> None:
        """Append a row; items are catalogue indices, oldest first, and the time is in epoch seconds UTC."""
        self._user.append(user)
        self._history.extend(history)
        self._length.append(len(history))
        self._target.append(target)
        self._timestamp.append(timestamp)

    def finish(self) -> Rows:
        """The rows, in the order in which they were added."""
        return Rows(
            user=np.array(self._user, object),
            history=Ragged(np.array(self._history, np.int32), starts_of(np.array(self._length, np.int64))),
            target=np.array(self._target, np.int32),
            timestamp=np.array(self._timestamp, np.int64),
        )


def align_texts(texts: Mapping[str, Mapping[str, str]], item_ids: Sequence[str]) -> dict[str, list[str]]:
    """Texts by field and item id as lists in the order of the items; fields that no item has are left out."""
    found = {name: [texts[name].get(item, "") for item in item_ids] for name in ITEM_FIELDS if name in texts}
    return {name: column for name, column in found.items() if any(column)}
