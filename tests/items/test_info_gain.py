"""Gain is the loss of entropy mass along an edge: against plain sums."""

import numpy as np
import pytest
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_entropy, plain_trie, random_rows, trie_of

from igd_jax.items.info_gain import edge_gain
from igd_jax.items.trie import build_trie


def _counts(kind: str, n: int) -> list[int]:
    rng = np.random.default_rng(n)
    drawn = {
        "ones": np.ones(n, int),
        "many unseen": rng.integers(0, 2, n) * rng.integers(0, 5, n),
        "one seen": np.arange(n) == n // 2,
        "none seen": np.zeros(n, int),
        "very uneven": 10 ** rng.integers(0, 7, n),
    }
    return drawn[kind].astype(int).tolist()


@pytest.fixture(params=["ones", "many unseen", "one seen", "none seen", "very uneven"])
def case(request):
    """Trie, gain, and for each edge of the trie the plain child, its parent and the counts."""
    rows = random_rows(np.random.default_rng(3), 120)
    catalog = catalog_of(rows, _counts(request.param, len(rows)))
    trie, nodes = trie_of(catalog), plain_trie(lists_of(catalog.tokens))
    return edge_gain(trie, catalog.counts), [nodes[child] for child in trie.child], catalog.counts.tolist(), nodes[0]


def _plain_gain(child: PlainNode, counts: list[int]) -> float:
    return plain_entropy(child.parent, counts) - plain_entropy(child, counts)


def test_gain_is_the_entropy_of_the_parent_less_that_of_the_child(case):
    gain, children, counts, root = case
    np.testing.assert_allclose(gain.gain, [_plain_gain(child, counts) for child in children], rtol=1e-9, atol=1e-14)
    assert gain.root_entropy == pytest.approx(plain_entropy(root, counts), rel=1e-12)


def test_edges_are_forced_where_no_seen_title_lies_off_them_and_gain_is_zero_exactly_there(case):
    gain, children, counts, _ = case

    def seen(node: PlainNode) -> int:
        return sum(counts[r] > 0 for r in node.rows)

    assert gain.forced.tolist() == [seen(child) == seen(child.parent) for child in children]
    assert (gain.gain[gain.forced] == 0).all()
    # The only seen title holds all the mass, and -1 ln 1 = 0 is no gain either.
    assert (gain.gain[~gain.forced] > 0).all() or np.count_nonzero(counts) == 1


def test_factor_is_the_gain_min_max_scaled_among_siblings(case):
    gain, children, counts, _ = case
    for factor, child in zip(gain.factor, children, strict=True):
        among = [_plain_gain(sibling, counts) for sibling in child.parent.children.values()]
        low, high = min(among), max(among)
        assert factor == pytest.approx((_plain_gain(child, counts) - low) / (high - low + 1e-7), abs=1e-6)
    assert gain.factor.dtype == np.float32


def test_factors_of_three_children_scale_their_gains():
    catalog = catalog_of([[1, EOS], [2, EOS], [3, EOS]], [98, 1, 1])
    gain = edge_gain(trie_of(catalog), catalog.counts)
    masses = -np.array([0.98, 0.01, 0.01]) * np.log([0.98, 0.01, 0.01])
    np.testing.assert_allclose(gain.gain, masses.sum() - masses, rtol=1e-12)
    np.testing.assert_allclose(gain.factor, [1, 0, 0] if masses[0] < masses[1] else [0, 1, 1], atol=1e-5)


def test_siblings_of_equal_gain_have_factor_zero():
    catalog = catalog_of([[1, EOS], [2, EOS], [3, EOS], [4, EOS]], [7, 7, 7, 7])
    np.testing.assert_allclose(edge_gain(trie_of(catalog), catalog.counts).factor, 0, atol=1e-6)


def test_unseen_titles_neither_gain_nor_make_the_seen_one_decide():
    catalog = catalog_of([[1, 2, EOS], [1, 3, EOS], [4, EOS]], [5, 0, 5])
    trie = trie_of(catalog)
    gain = edge_gain(trie, catalog.counts)
    by_token = dict(zip(trie.token[trie.child].tolist(), zip(gain.gain, gain.forced, strict=True), strict=True))
    half = 0.5 * np.log(2)
    assert by_token[2] == (0.0, True)
    assert by_token[3] == (pytest.approx(half), False)
    assert by_token[1] == by_token[4] == (pytest.approx(half), False)


def test_along_gives_every_edge_of_a_walk_its_gain_and_calls_all_others_forced():
    rows = random_rows(np.random.default_rng(5), 60)
    catalog = catalog_of(rows, _counts("many unseen", 60))
    trie, counts = trie_of(catalog), catalog.counts.tolist()
    gain = edge_gain(trie, catalog.counts)
    rows = catalog.tokens
    node, edge = trie.walk(rows)
    is_on = np.arange(len(rows.ids)) >= rows.start[1]  # as if row 0 were off the trie
    found, forced = gain.along(edge, is_on)
    nodes = plain_trie(lists_of(rows))
    expected = np.array([_plain_gain(nodes[n], counts) if on else 0.0 for n, on in zip(node, is_on, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert (forced == (np.abs(expected) < 1e-12)).all()
    assert (found[forced] == 0).all()


def test_gain_over_some_rows_is_that_of_a_catalogue_of_those_alone_to_the_bit():
    rng = np.random.default_rng(8)
    rows = random_rows(rng, 200)
    catalog = catalog_of(rows, _counts("many unseen", len(rows)))
    is_candidate = rng.random(len(catalog)) < 0.4
    some = edge_gain(build_trie(catalog, is_candidate), np.where(is_candidate, catalog.counts, 0))
    lists = lists_of(catalog.tokens.take(np.flatnonzero(is_candidate)))
    few = catalog_of(lists, catalog.counts[is_candidate].tolist())
    alone = edge_gain(trie_of(few), few.counts)
    for field in ("root_entropy", "gain", "forced", "factor"):
        np.testing.assert_array_equal(getattr(some, field), getattr(alone, field), err_msg=field)
    assert some.gain.any()


def test_one_title_has_no_edge_that_decides():
    catalog = catalog_of([[1, 2, EOS]], [4])
    gain = edge_gain(trie_of(catalog), catalog.counts)
    assert (len(gain.gain), len(gain.forced), len(gain.factor), gain.root_entropy) == (0, 0, 0, 0.0)
