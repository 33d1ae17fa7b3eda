"""A few queries of an evaluation with their lists, for people."""

from typing import Any

import numpy as np

from igd_jax.core.shown import shortened
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.queries import Queries, evenly_spaced
from igd_jax.session.ranker import Ranker

N_EXAMPLES, N_HISTORY, N_RESULTS = 3, 2, 3
LONGEST = 36
"""Maximum number of characters of a title."""


def shown_examples(ranker: Ranker, rows: Rows, queries: Queries, found: Any) -> list[str]:
    """A line for each of some queries, evenly spread: the end of the history, the target, its place, and the list.

    Args:
      ranker: the model that ranked.
      rows: all rows of the split.
      queries: queries and their targets.
      found: lists, as NumPy arrays.
    """
    titles, row_of_item = ranker.session.prepared.titles, ranker.index.catalog.row_of_item
    lines = []
    for q in evenly_spaced(len(queries), N_EXAMPLES).tolist():
        history = rows.history(int(queries.row[q]))
        targets = queries.targets[q]
        hits = np.flatnonzero(np.isin(found.rows[q], row_of_item[targets]))
        place = f"number {hits[0] + 1} of the list" if len(hits) else "not in the list"
        before = "..., " if len(history) > N_HISTORY else ""
        after = f" (and {len(targets) - 1} more)" if len(targets) > 1 else ""
        listed = [one.title for one in ranker.results(found, q)[:N_RESULTS]]
        lines.append(
            f"after {before}{_quoted([titles[item] for item in history[-N_HISTORY:]])}: "
            f"{_quoted([titles[targets[0]]])}{after}, {place}: {_quoted(listed)}, ..."
        )
    return lines


def _quoted(titles: list[str]) -> str:
    return ", ".join(repr(shortened(title, LONGEST)) for title in titles)
