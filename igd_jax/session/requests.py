"""Requests for recommendations: a history, and restrictions of the candidates."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shown
from igd_jax.items.index import ItemIndex


@dataclass(frozen=True)
class Request:
    """A request for recommendations.

    Attributes:
      history: titles or item ids, oldest first.
      id: name of the request, repeated in its answer.
      candidates: titles or item ids that may be recommended; None = all candidates of the run.
      exclude_history: whether items of the history are left out.
    """

    history: tuple[str, ...]
    id: str | None = None
    candidates: tuple[str, ...] | None = None
    exclude_history: bool = False


def read_request(value: Any) -> Request:
    """Check a request, or a JSON object with its fields.

    Raises:
      InputError: the value is not a request.
    """
    if isinstance(value, Request):
        value = vars(value)
    if not isinstance(value, Mapping):
        raise InputError(f'a request is {shown(value)}; expected an object such as {{"history": ["Title A"]}}')
    known = [field.name for field in fields(Request)]
    if unknown := sorted(set(value) - set(known)):
        raise InputError(f"a request has the field {shown(unknown[0])}; expected {', '.join(known)}")
    given = {name: each for name, each in value.items() if each is not None}
    if "id" in given and not _is_text(given["id"]):
        raise InputError(f"id is {shown(given['id'])}; expected a text")
    if not isinstance(given.get("exclude_history", False), bool):
        raise InputError(f"exclude_history is {shown(given['exclude_history'])}; expected true or false")
    for name in ("history", "candidates"):
        texts = given.get(name, ())
        if not isinstance(texts, list | tuple) or not all(map(_is_text, texts)):
            raise InputError(f"{name} is {shown(texts)}; expected a list of titles or item ids")
    if not given.get("history"):
        raise InputError("a request has no history; name at least one title or item id, oldest first")
    candidates = tuple(given["candidates"]) if "candidates" in given else None
    return Request(**given | {"history": tuple(given["history"]), "candidates": candidates})


@dataclass(frozen=True)
class Allowed:
    """A subset of the candidates, stored as row numbers, as masks of many requests would need much memory.

    Attributes:
      only: catalogue rows that may be recommended; None = all.
      without: catalogue rows that may not be recommended.
    """

    only: Int[np.ndarray, " some"] | None
    without: Int[np.ndarray, " others"]

    def mask(self, is_candidate: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Mask of the candidate rows that may be recommended."""
        mask = is_candidate.copy()
        if self.only is not None:
            mask[:] = False
            mask[self.only] = is_candidate[self.only]
        mask[self.without] = False
        return mask


@dataclass(frozen=True)
class Resolved:
    """A request in numbers of a catalogue.

    Attributes:
      items: item of each entry of the history; None if the catalogue has no such item.
      allowed: rows that may be recommended; None = all candidates.
    """

    items: tuple[int | None, ...]
    allowed: Allowed | None


class ItemNames:
    """Items by title and by id. Titles take precedence over equal ids, and earlier items over later ones."""

    def __init__(self, index: ItemIndex, item_ids: Sequence[str]):
        self._index = index
        backwards = range(len(item_ids) - 1, -1, -1)
        self._item = {item_ids[item]: item for item in backwards} | {index.titles[item]: item for item in backwards}

    def resolve(self, request: Request) -> Resolved:
        """Find the items of a request.

        Raises:
          InputError: a candidate is unknown, or nothing is left to recommend.
        """
        items = tuple(self._item.get(entry) for entry in request.history)
        if request.candidates is None and not request.exclude_history:
            return Resolved(items, None)
        only = None if request.candidates is None else self._rows(self._known(request.candidates))
        seen = [item for item in items if item is not None] if request.exclude_history else []
        allowed = Allowed(only, self._rows(seen))
        if not allowed.mask(self._index.is_candidate).any():
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

    def _rows(self, items: Sequence[int]) -> Int[np.ndarray, " n"]:
        return self._index.catalog.row_of_item[np.array(items, np.int64)]


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be encoded; JSON may contain lone surrogates."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
