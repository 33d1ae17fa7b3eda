"""Gain is the loss of entropy mass along an edge: against plain sums."""

import numpy as np
import pytest
from plain_search import plain_factors
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_entropy, plain_trie, random_rows, trie_of

from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.candidates import choose_candidates
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.items.info_gain import edge_gain
from igd_jax.items.trie import build_trie
from igd_jax.prepare import prepare


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


def test_factor_is_the_gain_min_max_scaled_among_seen_siblings_and_zero_for_unseen_ones(case):
    gain, children, counts, root = case
    factors = plain_factors(list(root.below()), counts)
    np.testing.assert_allclose(gain.factor, [factors[child.number] for child in children], rtol=0, atol=1e-6)
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


def _by_token(rows: list[list[int]], counts: list[int]) -> dict[int, tuple[float, bool, float]]:
    """Gain, forced mark and factor of the edges of a trie in which no token stands on two edges."""
    catalog = catalog_of(rows, counts)
    trie = trie_of(catalog)
    gain = edge_gain(trie, catalog.counts)
    edges = zip(gain.gain.tolist(), gain.forced.tolist(), gain.factor.tolist(), strict=True)
    return dict(zip(trie.token[trie.child].tolist(), edges, strict=True))


def test_an_unseen_edge_gains_all_and_decides_but_does_not_make_its_only_seen_sibling_decide():
    edges = _by_token([[1, 2, EOS], [1, 3, EOS], [4, EOS]], [5, 0, 5])
    half = pytest.approx(0.5 * np.log(2))
    assert edges[2] == (0.0, True, 0.0)
    assert edges[3] == (half, False, 0.0)
    assert edges[1] == edges[4] == (half, False, 0.0)


def test_below_an_unseen_edge_nothing_gains_and_all_is_forced():
    edges = _by_token([[1, 5, EOS], [1, 6, EOS], [2, EOS], [3, EOS], [4, EOS]], [0, 0, 90, 9, 1])
    assert edges[5] == edges[6] == (0.0, True, 0.0)
    factors = [edges[token][2] for token in (2, 3, 4)]
    assert (min(factors), max(factors)) == (0, pytest.approx(1, abs=1e-5))
    assert edges[1][1:] == (False, 0.0)


def _along(index: ItemIndex, rows: Ragged) -> dict[str, np.ndarray]:
    """Gain, forced mark and factor of each token of some rows."""
    _, edge = index.trie.walk(rows)
    gain, forced = index.gain.along(edge, np.ones(len(edge), bool))
    return {"gain": gain, "forced": forced, "factor": np.append(index.gain.factor, np.float32(0))[edge]}


def _assert_seen_edges_are_those_of_train_targets_alone(
    everything: ItemIndex, train: np.ndarray, atol: dict[str, float]
) -> None:
    """Compare all edges of train targets, a mask of items, with the same edges of the trie of all candidates.

    They are equal to the bit, but for arrays with an entry in `atol`.
    """
    alone = everything.with_candidates(train)
    rows = everything.item_tokens.take(np.flatnonzero(train & everything.candidates))
    found = _along(everything, rows)
    for name, values in _along(alone, rows).items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol.get(name, 0), err_msg=name)
    assert found["factor"].any()
    assert len(everything.gain.factor) > len(alone.gain.factor)


@pytest.mark.parametrize("seed", range(5))
def test_seen_edges_of_a_random_catalogue_are_those_of_its_train_targets_alone(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 200)
    counts = rng.integers(0, 2, len(rows)) * rng.integers(1, 50, len(rows))
    index = build_index([""] * len(rows), Ragged.from_lists(rows), counts, candidates=np.ones(len(rows), bool))
    _assert_seen_edges_are_those_of_train_targets_alone(index, counts > 0, {})


@pytest.mark.parametrize(
    ("source", "folder", "n_blank"),
    [
        pytest.param("d3", "amazon_books", 2, marks=pytest.mark.slow),
        pytest.param("movielens", "ml-100k", 0, marks=pytest.mark.slow),
        ("amazon2018", "amazon_raw", 0),
    ],
)
def test_seen_edges_of_real_catalogues_are_those_of_their_train_targets_alone(shared, source, folder, n_blank):
    data = prepare(source, path=shared / "data" / folder, options={})
    tokens = load_tokenizer(shared / "models" / "tiny-qwen2-books").encode_titles(data.titles)
    is_blank = np.array([not title.strip() for title in data.titles])
    target = data.splits["train"].target
    assert is_blank[target].sum() == n_blank
    few = target[~is_blank[target]][:500]  # these leave most titles without train targets
    for used in (target, few):
        counts = np.bincount(used, minlength=len(data.titles))
        catalogue, train = (
            choose_candidates(which, data.item_ids, data.titles, counts=counts, seen=counts > 0, option="")
            for which in ("catalogue", "train")
        )
        index = build_index(data.titles, tokens, counts, candidates=catalogue)
        # A blank title that is a train target is not a candidate of the catalogue, so the others have a greater share.
        atol = {"gain": 2.7e-4, "factor": 2.3e-6} if counts[is_blank].any() else {}
        _assert_seen_edges_are_those_of_train_targets_alone(index, train, atol)


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
