"""Sorted, merged and counted as plain Python would."""

from collections import defaultdict
from itertools import takewhile

import numpy as np
import pytest
from plain_trie import EOS, catalog_of, lists_of, random_rows

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.catalog import build_catalog, sort_rows


def _few_tokens(rng: np.random.Generator) -> list[list[int]]:
    return [rng.integers(0, 3, rng.integers(1, 11)).tolist() for _ in range(500)]


def _large_tokens(rng: np.random.Generator) -> list[list[int]]:
    return [(200_000 - rng.integers(0, 3, rng.integers(1, 11))).tolist() for _ in range(500)]


def _largest_tokens(rng: np.random.Generator) -> list[list[int]]:
    return [(2**31 - 1 - rng.integers(0, 2, rng.integers(1, 11))).tolist() for _ in range(200)]


def _long_beginnings(rng: np.random.Generator) -> list[list[int]]:
    beginnings = [rng.integers(0, 100_000, rng.integers(20, 60)).tolist() for _ in range(5)]
    return [beginnings[rng.integers(5)] + rng.integers(0, 2, rng.integers(0, 4)).tolist() for _ in range(300)]


def _prefixes_of_one_row(rng: np.random.Generator) -> list[list[int]]:
    whole = rng.integers(0, 9, 40).tolist()
    return [whole[: rng.integers(1, 41)] for _ in range(200)]


def _titles(rng: np.random.Generator) -> list[list[int]]:
    return random_rows(rng, 400)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "draw", [_few_tokens, _large_tokens, _largest_tokens, _long_beginnings, _prefixes_of_one_row, _titles]
)
def test_rows_are_sorted_as_python_sorts_lists_with_their_shared_lengths(draw, seed):
    rows = draw(np.random.default_rng(seed))
    order, lcp, is_new = sort_rows(Ragged.from_lists(rows))
    expected = sorted(range(len(rows)), key=rows.__getitem__)
    assert order.tolist() == expected
    ranked = [rows[r] for r in expected]
    for before, row, shared, new in zip(ranked, ranked[1:], lcp[1:], is_new[1:], strict=False):
        assert new == (row != before)
        assert shared == sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, row, strict=False)))
    assert lcp[0] == -1
    assert is_new[0]


@pytest.mark.parametrize("rows", [[[5]], [[0]], [[3, 1], [3]], [[7, 7], [7, 7], [7, 7]]])
def test_smallest_inputs_are_sorted(rows):
    order, _, is_new = sort_rows(Ragged.from_lists(rows))
    assert [rows[r] for r in order] == sorted(rows)
    assert is_new.sum() == len({tuple(row) for row in rows})


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_become_one_with_all_its_items_and_the_sum_of_their_counts(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 300, vocab=4, longest=5)
    counts = rng.integers(0, 9, 300)
    catalog = build_catalog(Ragged.from_lists(rows), counts)
    items = defaultdict(list)
    for item, tokens in enumerate(rows):
        items[tuple(tokens)].append(item)
    assert [tuple(row) for row in lists_of(catalog.tokens)] == sorted(items)
    for r, row in enumerate(sorted(items)):
        assert catalog.items_of(r).tolist() == items[row]
        assert catalog.counts[r] == counts[items[row]].sum()
        assert (catalog.row_of_item[items[row]] == r).all()
    assert [catalog.row_of_item.dtype, catalog.first.dtype, catalog.item.dtype] == [np.int32] * 3
    assert catalog.counts.dtype == np.int64


def test_a_title_that_begins_like_another_is_a_row_of_its_own():
    newline = 9
    catalog = catalog_of([[4, 5, 6, newline, EOS], [4, 5, newline, EOS], [4, newline, EOS]])
    assert lists_of(catalog.tokens) == [[4, 5, 6, newline, EOS], [4, 5, newline, EOS], [4, newline, EOS]]
    assert catalog.lcp.tolist() == [-1, 2, 1]


def test_one_title_makes_a_catalogue():
    catalog = catalog_of([[8, 3, EOS]], [5])
    assert (len(catalog), catalog.eos, catalog.lcp.tolist(), catalog.counts.tolist()) == (1, EOS, [-1], [5])
    assert catalog.items_of(0).tolist() == [0]


@pytest.mark.parametrize("bad", [[EOS, 4, EOS], [4, 5], [4, EOS, EOS], []])
def test_the_end_token_inside_a_title_or_missing_is_bad_input_that_names_the_item(bad):
    with pytest.raises(InputError, match="item 2 "):
        catalog_of([[3, EOS], [4, EOS], bad, [5, EOS]])


def test_a_bad_title_is_named_by_its_number_and_needs_no_bad_neighbour():
    with pytest.raises(InputError, match="item 2 "):
        catalog_of([[3, EOS], [4, EOS], [5, EOS, 5, EOS]])


def test_no_item_is_bad_input():
    with pytest.raises(InputError, match="no item"):
        build_catalog(Ragged.from_lists([]), np.zeros(0, int))
