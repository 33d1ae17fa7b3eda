"""IGD's edge score against the formula, edge by edge, and what it makes of a search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_search import edge_scores
from table_search import CASES, N_ROWS, SETTINGS, Built, build, run, smooth

from igd_jax.decoding.rebalancing import Rebalanced, rebalanced

every_case = pytest.mark.parametrize("name", CASES)


def score_of(built: Built, alpha: float, temperature: float) -> Rebalanced:
    return rebalanced(built.gain, alpha=alpha, temperature=temperature)


@jax.jit
def _scores(score: Rebalanced, logp: jax.Array, edge: jax.Array) -> jax.Array:
    return score(logp, edge, ())


def all_scores(built: Built, logp: np.ndarray, score: Rebalanced) -> np.ndarray:
    """[N_ROWS M]: of the edge into each node; the root's place has no meaning."""
    edge = np.full(len(built.nodes), built.trie.n_edges, np.int32)
    edge[np.asarray(built.trie.child)[: built.trie.n_edges]] = np.arange(built.trie.n_edges)
    return np.asarray(_scores(score, jnp.asarray(logp)[:, None], jnp.tile(edge, (N_ROWS, 1, 1))))[:, 0]


@every_case
@pytest.mark.parametrize(("alpha", "temperature"), SETTINGS)
def test_edges_are_discounted_by_the_gain_among_their_siblings(name, alpha, temperature):
    built = build(name)
    logp = smooth(built, 3)
    expected = [edge_scores(row, built.factors, alpha=alpha, temperature=temperature) for row in logp]
    found = all_scores(built, logp, score_of(built, alpha, temperature))
    np.testing.assert_allclose(found[:, 1:], np.array(expected)[:, 1:], rtol=1e-6, atol=1e-7)


@every_case
def test_alpha_zero_is_plain_beam_search_to_the_bit(name):
    built = build(name)
    logp, plain = smooth(built, 13), score_of(built, 0.0, 1.0)
    without = plain.replace(factor=jnp.zeros_like(plain.factor), alpha=jnp.float32(1))
    np.testing.assert_array_equal(all_scores(built, logp, plain), all_scores(built, logp, without))
    np.testing.assert_array_equal(all_scores(built, logp, plain), logp - np.float32(1e-7))


def test_alpha_changes_what_is_found():
    built = build("many titles")
    plain, discounted = (run(built, smooth(built, 5), score=score_of(built, alpha, 1.0)) for alpha in (0.0, 1.0))
    assert (plain.rows != discounted.rows).any()


def test_a_sure_token_still_costs_as_much_as_in_the_reference():
    built = build("one title")
    found = run(built, np.zeros((N_ROWS, len(built.nodes)), np.float32), score=score_of(built, 0.0, 1.0))
    np.testing.assert_allclose(found.scores[:, 0], -3e-7, rtol=1e-5)


def test_temperature_alone_rescales_scores_and_keeps_the_order():
    built = build("many titles")
    cold, warm = (run(built, smooth(built, 29), score=score_of(built, 0.2, temperature)) for temperature in (1.0, 4.0))
    np.testing.assert_array_equal(cold.rows, warm.rows)
    np.testing.assert_allclose(cold.scores, 4 * warm.scores, rtol=1e-5)
