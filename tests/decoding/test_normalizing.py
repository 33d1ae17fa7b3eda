"""Scores among the legal children of a node, against the definition, title by title."""

import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from plain_trie import random_rows
from searches import engine_of, index_of, lists
from tiny_models import VOCAB, random_model

from igd_jax.decoding.exact import exact_search
from igd_jax.decoding.normalizing import AmongChildren
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.items.index import ItemIndex
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Causal

PROMPT = [5, 6, 7]
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_model("decoder")


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    rng = np.random.default_rng(8)
    rows = sorted({tuple(row) for row in random_rows(rng, 30, vocab=VOCAB, longest=6)})
    return index_of([list(row) for row in rows], counts=rng.integers(0, 4, len(rows)))


def _by_hand(model: Decoder, index: ItemIndex, *, alpha: float) -> np.ndarray:
    """Scores of all titles, of which each is read by itself."""
    titles = [index.catalog.tokens[row].tolist() for row in index.trie.row.tolist()]
    width = len(PROMPT) + max(map(len, titles))
    tokens = np.array([PROMPT + title + [0] * (width - len(PROMPT) - len(title)) for title in titles], np.int32)
    positions = jnp.broadcast_to(jnp.arange(width)[None], tokens.shape)
    hidden, _ = model(jnp.asarray(tokens), positions=positions, visible=Causal(jnp.ones(tokens.shape, bool)))
    logits = np.asarray(model.logits(hidden), np.float64)
    edge = iter(index.trie.walk(index.catalog.tokens.take(index.trie.row))[1].tolist())
    scores = []
    for row, title in enumerate(titles):
        total = 0.0
        for place, token in enumerate(title):
            legal = sorted({other[place] for other in titles if other[:place] == title[:place]})
            here = logits[row, len(PROMPT) + place - 1]
            logp = here[token] - np.log(np.exp(here[legal]).sum())
            factor = np.append(index.gain.factor, 0.0)[next(edge)]
            total += (logp / TEMPERATURE - 1e-7) * (1 - alpha * factor)
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_scores_are_normalised_among_children_in_every_search(alpha, model, index):
    n = len(index.trie.row)
    score = AmongChildren(rebalanced(index.gain, alpha=alpha, temperature=TEMPERATURE))
    beam = engine_of(model, index, k=n, score=score)
    expected = _by_hand(model, index, alpha=alpha)
    for engine in (beam, exact_search(beam, index)):
        found = lists(engine, text_batch([PROMPT]))
        by_row = dict(zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True))
        np.testing.assert_allclose([by_row[row] for row in index.trie.row.tolist()], expected, rtol=1e-4, atol=1e-4)
    if not alpha:
        np.testing.assert_allclose(np.exp(expected * TEMPERATURE).sum(), 1.0, rtol=1e-4)  # as they are all there is


def test_a_forced_token_costs_nothing(model):
    only = index_of([[3, 4, 5, 0]])
    score = AmongChildren(rebalanced(only.gain, alpha=0.0, temperature=1.0))
    found = lists(engine_of(model, only, k=1, score=score), text_batch([PROMPT]))
    np.testing.assert_allclose(found.scores, -4e-7, atol=1e-8)
