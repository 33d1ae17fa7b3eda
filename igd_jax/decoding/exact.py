"""Exact ranking: every candidate is scored, with the edge scores of a search and without its beam.

The score of a title is that of the search: its edge scores summed, over length^length_penalty. So the list differs from
that of the beam only by what the beam drops. The model reads each node of the trie once per prompt, in blocks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.errors import InputError
from igd_jax.core.log import say_once
from igd_jax.core.sharding import row_shards_here
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.blocks import Blocks, blocks_of
from igd_jax.decoding.dense_topk import top_k
from igd_jax.decoding.engine import OneCall
from igd_jax.decoding.search import TrieSearch
from igd_jax.items.index import ItemIndex
from igd_jax.models.backbone import Backbone, Prefix
from igd_jax.models.visibility import Tree, mask_of

MOST_LOGITS = 1 << 26
"""Most logits at once, on a device."""


@struct.dataclass
class ExactSearch(OneCall):
    """Ranks all candidates that the search can finish; see `decoding.engine.Engine`.

    Attributes:
      search: the search whose scores they get.
      blocks: the candidates.
      place: where each of them ends; see `decoding.blocks.blocks_of`.
      row: catalogue row of each, ascending.
      n_left_out: number of candidates that are longer than the search writes.
    """

    search: TrieSearch
    blocks: Blocks
    place: Int[Array, " n"]
    row: Int[Array, " n"]
    n_left_out: int = struct.field(pytree_node=False)

    def prefill(self, batch: TextBatch) -> Recommendations:
        """Lists of all rows."""
        score = title_scores(self.search, batch, self.blocks)[:, self.place]
        score = jnp.where(batch.is_real[:, None], score, -jnp.inf)
        score, best = top_k(score, self.search.top_k)
        return Recommendations(rows=jnp.where(score > -jnp.inf, self.row[best], -1), scores=score)


def exact_search(search: TrieSearch, index: ItemIndex) -> ExactSearch:
    """Make the engine that ranks the candidates of `index` by the scores of a search over them.

    Prints how many of them are longer than the search writes, and so in no list, if there are any.

    Raises:
      InputError: all candidates are longer than the search writes.
    """
    titles = index.catalog.tokens.take(index.trie.row)
    fits = np.flatnonzero(titles.lengths <= (longest := search.options.max_length))
    if not len(fits):
        raise InputError(
            f"config.decode.max_new_tokens is {longest}, but the shortest title has {titles.lengths.min()} tokens, so "
            "there is nothing to rank; raise it, or set it to 0 for the longest title"
        )
    if n_left_out := len(titles) - len(fits):
        say_once(
            f"{n_left_out:,} of {len(titles):,} candidates are longer than config.decode.max_new_tokens={longest} and "
            "are not ranked"
        )
    blocks, (place,) = blocks_of(index.trie, [titles.take(fits)])
    blocks, place, row = jax.tree.map(jnp.asarray, (blocks, place.astype(np.int32), index.trie.row[fits]))
    return ExactSearch(search, blocks, place, row, n_left_out)


def rows_at_once(n_columns: int, vocab_size: int) -> int:
    """Rows whose logits a device holds together, one at least: as many as fit `MOST_LOGITS`."""
    return max(MOST_LOGITS // (n_columns * vocab_size), 1)


@jax.jit
def title_scores(search: TrieSearch, batch: TextBatch, blocks: Blocks) -> Float[Array, "B columns"]:
    """Final scores of titles after each prompt, in the columns where they end; -inf in all others.

    Args:
      search: the search, of which the length limit is ignored.
      batch: prompts.
      blocks: titles, the same for all rows or of each row.
    """
    model = search.model
    prefix, of_rows = model.prefill(batch), search.edge_score.of_rows(batch)
    n_rows, n_columns = len(batch.prompt), blocks.node.shape[2]
    n_shards = row_shards_here() if n_rows % row_shards_here() == 0 else 1
    n_own, most = n_rows // n_shards, rows_at_once(n_columns, model.config.vocab_size)
    size = n_shards * next(size for size in range(min(most, n_own), 0, -1) if n_own % size == 0)

    def of_some(rows: Int[Array, " b"]) -> Float[Array, "b columns"]:
        some, some_rows = prefix.take(rows), jax.tree.map(lambda x: x[rows], of_rows)
        by_block = jax.tree.map(lambda x: jnp.moveaxis(x if len(x) == 1 else x[rows], 1, 0), blocks)

        def of_block(block: Blocks) -> Float[Array, "b T"]:
            own = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(rows), *x.shape[1:])), block)
            return _scores(search, model, some, some_rows, own)

        scores = jax.lax.map(of_block, by_block)
        return jnp.moveaxis(scores, 0, 1).reshape(len(rows), -1)

    return jax.lax.map(of_some, jnp.arange(n_rows).reshape(-1, size)).reshape(n_rows, -1)


def _scores(search: TrieSearch, model: Backbone, prefix: Prefix, of_rows: Any, block: Blocks) -> Float[Array, "b T"]:
    """Scores of the titles that end in each column of a block; its arrays are [b T] here."""
    visible = Tree(block.node, block.leave)
    hidden, _ = model.extend(
        prefix,
        block.token[:, 1:],
        positions=prefix.length[:, None] + block.depth[:, 1:] - 1,
        visible=Tree(block.node[:, 1:], block.leave[:, 1:]),
    )
    logits, total = search.normalized(model, jnp.concatenate([prefix.hidden[:, None], hidden], axis=1))
    n_rows, at = len(logits), block.branching
    every = jnp.broadcast_to(jnp.arange(block.node.shape[1])[None], block.node.shape)
    only = search.edge_scores(logits, total, every, search.trie.children(block.node, 1), of_rows)[..., 0]
    branching = search.trie.children(jnp.take_along_axis(block.node, at, axis=1), block.width)
    among = search.edge_scores(logits, total, at, branching, of_rows)
    edges = jnp.concatenate([only, jnp.full((n_rows, 1), -jnp.inf), among.reshape(n_rows, -1)], axis=1)
    into, end = (jnp.take_along_axis(edges, x, axis=1) for x in (block.into, block.end))
    path = jnp.where(mask_of(visible), into[:, None], 0.0).sum(axis=2)
    length = (block.depth + 1).astype(jnp.float32)
    return (path + end) / length**search.options.length_penalty
