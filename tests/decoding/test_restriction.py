"""What may be recommended to a row: its lists are those of a trie of just these items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from plain_trie import EOS, random_rows
from searches import assert_same_lists, engine_of, index_of, lists
from tiny_models import random_model

from igd_jax.decoding.mixture import mixture
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11], [4, 4, 1]]
K = 4


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_model("decoder")


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    """Some titles are equal, and every fifth item is no candidate."""
    rng = np.random.default_rng(1)
    rows = random_rows(rng, 60, vocab=12, longest=6)
    return index_of(rows, counts=rng.integers(0, 5, 60), candidates=np.arange(60) % 5 != 0)


@pytest.fixture(scope="module")
def allowed(index) -> np.ndarray:
    """All candidates, about half of them, one of them, and few."""
    rng, n_rows = np.random.default_rng(2), len(index.catalog)
    chosen = np.stack([rng.random(n_rows) < share for share in (1.1, 0.5, 0.0, 0.15)])
    chosen[2, np.flatnonzero(index.is_candidate)[7]] = True
    return chosen & index.is_candidate


@pytest.mark.parametrize("length_penalty", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_lists_are_those_of_a_trie_of_the_allowed_rows(length_penalty, model, index, allowed):
    batch = text_batch(PROMPTS)
    found = lists(
        engine_of(model, index, k=K, length_penalty=length_penalty), batch.replace(allowed=jnp.asarray(allowed))
    )
    for row in range(len(PROMPTS)):
        alone = index.with_candidates(allowed[row][index.catalog.row_of_item] & index.candidates)
        expected = lists(engine_of(model, alone, k=K, length_penalty=length_penalty), batch)
        assert_same_lists(*(jax.tree.map(lambda x, row=row: x[row], each) for each in (found, expected)))
    assert (found.rows >= 0).sum(axis=1).tolist() == [K, K, 1, min(K, int(allowed[3].sum()))]


def test_nothing_said_allows_all_candidates(model, index):
    engine, batch = engine_of(model, index, k=K, alpha=0.3), text_batch(PROMPTS)
    whole = lists(engine, batch)
    for mask in (np.ones(len(index.catalog), bool), index.is_candidate):
        said = batch.replace(allowed=jnp.asarray(np.tile(mask, (len(PROMPTS), 1))))
        assert_same_lists(lists(engine, said), whole)


def test_where_nothing_is_allowed_nothing_is_found_though_all_edges_are_forced(model, index):
    nothing = jnp.zeros((len(PROMPTS), len(index.catalog)), bool)
    found = lists(engine_of(model, index, k=K), text_batch(PROMPTS).replace(allowed=nothing))
    assert (found.rows == -1).all()
    one = index_of([[3, 2, EOS], [3, EOS]], candidates=np.array([True, False]))
    masks = jnp.asarray(np.array([[0, 0], [1, 1], [0, 1], [1, 0]], bool))  # row 0 is [3, EOS], which is no candidate
    found = lists(engine_of(model, one, k=1), text_batch(PROMPTS).replace(allowed=masks))
    assert found.rows[:, 0].tolist() == [-1, 1, 1, -1]


def test_a_mixture_scores_what_is_allowed_as_it_scores_it_among_all(model, index, allowed):
    """With a beam for each title, the restricted list is the whole one without the others."""
    k = int(index.is_candidate.sum())
    scores = np.random.default_rng(3).normal(0, 2, (len(PROMPTS), len(index.titles)))
    batch = text_batch(PROMPTS).replace(collaborative=jnp.asarray(scores, jnp.float32))
    mixed = mixture(index, lam=0.4, then=rebalanced(index.gain, alpha=0.2, temperature=1.0))
    engine = engine_of(model, index, k=k, score=mixed)
    whole, found = lists(engine, batch), lists(engine, batch.replace(allowed=jnp.asarray(allowed)))
    plain = lists(engine_of(model, index, k=k), batch)
    for row in range(len(PROMPTS)):
        kept = allowed[row][whole.rows[row]]
        missing = k - kept.sum()
        assert found.rows[row].tolist() == whole.rows[row][kept].tolist() + [-1] * missing
        np.testing.assert_allclose(found.scores[row][: kept.sum()], whole.scores[row][kept], rtol=1e-5, atol=1e-5)
        assert np.isneginf(found.scores[row][kept.sum() :]).all()
    assert (plain.rows != whole.rows).any()
