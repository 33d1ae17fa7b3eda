"""Requests for recommendations: a history, and what may be recommended after it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool

from igd_jax.core.errors import InputError
from igd_jax.items.index import ItemIndex


@dataclass(frozen=True)
class Request:
    """What somebody wants to know.

    Attributes:
      history: titles or item ids, oldest first.
      id: name of the request, given back with its answer.
      candidates: titles or item ids that may be recommended; None = all candidates of the run.
      exclude_history: whether items of the history are left out.
    """

    history: tuple[str, ...]
    id: str | None = None
    candidates: tuple[str, ...] | None = None
    exclude_history: bool = False


KINDS = {"id": (str, "a text"), "exclude_history": (bool, "true or false")}


def read_request(value: Any) -> Request:
    """A request from a JSON object with the fields of `Request`.

    Raises:
      InputError: it is none.
    """
    if not isinstance(value, Mapping):
        raise InputError(f'a request is {_shown(value)}; expected an object such as {{"history": ["Title A"]}}')
    known = [field.name for field in fields(Request)]
    if unknown := sorted(set(value) - set(known)):
        raise InputError(f"a request has the field {unknown[0]!r}; expected {', '.join(known)}")
    given = {name: each for name, each in value.items() if each is not None}
    for name, (kind, noun) in KINDS.items():
        if name in given and not isinstance(given[name], kind):
            raise InputError(f"{name} is {_shown(given[name])}; expected {noun}")
    for name in ("history", "candidates"):
        texts = given.get(name, ())
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name} is {_shown(texts)}; expected a list of titles or item ids")
    if not given.get("history"):
        raise InputError("a request has no history; name at least one title or item id, oldest first")
    candidates = tuple(given["candidates"]) if "candidates" in given else None
    return Request(**given | {"history": tuple(given["history"]), "candidates": candidates})


@dataclass(frozen=True)
class Resolved:
    """A request in the numbers of a catalogue.

    Attributes:
      items: item of each entry of the history; None where the catalogue has none of that name.
      allowed: catalogue rows that may be recommended; None = all candidates.
    """

    items: tuple[int | None, ...]
    allowed: Bool[np.ndarray, " N"] | None


class ItemNames:
    """Items by title and by id; a title goes before an id that reads the same, and the first item before others."""

    def __init__(self, index: ItemIndex, item_ids: Sequence[str]):
        self._index = index
        backwards = range(len(item_ids) - 1, -1, -1)
        self._item = {item_ids[item]: item for item in backwards} | {index.titles[item]: item for item in backwards}

    def resolve(self, request: Request) -> Resolved:
        """Find the items of a request.

        Raises:
          InputError: an unknown candidate, or nothing is left to recommend.
        """
        items = tuple(self._item.get(entry) for entry in request.history)
        if request.candidates is None and not request.exclude_history:
            return Resolved(items, None)
        allowed = self._index.is_candidate.copy()
        if request.candidates is not None:
            allowed &= self._rows(self._known(request.candidates))
        if request.exclude_history:
            allowed &= ~self._rows(item for item in items if item is not None)
        if not allowed.any():
            raise InputError(
                "a request leaves nothing to recommend: none of its candidates is a candidate of the run that the "
                "history does not hold; name others, or set exclude_history to false"
            )
        return Resolved(items, allowed)

    def _known(self, names: Iterable[str]) -> list[int]:
        found = {name: self._item.get(name) for name in names}
        if missing := [name for name, item in found.items() if item is None]:
            raise InputError(f"a request names the candidate {missing[0]!r}, which the catalogue does not have")
        return [item for item in found.values() if item is not None]

    def _rows(self, items: Iterable[int]) -> Bool[np.ndarray, " N"]:
        rows = np.zeros(len(self._index.catalog), bool)
        rows[self._index.catalog.row_of_item[list(items)]] = True
        return rows


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
