"""D3's edge score: the masses below edges, and the two ends of its share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from plain_trie import EOS, lists_of, plain_trie, random_rows
from searches import index_of

from igd_jax.decoding.mixture import Mixture, mixture
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.siblings import prefix_sums
from igd_jax.items.index import ItemIndex


def mixture_of(index: ItemIndex, lam: float = 0.5) -> Mixture:
    return mixture(index, lam=lam, then=rebalanced(index.gain, alpha=0.3, temperature=1.0))


@jax.jit
def _log_share(score: Mixture, scores: jax.Array) -> jax.Array:
    return score.of_rows(text_batch([[1]] * len(scores)).replace(collaborative=scores))[0]


def log_share(index: ItemIndex, scores: np.ndarray) -> np.ndarray:
    return np.asarray(_log_share(mixture_of(index), jnp.asarray(scores)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("all_are_candidates", [True, False])
def test_the_share_of_an_edge_is_its_items_mass_among_its_siblings(seed, all_are_candidates):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 60)  # some titles are equal, so rows hold several items
    candidates = np.ones(60, bool) if all_are_candidates else rng.random(60) < 0.7
    index = index_of(rows, candidates=candidates)
    scores = rng.normal(0, 4, (2, len(rows))).astype(np.float32)
    ours = log_share(index, scores)
    assert (ours[:, -1] == 0).all()
    p = np.exp(scores.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    by_row = np.zeros((2, len(index.catalog)))
    np.add.at(by_row, (slice(None), index.catalog.row_of_item[candidates]), p[:, candidates])
    by_row = by_row[:, index.is_candidate]
    kept = [row for row, there in zip(lists_of(index.catalog.tokens), index.is_candidate, strict=True) if there]
    nodes, edge = plain_trie(kept), 0
    for node in nodes:
        if len(node.children) > 1:
            mass = np.stack([by_row[:, child.rows].sum(1) for child in node.by_token()], axis=1)
            expected = np.log(mass / mass.sum(1, keepdims=True))
            np.testing.assert_allclose(ours[:, edge : edge + mass.shape[1]], expected, rtol=1e-4, atol=1e-5)
            edge += mass.shape[1]
    assert edge == ours.shape[1] - 1


def test_prefix_sums_keep_what_one_float_would_lose():
    x = np.concatenate([[1.0], np.full(999, 1e-12)]).astype(np.float32)
    whole, rest = jax.jit(prefix_sums)(jnp.asarray(x))
    tail = (whole[1000] - whole[1]) + (rest[1000] - rest[1])
    np.testing.assert_allclose(tail, 999e-12, rtol=1e-5)
    assert whole[1000] - whole[1] == 0  # one float loses it all
    assert (whole[0], rest[0]) == (0, 0)


def test_a_source_that_gives_an_edge_nothing_makes_it_unlikely_but_not_impossible():
    share = log_share(index_of([[1, EOS], [2, EOS]]), np.array([[0.0, -np.inf]], np.float32))
    np.testing.assert_allclose(share[0, :2], [0, np.log(1e-20)], atol=1e-3)


@pytest.mark.parametrize("lam", [1.0, 0.0, 0.25])
def test_edges_mix_both_shares_and_hand_them_on(lam):
    """At 1 it is the other score to the bit, and at 0 that of the source."""
    rng = np.random.default_rng(5)
    index = index_of(random_rows(rng, 60))
    score = mixture_of(index, lam)
    n_edges = len(index.gain.factor)
    edge = jnp.asarray(rng.integers(0, n_edges + 1, (2, 3, 8)), jnp.int32)
    logp = jnp.asarray(-rng.gamma(1, 2, edge.shape), jnp.float32)
    rows = _log_share(score, jnp.asarray(rng.normal(0, 2, (2, 60)), jnp.float32))
    share = np.take_along_axis(np.asarray(rows), np.asarray(edge).reshape(2, -1), axis=1).reshape(edge.shape)
    mixed = jnp.asarray(np.float32(lam) * logp + np.float32(1 - lam) * share)
    found, expected = jax.jit(lambda score: (score(logp, edge, (rows, ())), score.then(mixed, edge, ())))(score)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if lam == 1.0:
        np.testing.assert_array_equal(found, jax.jit(lambda then: then(logp, edge, ()))(score.then))
