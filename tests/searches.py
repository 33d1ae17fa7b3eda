"""Small catalogues, and searches over them with small models."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.chains import chains_of
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.engine import recommend
from igd_jax.decoding.jump import Jump
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.restriction import restricted
from igd_jax.decoding.search import TrieSearch
from igd_jax.decoding.stepwise import Stepwise
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.models.backbone import Backbone


def index_of(
    rows: list[list[int]], *, counts: np.ndarray | None = None, candidates: np.ndarray | None = None
) -> ItemIndex:
    """Items by their token rows; all are candidates with a count of 1 unless said otherwise."""
    counts = np.ones(len(rows), int) if counts is None else counts
    candidates = np.ones(len(rows), bool) if candidates is None else candidates
    return build_index([str(row) for row in rows], Ragged.from_lists(rows), counts, candidates=candidates)


def engine_of(
    model: Backbone,
    index: ItemIndex,
    *,
    k: int,
    alpha: float = 0.0,
    length_penalty: float = 0.0,
    temperature: float = 1.0,
    score: EdgeScore | None = None,
) -> Stepwise:
    """A search of k beams, by IGD's score unless another is given."""
    score = rebalanced(index.gain, alpha=alpha, temperature=temperature) if score is None else score
    return Stepwise(
        *nnx.split(model),
        trie=device_trie(index.trie),
        edge_score=restricted(index.trie, score),
        options=SearchOptions(k, index.longest, length_penalty),
        top_k=k,
    )


def jump_of(stepwise: Stepwise, index: ItemIndex, *, n_tokens: int, fill: int) -> Jump:
    """The same search, which reads chains."""
    given = {field.name: getattr(stepwise, field.name) for field in dataclasses.fields(stepwise)}
    return Jump(**given, chains=chains_of(index.trie, index.catalog.counts), n_tokens=n_tokens, fill=fill)


def lists(engine: TrieSearch, batch: TextBatch) -> Recommendations:
    """Recommendations as NumPy arrays."""
    return jax.tree.map(np.asarray, recommend(engine, batch))


def assert_same_lists(found: Recommendations, expected: Recommendations) -> None:
    """The same rows in the same order, with nearly the same scores."""
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
