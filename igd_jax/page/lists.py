"""Some users with their lists, and all items with how often they were recommended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from igd_jax.core.shown import shortened
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.evaluations import PREDICTIONS
from igd_jax.evaluation.predictions import Prediction, read_predictions
from igd_jax.evaluation.queries import evenly_spaced
from igd_jax.session.analysis import Evaluated

N_USERS = 20
LONGEST_TITLE = 120
"""Characters of a title in the search, beyond which its middle is left out."""
MOST_ITEMS = 1_500_000
"""Bytes of the items of the search; those that are neither recommended nor bought often are left out first."""


@dataclass(frozen=True)
class User:
    """A query and its answer.

    Attributes:
      name: user id of the source.
      history: titles, oldest first; None where the data are not there.
      target: title of the target, and how many further items are right, too.
      n_more: number of those.
      ranked: title and score of each result, best first, and whether it is right.
    """

    name: str
    history: Sequence[str] | None
    target: str
    n_more: int
    ranked: Sequence[tuple[str, float, bool]]

    @property
    def rank(self) -> int | None:
        """Rank of the first result that is right, from 1; None if there is none."""
        return next((rank for rank, (_, _, is_right) in enumerate(self.ranked, start=1) if is_right), None)


def chosen_queries(n: int) -> list[int]:
    """Numbers of the queries that are shown of n, evenly spread."""
    return [int(query) for query in evenly_spaced(n, N_USERS)]


def read_users(folder: Path, n: int, evaluated: Evaluated | None) -> list[User]:
    """The queries of an evaluation that are shown.

    Args:
      folder: folder of the evaluation.
      n: number of its queries.
      evaluated: its run, for histories; None = not there.
    """
    wanted = set(chosen_queries(n))
    found = [each for number, each in enumerate(read_predictions(folder / PREDICTIONS)) if number in wanted]
    if evaluated is None:
        return [_user(each, None) for each in found]
    session = evaluated.session
    rows, titles = session.rows(session.settings.eval.split), session.prepared.titles
    return [_user(each, _history(rows, each.row, titles)) for each in found]


def _history(rows: Rows, row: int, titles: Sequence[str]) -> list[str]:
    return [titles[item] for item in rows.history[row].tolist()]


def _user(prediction: Prediction, history: Sequence[str] | None) -> User:
    right = set(prediction.target.items)
    ranked = [(each.title, each.score, not right.isdisjoint(each.items)) for each in prediction.ranked]
    return User(prediction.user, history, prediction.target.title, len(right) - 1, ranked)


def searched_items(evaluated: Evaluated) -> Mapping[str, Any]:
    """Items for the search, those that occur most first.

    Returns:
      ``rows``: title, first item id, train targets, lists in which it is among the first k, queries whose target it is,
      and how many of these it was recommended for; ``n_left_out``, titles for which there is no room.
    """
    session, lists, k = evaluated.session, evaluated.lists, evaluated.k
    catalog, n_rows = session.index.catalog, len(session.index.catalog)
    shown, rank = lists.ranked[:, :k], lists.rank_of_targets()
    listed = np.bincount(shown[shown >= 0], minlength=n_rows)
    wanted = np.bincount(lists.targets.ids, minlength=n_rows)
    found = np.bincount(lists.targets.ids[(rank >= 0) & (rank < k)], minlength=n_rows)
    count = evaluated.catalogue.count
    rows: list[list[Any]] = []
    room = MOST_ITEMS
    for row in np.lexsort((-count, -(listed + wanted))).tolist():
        item = catalog.items_of(row)[0]
        title = shortened(session.prepared.titles[item], LONGEST_TITLE)
        numbers = (count[row], listed[row], wanted[row], found[row])
        rows.append([title, session.prepared.item_ids[item], *map(int, numbers)])
        room -= len(json.dumps(rows[-1]))
        if room < 0:
            break
    return {"rows": rows, "n_left_out": n_rows - len(rows)}
