"""Examples of an evaluation: the end of a history, what was taken, at which place it stands, and the list."""

from types import SimpleNamespace

import numpy as np

from igd_jax.core.ragged import Ragged
from igd_jax.data.prepared import Rows, starts_of
from igd_jax.evaluation.predictions import Result
from igd_jax.evaluation.queries import Queries
from igd_jax.session.ranker import Ranker
from igd_jax.session.shown_examples import shown_examples

TITLES = ["A", "B", "C", "D", "A very long title that nobody wants to read to its end", "F"]


def test_each_example_is_a_line():
    ranker = object.__new__(Ranker)
    ranker.session = SimpleNamespace(prepared=SimpleNamespace(titles=TITLES))
    ranker.index = SimpleNamespace(catalog=SimpleNamespace(row_of_item=np.arange(6)))
    ranker.results = lambda found, q: tuple(Result(("i",), TITLES[row], 0.0, ()) for row in found.rows[q])
    lengths = np.array([3, 2, 1, 1])
    user, history = np.array(["u"] * 4, object), np.array([0, 1, 2, 2, 3, 4, 0], np.int32)
    rows = Rows(user, history, starts_of(lengths), np.zeros(4, np.int32), np.zeros(4, np.int64))
    queries = Queries("users", np.array([0, 1, 2]), Ragged.from_lists([[3], [5], [1, 0]]), user[:3])
    found = SimpleNamespace(rows=np.array([[2, 3, 1, 0], [0, 1, 2, 3], [1, 2, 4, 5]]))
    assert shown_examples(ranker, rows, queries, found) == [
        "after ..., 'B', 'C': 'D', number 2 of the list: 'C', 'D', 'B', ...",
        "after 'C', 'D': 'F', not in the list: 'A', 'B', 'C', ...",
        "after 'A very long titl...ead to its end': 'B' (and 1 more), number 1 of the list: 'B', 'C', "
        "'A very long titl...ead to its end', ...",
    ]
