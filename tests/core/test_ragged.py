"""Rows in one flat array behave as lists."""

from itertools import chain

import numpy as np
from plain_trie import lists_of

from igd_jax.core.ragged import Ragged, places_in_rows, ragged_index


def test_ragged_rows_behave_as_lists():
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 99, rng.integers(0, 7)).tolist() for _ in range(50)]
    rows, chosen, limit = Ragged.from_lists(lists), rng.integers(0, 50, 30), rng.integers(0, 7, 50)
    assert lists_of(rows) == lists
    assert rows.lengths.tolist() == [len(row) for row in lists]
    assert lists_of(rows.take(chosen)) == [lists[r] for r in chosen]
    assert lists_of(rows.keep_last(limit)) == [row[max(0, len(row) - n) :] for row, n in zip(lists, limit, strict=True)]
    assert lists_of(rows.part(7, 20)) == lists[7:20]
    assert np.shares_memory(rows.part(7, 20).ids, rows.ids)
    assert rows.pad(4, fill=-1).tolist() == [(row + [-1] * 4)[:4] for row in lists]


def test_ragged_index_counts_on_from_each_first():
    assert ragged_index(np.array([7, 0, 3, 5]), np.array([2, 3, 0, 1])).tolist() == [7, 8, 0, 1, 2, 5]


def test_places_in_rows_begin_anew_in_each():
    assert places_in_rows(np.array([2, 0, 3, 1])).tolist() == [0, 1, 0, 1, 2, 0]
    assert places_in_rows(np.zeros(0, np.int32)).tolist() == []


def test_each_row_is_followed_by_that_of_the_same_number():
    rng = np.random.default_rng(2)
    first, second = ([rng.integers(0, 99, rng.integers(0, 4)).tolist() for _ in range(20)] for _ in range(2))
    both = Ragged.from_lists(first).followed_by(Ragged.from_lists(second))
    assert lists_of(both) == [a + b for a, b in zip(first, second, strict=True)]


def test_parts_are_concatenated_and_groups_of_rows_joined():
    rng = np.random.default_rng(1)
    parts = [[rng.integers(0, 99, rng.integers(0, 4)).tolist() for _ in range(n)] for n in (7, 0, 5)]
    rows = Ragged.concatenate([Ragged.from_lists(part) for part in parts])
    lists = [*chain(*parts)]
    assert lists_of(rows) == lists
    groups = [rng.integers(0, 12, rng.integers(0, 5)).tolist() for _ in range(30)]
    assert lists_of(rows.join(Ragged.from_lists(groups))) == [[*chain(*(lists[r] for r in group))] for group in groups]
    assert lists_of(rows.join(Ragged.from_lists([[], []]))) == [[], []]
