"""Scores of given lists of titles, so that others can rerank them (docs/decoding.md, Scores of given lists)."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import by_row
from igd_jax.core.types import TextBatch
from igd_jax.decoding.blocks import blocks_of
from igd_jax.decoding.engine import Engine
from igd_jax.decoding.exact import ExactSearch, title_scores
from igd_jax.decoding.search import TrieSearch
from igd_jax.items.index import ItemIndex


def search_of(engine: Engine, method: str) -> TrieSearch:
    """The search over the trie by whose scores an engine ranks.

    Args:
      engine: the engine.
      method: name of its method, for the message.

    Raises:
      InputError: it does not search the trie.
    """
    if isinstance(engine, ExactSearch):
        return engine.search
    if isinstance(engine, TrieSearch):
        return engine
    raise InputError(f"{method} does not search the trie of titles, so given titles have no scores; ask without score")


def list_scores(
    search: TrieSearch, index: ItemIndex, batch: TextBatch, lists: Sequence[Int[np.ndarray, "..."]], mesh: Mesh
) -> list[Float[np.ndarray, "..."]]:
    """Final scores of given candidates.

    Args:
      search: the search whose scores they are.
      index: items, with the candidates of the search.
      batch: prompts, on the devices; the last rows may be padding.
      lists: catalogue rows of candidates for each prompt, in any order; they may repeat.
      mesh: devices.

    Returns:
      Scores of each list, in its order, float32.
    """
    distinct = [np.unique(rows, return_inverse=True) for rows in lists]
    titles = [index.catalog.tokens.take(rows) for rows, _ in distinct]
    missing = len(batch.prompt) - len(lists)
    blocks, places = blocks_of(index.trie, titles + titles[:1] * missing, of_requests=True)
    with jax.set_mesh(mesh):
        scores = np.asarray(title_scores(search, batch, jax.device_put(blocks, by_row(mesh))))
    return [row[place][at] for row, place, (_, at) in zip(scores, places, distinct, strict=False)]
