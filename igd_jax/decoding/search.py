"""What all engines of the trie search have in common, whatever the order in which they compute edge scores."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.decoding.device_trie import Children, DeviceTrie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.recurrence import Edges, Hypotheses, SearchOptions, advance, root
from igd_jax.decoding.table import ScoredChildren, best
from igd_jax.models.backbone import Backbone, KVCache, Prefix

SEARCHES = JUMP, STEPWISE, EXACT = ("jump", "stepwise", "exact")
"""Engines of the trie search. The first two find the lists of the same beam, with many tokens of each beam per call of
the model or with one; the last scores all candidates."""
NARROW = 64
"""Children that are looked at for every node; wider nodes, which are few, take turns."""


class Prefilled(NamedTuple):
    """Rows whose first tokens have been selected.

    Attributes:
      prefix: keys and values of the prompts.
      hypotheses: best children of the root.
      of_rows: data of each row for the edge score.
    """

    prefix: Prefix
    hypotheses: Hypotheses
    of_rows: Any

    def take(self, rows: Int[Array, " n"]) -> "Prefilled":
        """The given rows of the batch."""
        hypotheses, of_rows = jax.tree.map(lambda x: x[rows], (self.hypotheses, self.of_rows))
        return Prefilled(self.prefix.take(rows), hypotheses, of_rows)


@struct.dataclass
class TrieSearch:
    """A model, the candidates, and the score of the search.

    Attributes:
      graph, weights: the model, split by `nnx.split`.
      trie: the candidates.
      edge_score: score of each edge.
      options: number of beams, length limit and penalty.
      top_k: length of the lists, at most the number of beams.
      softmax_temperature: divisor of the logits before normalisation.
    """

    graph: Any = struct.field(pytree_node=False)
    weights: Any
    trie: DeviceTrie
    edge_score: EdgeScore
    options: SearchOptions
    top_k: int = struct.field(pytree_node=False)
    softmax_temperature: float = struct.field(pytree_node=False, default=1.0)

    @property
    def model(self) -> Backbone:
        """The model with its weights."""
        return nnx.merge(self.graph, self.weights)

    @property
    def n_children(self) -> int:
        """Children that can matter of a node other than the root: the recurrence keeps the best 2K candidates."""
        return min(2 * self.options.num_beams, self.trie.width)

    def prefill(self, batch: TextBatch, shared: KVCache | None = None) -> Prefilled:
        """Read the prompts and select the first tokens; `shared` is `Backbone.read_shared` of what they begin with."""
        model = self.model
        prefix, of_rows = model.prefill(batch, shared), self.edge_score.of_rows(batch)
        hypotheses = root(batch.is_real, num_beams=self.options.num_beams)
        children = self.trie.children(hypotheses.node, self.trie.root_width)
        logits, total = self.normalized(model, prefix.hidden[:, None])
        score = self.edge_scores(logits, total, jnp.zeros_like(hypotheses.node), children, of_rows)
        return Prefilled(prefix, self.advanced(hypotheses, children.node, score), of_rows)

    def is_open(self, state: Any) -> Bool[Array, " B"]:
        """Mask of the rows whose search continues."""
        return state.hypotheses.is_open

    def finished(self, state: Any) -> Recommendations:
        """Finished results, best first."""
        scores, nodes = (x[:, : self.top_k] for x in (state.hypotheses.done_score, state.hypotheses.done_node))
        return Recommendations(rows=self.trie.row_of(nodes), scores=scores)

    def advanced(
        self, hypotheses: Hypotheses, child: Int[Array, "B beams C"], score: Float[Array, "B beams C"]
    ) -> Hypotheses:
        """The recurrence over the children of each beam; scores are -inf where there is none."""
        edges = Edges(child, self.trie.token[child], score)
        return advance(hypotheses, edges, eos=self.trie.eos, options=self.options)

    def normalized(
        self, model: Backbone, hidden: Float[Array, "B n D"]
    ) -> tuple[Float[Array, "B n V"], Float[Array, "B n"]]:
        """Logits, divided by the temperature, and the logarithm of their summed exponentials."""
        logits = model.logits(hidden)
        if self.softmax_temperature != 1.0:
            logits = logits / self.softmax_temperature
        return logits, jax.nn.logsumexp(logits, axis=-1)

    def edge_scores(
        self,
        logits: Float[Array, "B n V"],
        total: Float[Array, "B n"],
        place: Int[Array, "B m"],
        children: Children,
        of_rows: Any,
    ) -> Float[Array, "B m C"]:
        """Scores of edges; -inf where there is no child.

        Args:
          logits, total: the result of `normalized`.
          place: which of the n states comes before each list of children.
          children: all children of each node, or those of a node that has only one.
          of_rows: data of each row for the edge score.
        """
        picked = jax.vmap(lambda row, at, token: row[at[:, None], token])(logits, place, children.token)
        logp = picked - jnp.take_along_axis(total, place, axis=1)[..., None]
        logp = jnp.where(children.legal, logp, -jnp.inf)
        return jnp.where(children.legal, self.edge_score(logp, children.edge, of_rows), -jnp.inf)

    def best_children(
        self,
        logits: Float[Array, "B n V"],
        total: Float[Array, "B n"],
        node: Int[Array, "B m"],
        place: Int[Array, "B m"],
        of_rows: Any,
    ) -> ScoredChildren:
        """The best `n_children` of each node other than the root; what it costs hardly depends on the widest node.

        Args:
          logits, total: the result of `normalized`.
          node: nodes; -1, which has no children, for none.
          place: which of the n states comes before the children of each node.
          of_rows: data of each row for the edge score.
        """

        def best_of(node: Int[Array, "B k"], place: Int[Array, "B k"], width: int) -> ScoredChildren:
            children = self.trie.children(node, width)
            score = self.edge_scores(logits, total, place, children, of_rows)
            return best(ScoredChildren(children.node, score), self.n_children)

        narrow = min(NARROW, self.trie.width)
        found = best_of(node, place, narrow)
        if self.trie.width == narrow:
            return found

        def one_more(carried: tuple[Bool[Array, "B m"], ScoredChildren]) -> tuple[Bool[Array, "B m"], ScoredChildren]:
            waits, found = carried
            turn = jnp.argmax(waits, axis=1)[:, None]
            one, its_place = (jnp.take_along_axis(x, turn, axis=1) for x in (node, place))
            wide = best_of(one, its_place, self.trie.width)
            is_turn = waits & (jnp.arange(waits.shape[1])[None] == turn)
            return waits & ~is_turn, jax.tree.map(partial(jnp.where, is_turn[..., None]), wide, found)

        waits = self.trie.edges_of(node)[1] > narrow
        return jax.lax.while_loop(lambda carried: carried[0].any(), one_more, (waits, found))[1]


def with_rows(old: Any, new: Any, rows: Int[Array, " n"]) -> Any:
    """A pytree with some rows replaced by those of another; indices beyond the last row are ignored."""
    return jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), old, new)
