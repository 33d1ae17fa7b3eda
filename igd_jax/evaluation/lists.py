"""The lists of a predictions.jsonl as arrays of catalogue rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.metrics import rank_of_target
from igd_jax.evaluation.predictions import AGAIN, read_predictions


@dataclass(frozen=True)
class Lists:
    """Queries, their targets and their lists.

    Attributes:
      row: row of the split whose history each query shows.
      ranked: catalogue rows, best first; -1 = no result, or one that is not an item.
      targets: distinct catalogue rows that are right for each query, at least one.
    """

    row: Int[np.ndarray, " Q"]
    ranked: Int[np.ndarray, "Q K"]
    targets: Ragged

    def __len__(self) -> int:
        return len(self.row)

    def take(self, queries: Int[np.ndarray, " q"]) -> "Lists":
        """Some of the queries."""
        return Lists(self.row[queries], self.ranked[queries], self.targets.take(queries))

    @property
    def first_targets(self) -> Int[np.ndarray, " Q"]:
        """One catalogue row that is right for each query, the first."""
        return self.targets.ids[self.targets.start[:-1]]

    @property
    def query(self) -> Int[np.ndarray, " G"]:
        """Query of each target."""
        return np.repeat(np.arange(len(self)), self.targets.lengths)

    def rank_of_targets(self) -> Int[np.ndarray, " G"]:
        """Rank of each target in the list of its query, from 0; -1 = missed."""
        return rank_of_target(self.ranked[self.query], self.targets.ids)


def read_lists(path: Path, row_of_id: Mapping[str, int], *, n_rows: int, n_results: int) -> Lists:
    """Read a predictions.jsonl.

    Args:
      path: the file.
      row_of_id: catalogue row of each item id.
      n_rows: number of rows of the split.
      n_results: length of the lists; shorter ones are filled up.

    Raises:
      InputError: the file is missing, malformed or empty, or names an item or a row that the data does not have,
        or a list is longer.
    """
    rows: list[int] = []
    targets: list[list[int]] = []
    ranked: list[list[int]] = []
    try:
        for prediction in read_predictions(path):
            rows.append(prediction.row)
            targets.append(list(dict.fromkeys(row_of_id[item] for item in prediction.target.items)))
            ranked.append([row_of_id[each.items[0]] if each.items else -1 for each in prediction.ranked])
    except KeyError as error:
        raise InputError(f"{path} names the item {error.args[0]!r}, which the data does not have; {AGAIN}") from None
    if not rows or not any(ranked):
        raise InputError(f"{path} has no {'results' if rows else 'rows'}; {AGAIN}")
    if not 0 <= min(rows) <= max(rows) < n_rows:
        raise InputError(f"{path} tells of rows {min(rows)} to {max(rows)}, the split has {n_rows:,}; {AGAIN}")
    if (longest := max(map(len, ranked))) > n_results:
        raise InputError(f"{path} has a list of {longest:,} results, its config allows {n_results:,}; {AGAIN}")
    filled = [[*each, *[-1] * (n_results - len(each))] for each in ranked]
    return Lists(np.array(rows), np.array(filled), Ragged.from_lists(targets))
