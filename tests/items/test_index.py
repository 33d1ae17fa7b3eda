"""One call from titles to gain, over all items, whichever of them are candidates."""

import tracemalloc

import numpy as np
import pytest
from plain_trie import EOS, lists_of, random_rows

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.index import ItemIndex, build_index, walk_rows

TITLES = ["B", "A", "A", "C D", "C"]
TOKENS = Ragged.from_lists([[2, 9, EOS], [1, 9, EOS], [1, 9, EOS], [3, 4, 9, EOS], [3, 9, EOS]])
COUNTS = np.array([2, 1, 0, 0, 3])
ROWS = ["A", "B", "C D", "C"]
TAKEN = np.array([True, True, True, False, True])
"""Candidates whose title someone took."""


def _index(candidates=None) -> ItemIndex:
    return build_index(TITLES, TOKENS, COUNTS, candidates=np.ones(5, bool) if candidates is None else candidates)


def test_rows_know_their_title_and_the_longest_length():
    index = _index()
    assert [index.title_of_row(row) for row in range(len(index.catalog))] == ROWS
    assert index.longest == 4
    assert lists_of(index.item_tokens) == lists_of(TOKENS)


def test_a_row_that_items_share_has_the_title_of_the_first_candidate():
    titles = ["B", "A, paperback", "A, hardback", "C D", "C"]
    index = build_index(titles, TOKENS, COUNTS, candidates=np.array([True, False, True, True, True]))
    assert [index.title_of_row(row) for row in range(2)] == ["A, hardback", "B"]
    none = index.with_candidates(np.array([True, False, False, True, True]))
    assert [none.title_of_row(row) for row in range(2)] == ["A, paperback", "B"]


def test_the_catalogue_holds_all_items_and_the_trie_only_candidates():
    index = _index(TAKEN)
    assert [index.title_of_row(row) for row in range(len(index.catalog))] == ROWS
    assert index.catalog.row_of_item.tolist() == [1, 0, 0, 2, 3]
    assert index.is_candidate.tolist() == [True, True, False, True]
    assert index.trie.row.tolist() == [0, 1, 3]
    assert index.longest == 3


def test_of_a_row_only_candidates_are_items_but_its_gain_comes_from_all():
    index = _index(np.arange(5) == 2)
    assert index.items_of(0).tolist() == [2]
    assert index.items_of(1).tolist() == []
    assert index.catalog.items_of(0).tolist() == [1, 2]
    two = _index((np.arange(5) == 2) | (np.arange(5) == 4))  # A was taken once, as item 1, and C three times
    mass = -np.array([1, 3]) / 4 * np.log(np.array([1, 3]) / 4)
    assert two.gain.root_entropy == pytest.approx(mass.sum())


def test_other_candidates_make_the_index_that_they_would_have_made_at_once():
    index = _index().with_candidates(TAKEN)
    built = _index(TAKEN)
    assert index.catalog.given is TOKENS
    for part in ("trie", "gain"):
        arrays = {name: value for name, value in vars(getattr(index, part)).items() if name != "trie"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, getattr(getattr(built, part), name), err_msg=name)
    np.testing.assert_array_equal(index.is_candidate, built.is_candidate)
    np.testing.assert_array_equal(index.candidates, TAKEN)
    again = index.with_candidates(np.ones(5, bool))
    assert again.trie.row.tolist() == [0, 1, 2, 3]


def test_walked_titles_carry_gain_forced_and_the_node_before_each_token():
    index = _index()
    walk = index.walk()
    assert walk.on_trie.all()
    p = np.array([1, 2, 3]) / 6  # A, B, C; nobody took C D
    mass = -p * np.log(p)
    a, b, c_d, c = (
        [mass[1:].sum(), 0, 0],
        [mass[[0, 2]].sum(), 0, 0],
        [mass[:2].sum(), mass[2], 0, 0],
        [mass[:2].sum(), 0, 0],
    )
    np.testing.assert_allclose(walk.gain, [*b, *a, *a, *c_d, *c], rtol=1e-12)
    assert walk.forced.tolist() == [gain == 0 for gain in walk.gain]
    # Nodes by depth and token: A 1 2 3, B 4 5 6, C 7, C D 8 9 10, C's end 11 12.
    assert walk.parent.tolist() == [0, 4, 5, 0, 1, 2, 0, 1, 2, 0, 7, 8, 9, 0, 7, 11]
    assert (walk.parent.dtype, walk.gain.dtype) == (np.int32, np.float64)


def test_a_title_off_the_trie_gains_nothing_on_all_its_tokens():
    walk = _index(TAKEN).walk()  # C D is not a candidate, but begins like C, which is one
    assert walk.on_trie.tolist() == TAKEN.tolist()
    off = slice(TOKENS.start[3], TOKENS.start[4])
    assert not walk.gain[off].any()
    assert walk.forced[off].all()
    assert walk.parent[off].tolist() == [-1] * 4
    assert walk.gain[TOKENS.start[4]] > 0
    assert (np.delete(walk.parent, np.s_[off]) >= 0).all()


def test_rows_that_no_item_has_are_walked_too():
    index = _index(TAKEN)
    walk = walk_rows(index.trie, index.gain, Ragged.from_lists([[3, 9, EOS], [8, EOS], [], [3, 9], [2, 9, EOS, 9]]))
    assert walk.on_trie.tolist() == [True, False, True, True, False]
    assert walk.parent.tolist() == [0, 7, 8, -1, -1, 0, 7, -1, -1, -1, -1]


@pytest.mark.parametrize("seed", range(5))
def test_the_walk_of_all_items_is_that_of_each_row_alone(seed):
    rng = np.random.default_rng(seed)
    tokens = Ragged.from_lists(random_rows(rng, 60))
    index = build_index([""] * 60, tokens, rng.integers(0, 4, 60), candidates=rng.random(60) < 0.6)
    walk = index.walk()
    np.testing.assert_array_equal(walk.on_trie, index.is_candidate[index.catalog.row_of_item])
    for item in range(60):
        one, here = (
            walk_rows(index.trie, index.gain, tokens.take(np.array([item]))),
            slice(*tokens.start[item : item + 2]),
        )
        np.testing.assert_array_equal(walk.gain[here], one.gain)
        np.testing.assert_array_equal(walk.forced[here], one.forced)
        np.testing.assert_array_equal(walk.parent[here], one.parent)


@pytest.mark.slow
def test_one_long_title_does_not_make_the_others_longer():
    lists = [[1 + n % 50, 1 + n // 50, EOS] for n in range(2000)] + [[*range(1, 4_000), EOS]]
    tokens = Ragged.from_lists(lists)
    tracemalloc.start()
    index = build_index([""] * len(lists), tokens, np.ones(len(lists), int), candidates=np.ones(len(lists), bool))
    index.walk()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * len(tokens.ids)  # 2 MB; a table of 2,001 by 4,000 bytes would take 8 MB


def test_no_candidate_is_bad_input():
    with pytest.raises(InputError, match="no candidate"):
        _index(np.zeros(5, bool))
    with pytest.raises(InputError, match="no candidate"):
        _index().with_candidates(np.zeros(5, bool))
