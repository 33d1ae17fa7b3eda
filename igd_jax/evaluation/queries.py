"""Queries of a split and their targets: one query per row, or one per user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Int, Shaped

from igd_jax.core.ragged import Ragged, starts_of
from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.predictions import Target

PROTOCOLS: Mapping[str, str] = MappingProxyType({"rows": "hr", "users": "recall"})
"""Name of the hit metric by protocol. ``rows``: one query per row, with its one target; ``users``: one query per user,
with all of the user's targets."""


@dataclass(frozen=True)
class Queries:
    """Queries and their targets.

    Attributes:
      protocol: one of `PROTOCOLS`.
      row: row of the split whose history each query shows.
      targets: items taken after that history, oldest first; one each for ``rows``.
      user: user of each query.
    """

    protocol: str
    row: Int[np.ndarray, " Q"]
    targets: Ragged
    user: Shaped[np.ndarray, " Q"]

    def __len__(self) -> int:
        return len(self.row)


def make_queries(
    protocol: str,
    *,
    user: Shaped[np.ndarray, " R"],
    timestamp: Int[np.ndarray, " R"],
    target: Int[np.ndarray, " R"],
    max_examples: int = 0,
) -> Queries:
    """Make the queries of a split, in row order.

    Args:
      protocol: one of `PROTOCOLS`.
      user, timestamp, target: user, time and target of each row of the split.
      max_examples: number of queries to keep, evenly spaced; 0 = all.
    """
    first = query = np.arange(len(target))
    if protocol == "users":
        first, query = group_by_user(user, timestamp)
    chosen = evenly_spaced(len(first), max_examples)
    number = np.full(len(first), -1)
    number[chosen] = np.arange(len(chosen))
    query = number[query]
    order = np.lexsort((timestamp, query))
    order = order[query[order] >= 0]
    start = starts_of(np.bincount(query[order], minlength=len(chosen)))
    return Queries(protocol, first[chosen], Ragged(target[order], start), user[first[chosen]])


def group_by_user(
    user: Shaped[np.ndarray, " R"], timestamp: Int[np.ndarray, " R"]
) -> tuple[Int[np.ndarray, " U"], Int[np.ndarray, " R"]]:
    """Group the rows of a split by user.

    Returns:
      The earliest row of each user (the first one in case of ties), ascending; and the user of each row, numbered in
      that order. ::

        user       b  a  b  c  a                   first  0  3  4
        timestamp  1  5  3  2  4      ->      user of row  0  2  0  1  2
    """
    in_time = np.argsort(timestamp, kind="stable")
    _, earliest, group = np.unique(user[in_time], return_index=True, return_inverse=True)
    first = in_time[earliest]
    place = np.argsort(first)
    user_of_row = np.empty(len(user), np.int64)
    user_of_row[in_time] = np.argsort(place)[group]
    return first[place], user_of_row


def evenly_spaced(n: int, limit: int) -> Int[np.ndarray, " chosen"]:
    """Numbers of `limit` of n rows, evenly spaced, ascending; all n if `limit` is 0 or larger than n.

    Splits are in time order, so their first rows are a few users of one day; evenly spaced rows cover all days.
    """
    return np.arange(limit) * n // limit if 0 < limit < n else np.arange(n)


def distinct_targets(queries: Queries, row_of_item: Int[np.ndarray, " items"]) -> Ragged:
    """Targets of each query without repetitions of a catalogue row, oldest first."""
    targets = queries.targets
    query, n_rows = np.repeat(np.arange(len(queries)), targets.lengths), int(row_of_item.max()) + 1
    kept = np.sort(np.unique(query * n_rows + row_of_item[targets.ids], return_index=True)[1])
    return Ragged(targets.ids[kept], starts_of(np.bincount(query[kept], minlength=len(queries))))


def describe_targets(
    queries: Queries, catalogue: CatalogueRows, *, item_ids: Sequence[str], titles: Sequence[str]
) -> list[Target]:
    """Targets of each query for predictions.jsonl.

    Lists name candidates only. So a target that is not a candidate, but shares its row with some, is represented by the
    first of them, which the lists that hit it name. The title is that of the item taken, whatever the candidates.
    """
    right = distinct_targets(queries, catalogue.row_of_item)
    row = catalogue.row_of_item[right.ids]
    item = np.where(catalogue.candidates[right.ids], right.ids, _first_candidate(catalogue)[row])
    item = np.where(item >= 0, item, right.ids)
    described = []
    for begin, end in zip(right.start[:-1].tolist(), right.start[1:].tolist(), strict=True):
        ids = tuple(item_ids[each] for each in item[begin:end].tolist())
        warm = tuple(catalogue.is_warm[row[begin:end]].tolist())
        described.append(Target(ids, titles[right.ids[begin]], warm))
    return described


def _first_candidate(catalogue: CatalogueRows) -> Int[np.ndarray, " N"]:
    """First candidate item of each catalogue row; -1 if there is none."""
    first, offered = np.full(catalogue.count.size, -1), np.flatnonzero(catalogue.candidates)
    rows, place = np.unique(catalogue.row_of_item[offered], return_index=True)
    first[rows] = offered[place]
    return first
