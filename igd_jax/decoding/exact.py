"""Exact ranking: every candidate is scored, with the edge scores of a search and without its beam.

The score of a title is that of the search: its edge scores summed, over length^length_penalty. So the list differs from
that of the beam only by what the beam drops.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.search import TrieSearch
from igd_jax.items.index import ItemIndex
from igd_jax.models.backbone import Prefix
from igd_jax.models.visibility import Causal

LARGEST = 1 << 26
"""Most logits at once."""
MOST_TITLES = 256
"""Most titles at once."""


@struct.dataclass
class Titles:
    """Some candidates, padded on the right.

    Attributes:
      token: ids of each title.
      is_token: True on real ids.
      edge: edge of each token among those out of branching nodes; E for an only child.
    """

    token: Int[Array, "n T"]
    is_token: Bool[Array, "n T"]
    edge: Int[Array, "n T"]


class ExactRanking:
    """Ranks all candidates that the search can finish.

    Args:
      engine: the search.
      index: items with the candidates of the search.

    Attributes:
      n_left_out: number of candidates that are longer than the search writes.
    """

    def __init__(self, engine: TrieSearch, index: ItemIndex):
        rows = index.catalog.tokens.take(index.trie.row)
        fits = np.flatnonzero(rows.lengths <= engine.options.max_length)
        self._engine, self._rows, self.n_left_out = engine, index.trie.row[fits], len(rows) - len(fits)
        token = rows.pad(int(rows.lengths.max()))
        is_token = np.arange(token.shape[1]) < rows.lengths[:, None]
        edge = np.full(token.shape, -1)
        edge[is_token] = index.trie.walk(rows)[1]
        edge = np.where(edge < 0, engine.trie.n_edges, edge).astype(np.int32)
        # Equal chunks, so that there is one program; the last one begins again with the first titles.
        size = max(1, min(MOST_TITLES, LARGEST // (token.shape[1] * engine.model.config.vocab_size), len(fits)))
        chunks = [np.arange(begin, begin + size) % len(fits) for begin in range(0, len(fits), size)]
        arrays = (token, is_token, edge)
        self._chunks = [Titles(*(jnp.asarray(array[fits[chunk]]) for array in arrays)) for chunk in chunks]

    def rank(self, batch: TextBatch, k: int, *, width: int) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The catalogue rows and scores of the best k candidates after one prompt; -1 and -inf if there are fewer.

        Args:
          batch: one row.
          k: length of the list.
          width: as in `decoding.engine.recommend`.
        """
        prefix, of_rows = _read(self._engine, batch, width)
        found = [_scores(self._engine, prefix, of_rows, chunk) for chunk in self._chunks]
        scores = np.concatenate(jax.device_get(found) or [np.zeros(0, np.float32)])[: len(self._rows)]
        best = np.argsort(-scores, kind="stable")[:k]
        missing = (0, k - len(best))
        return (
            np.pad(self._rows[best], missing, constant_values=-1),
            np.pad(scores[best], missing, constant_values=-np.inf),
        )


@partial(jax.jit, static_argnums=2)
def _read(engine: TrieSearch, batch: TextBatch, width: int) -> tuple[Prefix, Any]:
    prefix = engine.model.prefill(batch)
    return prefix.pad_to(max(width, prefix.width)), engine.edge_score.of_rows(batch)


@jax.jit
def _scores(engine: TrieSearch, prefix: Prefix, of_rows: Any, titles: Titles) -> Float[Array, " n"]:
    """Final score of each title after one prompt."""
    model, (n_titles, n_tokens) = engine.model, titles.token.shape
    many = prefix.take(jnp.zeros(n_titles, jnp.int32))
    positions = many.length[:, None] + jnp.arange(n_tokens)[None]
    hidden, _ = model.extend(many, titles.token, positions=positions, visible=Causal(titles.is_token))
    logits = model.logits(jnp.concatenate([many.hidden[:, None], hidden[:, :-1]], axis=1))
    if engine.softmax_temperature != 1.0:
        logits = logits / engine.softmax_temperature
    logp = jnp.take_along_axis(logits, titles.token[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)
    # The titles stand in the place of beams, and their tokens in that of children: a score looks at one edge at a time.
    score = engine.edge_score(logp[None], titles.edge[None], of_rows)[0]
    length = titles.is_token.sum(axis=1).astype(jnp.float32)
    return jnp.where(titles.is_token, score, 0.0).sum(axis=1) / length**engine.options.length_penalty
