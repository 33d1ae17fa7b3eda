"""What may be recommended to a row: its lists are those of a trie of just these items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from plain_trie import EOS, random_rows
from searches import assert_same_lists, engine_of, index_of, lists
from tiny_models import random_model

from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.mixture import mixture
from igd_jax.decoding.normalizing import AmongChildren
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.stepwise import Stepwise
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11], [4, 4, 1]]
K = 4


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_model("decoder")


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    """Some titles are equal, and every fifth item is not a candidate."""
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


def _scored(index: ItemIndex, kind: str) -> EdgeScore:
    score: EdgeScore = rebalanced(index.gain, alpha=0.0 if kind == "plain" else 0.6, temperature=1.0)
    if kind == "mixed":
        score = mixture(index, lam=0.4, then=score)
    return AmongChildren(score) if kind == "children" else score


@pytest.mark.parametrize(
    ("kind", "length_penalty"),
    [("mixed", 0.0), *(pytest.param(kind, 0.5, marks=pytest.mark.slow) for kind in ("plain", "gain", "children"))],
)
def test_lists_are_those_of_a_trie_of_the_allowed_rows(kind, length_penalty, model, index, allowed):
    source = np.random.default_rng(3).normal(0, 2, (len(PROMPTS), len(index.titles)))
    batch = text_batch(PROMPTS).replace(collaborative=jnp.asarray(source, jnp.float32))

    def engine(index: ItemIndex) -> Stepwise:
        return engine_of(model, index, k=K, length_penalty=length_penalty, score=_scored(index, kind))

    found = lists(engine(index), batch.replace(allowed=jnp.asarray(allowed)))
    for row in range(len(PROMPTS)):
        alone = index.with_candidates(allowed[row][index.catalog.row_of_item] & index.candidates)
        expected = lists(engine(alone), batch)
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
    masks = jnp.asarray(np.array([[0, 0], [1, 1], [0, 1], [1, 0]], bool))  # row 0 is [3, EOS], which is not a candidate
    found = lists(engine_of(model, one, k=1), text_batch(PROMPTS).replace(allowed=masks))
    assert found.rows[:, 0].tolist() == [-1, 1, 1, -1]


def test_factors_are_those_of_a_trie_of_the_allowed_rows(index):
    """Of a thousand titles, many of which are never train targets, with counts of very different size."""
    rng = np.random.default_rng(4)
    index = index_of(random_rows(rng, 1000, vocab=12, longest=6), counts=rng.zipf(1.3, 1000).clip(max=10**5) - 1)
    allowed = rng.random((2, len(index.catalog))) < np.array([[0.5], [0.02]])
    score = rebalanced(index.gain, alpha=1.0, temperature=1.0)
    batch = text_batch(PROMPTS[:2]).replace(allowed=jnp.asarray(allowed))
    (factors,) = jax.jit(lambda score: score.of_rows(batch))(score)
    for row, factor in zip(allowed, np.asarray(factors), strict=True):
        alone = index.with_candidates(row[index.catalog.row_of_item])
        rows = alone.catalog.tokens.take(alone.trie.row)
        theirs, ours = (each.trie.walk(rows)[1] for each in (alone, index))
        expected = np.append(alone.gain.factor, np.float32(0))[theirs]
        np.testing.assert_allclose(np.where(theirs >= 0, factor[ours], 0), expected, atol=2e-3)
