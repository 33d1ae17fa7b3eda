"""Shares of the uncertainty that tokens remove, against sums over a plain trie."""

import numpy as np
import pytest
from plain_trie import EOS, PlainNode, plain_entropy, plain_trie, random_rows

from igd_jax.core.ragged import Ragged
from igd_jax.items.gain_weights import ENTROPIES, entropy_below, gain_share
from igd_jax.items.index import ItemIndex, build_index


def _index(rows: list[list[int]], counts: list[int]) -> ItemIndex:
    titles = [str(row) for row in rows]
    return build_index(titles, Ragged.from_lists(rows), np.array(counts), candidates=np.ones(len(rows), bool))


def _prefix_entropy(node: PlainNode, counts: list[int]) -> float:
    below = [counts[r] for r in node.rows if counts[r]]
    return -sum(c / sum(below) * np.log(c / sum(below)) for c in below)


H = {"mass": plain_entropy, "prefix": _prefix_entropy}


@pytest.mark.parametrize("kind", ["mixed", "ones", "one seen", "none seen"])
@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("weights", ["gain", "relative"])
def test_shares_equal_sums_over_a_plain_trie(weights, entropy, kind):
    rng = np.random.default_rng(4)
    rows = [list(row) for row in {tuple(row) for row in random_rows(rng, 150)}]
    n = len(rows)
    drawn = {"mixed": rng.integers(0, 2, n) * 10 ** rng.integers(0, 5, n), "ones": np.ones(n, int)}
    drawn |= {"one seen": np.arange(n) == n // 2, "none seen": np.zeros(n, int)}
    counts = drawn[kind].astype(int).tolist()
    nodes = plain_trie(rows)
    h = {node: H[entropy](node, counts) if any(counts) else 0.0 for node in nodes}
    expected = []
    for row in rows:
        node = nodes[0]
        for token in row:
            parent, node = node, node.children[token]
            n_seen = [sum(counts[r] > 0 for r in each.rows) for each in (parent, node)]
            whole = h[parent] if weights == "relative" else h[nodes[0]]
            removed = h[parent] - h[node]
            expected.append(np.clip(removed / whole, 0, 1) if n_seen[0] != n_seen[1] and whole > 0 else 0.0)
    found = gain_share(_index(rows, counts), weights=weights, entropy=entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert (found.max() > 0.3) == (kind in ("mixed", "ones"))


def test_a_token_that_names_the_last_title_removes_all_that_is_left():
    index = _index([[1, 2, EOS], [1, 3, EOS], [4, EOS]], [2, 2, 4])
    relative = gain_share(index, weights="relative", entropy="prefix")
    # H is 1.5 bits at the root, one bit after token 1, and none after any other
    np.testing.assert_allclose(relative, [1 / 3, 1, 0, 1 / 3, 1, 0, 1, 0], rtol=1e-12)
    np.testing.assert_allclose(
        gain_share(index, weights="gain", entropy="prefix"), [1 / 3, 2 / 3, 0, 1 / 3, 2 / 3, 0, 1, 0], rtol=1e-12
    )
    # the mass of titles with p of 1/4, 1/4 and 1/2 is half a bit each
    np.testing.assert_allclose(
        gain_share(index, weights="relative", entropy="mass"), [1 / 3, 1 / 2, 0, 1 / 3, 1 / 2, 0, 2 / 3, 0], rtol=1e-12
    )


def test_a_token_after_which_more_is_open_than_before_has_no_share():
    rows = [[1, EOS], *([2, token, EOS] for token in range(3, 9))]
    index = _index(rows, [1000, 1, 1, 1, 1, 1, 1])
    prefix = gain_share(index, weights="relative", entropy="prefix")
    assert prefix[:5].tolist() == [1, 0, 0, 1, 0]
    assert (gain_share(index, weights="relative", entropy="mass")[[0, 2, 3]] > 0).all()


def test_the_entropy_of_one_seen_row_is_exactly_zero_given_the_prefix():
    counts, bounds = np.array([0, 7, 0]), (np.array([0, 2]), np.array([3, 3]))
    assert entropy_below(counts, *bounds, entropy="prefix").tolist() == [0, 0]


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("weights", ["gain", "relative"])
def test_titles_that_are_not_candidates_have_no_mass(weights, entropy):
    rows, counts = [[1, 2, EOS], [1, 3, EOS], [1, 4, EOS], [5, EOS]], [2, 9, 2, 4]
    few = _index(rows, counts).with_candidates(np.array([True, False, True, True]))
    alone = _index([rows[0], *rows[2:]], [2, 2, 4])
    found, expected = (gain_share(index, weights=weights, entropy=entropy) for index in (few, alone))
    np.testing.assert_allclose(np.delete(found, slice(3, 6)), expected, rtol=1e-12)
