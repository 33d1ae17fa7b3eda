"""Requests for recommendations: a history, and restrictions of the candidates."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from igd_jax.core.allowed import Allowed
from igd_jax.core.errors import InputError
from igd_jax.core.log import say_once
from igd_jax.core.shown import shown
from igd_jax.core.suggest import UnknownNameError, did_you_mean
from igd_jax.data.prepared import Rows
from igd_jax.data.source_io import is_writable
from igd_jax.items.index import ItemIndex

LISTS = ("history", "candidates", "score")
"""Fields of a request that are lists of titles or item ids."""


@dataclass(frozen=True)
class Request:
    """A request for recommendations.

    Attributes:
      history: titles or item ids, oldest first.
      id: name of the request, a text or a whole number, repeated in its answer.
      candidates: titles or item ids that may be recommended; None = all candidates of the run.
      exclude_history: whether items of the history are left out; None = `config.decode.exclude_history`.
      score: titles or item ids whose scores are the answer, in this order; None = a list is recommended.
    """

    history: tuple[str, ...]
    id: str | int | None = None
    candidates: tuple[str, ...] | None = None
    exclude_history: bool | None = None
    score: tuple[str, ...] | None = None


def requests_in(asked: Any) -> tuple[list[Any], bool]:
    """The requests in what a recommender was asked, unread, and whether it was asked for a single one.

    Args:
      asked: a history or a request; or several of either, in any iterable with an order. An empty one has no requests.

    Raises:
      InputError: it is none of these.
    """
    if isinstance(asked, Request | Mapping):
        return [asked], True
    if not _is_listed(asked):
        raise InputError(f"the history is {shown(asked)}; expected a list of titles or item ids, oldest first")
    given = entries(asked)
    if given and not any(isinstance(each, Request) or _is_listed(each) for each in given):
        return [{"history": given}], True
    is_history = [_is_listed(each) and not isinstance(each, Mapping) for each in given]
    return [
        {"history": entries(each)} if listed else each for each, listed in zip(given, is_history, strict=True)
    ], False


def entries(value: Any) -> Any:
    """The entries of an iterable that has an order, as a list; other values as they are.

    Raises:
      InputError: it is a table, whose entries would be the names of its columns.
    """
    if hasattr(value, "columns"):
        raise InputError(
            f"a {type(value).__name__} is given; expected histories, df['history'], or requests, df.to_dict('records')"
        )
    return list(value) if _is_listed(value) else value


def plain(value: Any) -> Any:
    """Arrays and columns of pandas as lists, and their numbers as Python's; other values as they are."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_listed(value: Any) -> bool:
    """Whether a value has entries in an order, unlike a text, a set and an array without axes."""
    is_iterable = isinstance(value, Iterable) and not isinstance(value, str | bytes | set | frozenset)
    return is_iterable and getattr(value, "ndim", 1) > 0


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def read_request(value: Any) -> Request:
    """Check a request, or a mapping with its fields, in which arrays will do as lists.

    Raises:
      InputError: the value is not a request.
    """
    if isinstance(value, Request):
        value = vars(value)
    if not isinstance(value, Mapping):
        raise InputError(f'a request is {shown(value)}; expected an object such as {{"history": ["Title A"]}}')
    known = [field.name for field in fields(Request)]
    if unknown := sorted(map(str, set(value) - set(known))):
        message = f"a request has the field {shown(unknown[0])}; expected {', '.join(known)}"
        raise UnknownNameError(message, unknown[0], known)
    given = {name: each for name, one in value.items() if (each := plain(one)) is not None}
    if "id" in given and not (is_writable(given["id"]) or _is_whole(given["id"])):
        raise InputError(f"id is {shown(given['id'])}; expected a text or a whole number")
    if not isinstance(given.get("exclude_history", False), bool):
        raise InputError(f"exclude_history is {shown(given['exclude_history'])}; expected true or false")
    for name in LISTS:
        check_names_of_items(name, given.get(name, ()))
    if "score" in given and (given.get("candidates") is not None or given.get("exclude_history")):
        raise InputError("a request has score and restricts its candidates; give one of the two")
    if not given.get("history"):
        raise InputError("a request has no history; name at least one title or item id, oldest first")
    return Request(**given | {name: tuple(given[name]) for name in LISTS if name in given})


def check_names_of_items(what: str, value: Any) -> None:
    """Raise `InputError` unless a value is a list of texts, which may be titles or item ids."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{what} is {shown(value)}; expected a list of titles or item ids")
    for place, name in enumerate(value):
        if not is_writable(name):
            fix = f'; give "{shown(int(name))}"' if _is_whole(name) else ""
            raise InputError(f"{what}[{place}] is {shown(name)}; expected a title or an item id, which are texts{fix}")


@dataclass(frozen=True)
class Resolved:
    """A request in numbers of a catalogue.

    Attributes:
      request: the request.
      items: item of each entry of its history; None if the catalogue has no such item.
      allowed: rows that may be recommended; None = all candidates.
      score: rows whose scores are wanted; None = a list is recommended.
    """

    request: Request
    items: tuple[int | None, ...]
    allowed: Allowed | None = None
    score: Int[np.ndarray, " some"] | None = None

    @property
    def entries(self) -> list[tuple[str, int | None]]:
        """Entries of the history as given, each with its item."""
        return list(zip(self.request.history, self.items, strict=True))


class ItemNames:
    """Items by title and by id. Titles take precedence over equal ids, and earlier items over later ones."""

    def __init__(self, index: ItemIndex, item_ids: Sequence[str]):
        self._index = index
        backwards = range(len(item_ids) - 1, -1, -1)
        by_id, by_title = ({names[item]: item for item in backwards} for names in (item_ids, index.titles))
        self._item = by_id | by_title
        others = [name for name in by_id.keys() & by_title.keys() if index.titles[by_id[name]] != name]
        if others:
            say_once(
                f"note: {len(others):,} ids of items are titles of others, such as {shown(min(others))}; where an "
                "item is named, they mean these titles"
            )

    def item(self, name: str) -> int:
        """Number of the item with a title or an id; raises `InputError` if there is none, with what may be meant."""
        item = self._item.get(name)
        if item is None:
            raise self.unknown(f"{shown(name)} is neither a title nor an item of the catalogue", name)
        return item

    def suggested(self, name: str) -> str:
        """A question about an unknown name, to append to a message; see `core.suggest.did_you_mean`."""
        return did_you_mean(name, self._item)

    def unknown(self, message: str, name: str) -> UnknownNameError:
        """The error about an unknown name, whose message ends with what is suggested."""
        return UnknownNameError(message, name, self._item)

    def resolve(self, request: Request, *, exclude_history: bool = False) -> Resolved:
        """Find the items of a request.

        Args:
          request: the request.
          exclude_history: whether items of the history are left out if the request does not say.

        Raises:
          InputError: a candidate is unknown, nothing is left to recommend, or what is to be scored is not a candidate.
        """
        items = tuple(self._item.get(entry) for entry in request.history)
        if request.score is not None:
            return Resolved(request, items, score=self._scored(request.score))
        excludes = exclude_history if request.exclude_history is None else request.exclude_history
        seen = [item for item in items if item is not None] if excludes else []
        return Resolved(request, items, self.allowed(request.candidates, seen))

    def allowed(self, candidates: Iterable[str] | None, without: Sequence[int]) -> Allowed | None:
        """What may be recommended: some candidates (None = all) without some items; None if that is all of them.

        Raises:
          InputError: a candidate is unknown, or nothing is left to recommend.
        """
        if candidates is None and not len(without):
            return None
        only = None if candidates is None else self._rows(self._known(candidates))
        allowed = Allowed(only, self._rows(without))
        if not allowed.mask(self._index.is_candidate).any():
            rest = "that the history does not hold; name others, or set exclude_history to false"
            raise InputError(
                "a request leaves nothing to recommend: none of its candidates is a candidate of the run"
                f"{f' {rest}' if len(without) else '; name others'}"
            )
        return allowed

    def _scored(self, names: Sequence[str]) -> Int[np.ndarray, " some"]:
        rows = self._rows(self._known(names))
        if not len(rows):
            raise InputError("a request has an empty score; name the titles or item ids to be scored")
        if not (there := self._index.is_candidate[rows]).all():
            name = names[int(np.argmin(there))]
            raise InputError(f"a request asks for the score of {name!r}, which is not a candidate of the run")
        return rows

    def _known(self, names: Iterable[str]) -> list[int]:
        found = [(name, self._item.get(name)) for name in names]
        if missing := [name for name, item in found if item is None]:
            message = f"a request names the candidate {missing[0]!r}, which the catalogue does not have"
            raise self.unknown(message, missing[0])
        return [item for _, item in found if item is not None]

    def _rows(self, items: Sequence[int]) -> Int[np.ndarray, " n"]:
        return self._index.catalog.row_of_item[np.array(items, np.int64)]


def allowed_of_rows(
    names: ItemNames, rows: Rows, numbers: Int[np.ndarray, " q"], *, file: str, exclude_history: bool, by_user: bool
) -> list[Allowed | None]:
    """What may be recommended to some rows of a split.

    Args:
      names: items.
      rows: all rows of the split.
      numbers: the rows in question.
      file: `config.decode.allowed`, a path, or empty for all candidates.
      exclude_history: whether items of a row's history are left out.
      by_user: whether each row in question stands for all rows of its user.

    Raises:
      InputError: the file is not one for these rows, rows of a user have different lists though one stands for all, or
        nothing is left to recommend to a row.
    """
    lists = _read_lists(Path(file), len(rows)) if file else [None] * len(rows)
    if file and by_user:
        _check_one_list_per_user(rows, lists, file)
    found = []
    for row in numbers.tolist():
        try:
            found.append(names.allowed(lists[row], rows.history[row].tolist() if exclude_history else []))
        except InputError as error:
            raise InputError(f"row {row}: {error}") from None
    return found


def _check_one_list_per_user(rows: Rows, lists: Sequence[list[str] | None], file: str) -> None:
    first: dict[str, int] = {}
    for row, user in enumerate(rows.user.tolist()):
        if lists[row] != lists[earlier := first.setdefault(user, row)]:
            raise InputError(
                f"{file} lines {earlier + 1} and {row + 1} differ, but both are of user {shown(user)}, who is asked "
                "once (config.eval.protocol=users); give a user's lines the same list, or rank by rows"
            )


def _read_lists(path: Path, n_rows: int) -> list[list[str] | None]:
    """Read a JSON list of titles or item ids per row, or null for all candidates."""
    lists: list[list[str] | None] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            names = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise InputError(f"{path} line {number}: {error}; expected a JSON list of titles or item ids") from None
        if names is not None:
            check_names_of_items(f"{path} line {number}", names)
        lists.append(names)
    if len(lists) != n_rows:
        raise InputError(f"{path} has {len(lists):,} lines; expected one for each of the {n_rows:,} rows of the split")
    return lists
