"""The recurrence of beam search: which beams continue and which finish, given edge scores (docs/decoding.md).

For clock t, a running beam (s, n) and a child c of its node n, whose edge scores w(c):

    s' = s + w(c)

The best 2K candidates are kept, with ties broken by beam and then by token. A candidate that ends its identifier is
finished if its rank is below K, with score s' / (t + 1)^length_penalty; the first K others continue. A row stops when K
results are finished and no running beam can still enter, or when no beam is left.

The recurrence does not depend on the origin of the scores: a model, or a table in its place, fills `Edges`. Each row
has its own clock, so rows may start at different times.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.decoding.dense_topk import top_k


@struct.dataclass
class SearchOptions:
    """Parameters of a search.

    Attributes:
      num_beams: K, the number of running beams and of finished results.
      max_length: length limit in tokens, EOS included; longer identifiers are cut off unfinished.
      length_penalty: exponent of the length by which final scores are divided; 0 leaves sums.
    """

    num_beams: int = struct.field(pytree_node=False)
    max_length: int = struct.field(pytree_node=False)
    length_penalty: float = struct.field(pytree_node=False)


@struct.dataclass
class Hypotheses:
    """The running beams of each row, best first, and the finished results.

    Attributes:
      parent: index of each beam's predecessor among the beams of the previous step.
      node: trie node of each beam; -1 if there is no beam.
      token: token into that node.
      score: sum of edge scores; -inf if there is no beam.
      clock: number of tokens written so far.
      done_score: final scores of finished results, best first; -inf if there is none.
      done_node: last node of each finished result; -1 if there is none.
      is_open: mask of the rows whose search continues.
    """

    parent: Int[Array, "B beams"]
    node: Int[Array, "B beams"]
    token: Int[Array, "B beams"]
    score: Float[Array, "B beams"]
    clock: Int[Array, " B"]
    done_score: Float[Array, "B K"]
    done_node: Int[Array, "B K"]
    is_open: Bool[Array, " B"]


class Edges(NamedTuple):
    """The children of each beam.

    Attributes:
      node: identity of the child, any number from 0; the recurrence passes it on without reading it.
      token: token into the child, ascending, so that the lower one wins ties.
      score: edge score; -inf if the child does not exist.
    """

    node: Int[Array, "B beams C"]
    token: Int[Array, "B beams C"]
    score: Float[Array, "B beams C"]


def root(is_real: Bool[Array, " B"], *, num_beams: int) -> Hypotheses:
    """The state before the first token: only the root, with all real rows open."""
    n_rows = len(is_real)
    zeros = jnp.zeros((n_rows, 1), jnp.int32)
    return Hypotheses(
        parent=zeros,
        node=zeros,
        token=zeros,
        score=jnp.zeros((n_rows, 1), jnp.float32),
        clock=jnp.zeros(n_rows, jnp.int32),
        done_score=jnp.full((n_rows, num_beams), -jnp.inf, jnp.float32),
        done_node=jnp.full((n_rows, num_beams), -1, jnp.int32),
        is_open=is_real,
    )


def advance(hypotheses: Hypotheses, edges: Edges, *, eos: int, options: SearchOptions) -> Hypotheses:
    """Select among all children of the running beams: which finish, which continue, and which rows stop."""
    k, width = options.num_beams, edges.score.shape[2]
    n_rows, length = len(hypotheses.clock), hypotheses.clock + 1
    total = (hypotheses.score[:, :, None] + edges.score).reshape(n_rows, -1)
    score, flat = top_k(total, 2 * k)
    node, token = (jnp.take_along_axis(x.reshape(n_rows, -1), flat, axis=1) for x in (edges.node, edges.token))
    exists = score > -jnp.inf
    place = jnp.arange(2 * k)[None]
    # One quotient for finished and running beams: compiled twice, it could round equal scores differently.
    final = score / length.astype(jnp.float32)[:, None] ** options.length_penalty

    # Finished: the end of an identifier among the best K, or anything among them at the length limit.
    ends = (token == eos) | (length == options.max_length)[:, None]
    enters = exists & ends & (place < k) & hypotheses.is_open[:, None]
    done_score = jnp.concatenate([hypotheses.done_score, jnp.where(enters, final, -jnp.inf)], axis=1)
    done_node = jnp.concatenate([hypotheses.done_node, jnp.where(enters, node, -1)], axis=1)
    done_score, best = jax.lax.top_k(done_score, k)

    # Running: the first K that continue.
    runs = exists & ~ends
    _, first = jax.lax.top_k(jnp.where(runs, 2 * k - place, 0), k)
    keep = jnp.take_along_axis(runs, first, axis=1)
    running, best_final = (jnp.where(keep, jnp.take_along_axis(x, first, axis=1), -jnp.inf) for x in (score, final))
    can_improve = best_final[:, 0] > done_score[:, -1]
    return Hypotheses(
        parent=jnp.take_along_axis(flat // width, first, axis=1),
        node=jnp.where(keep, jnp.take_along_axis(node, first, axis=1), -1),
        token=jnp.take_along_axis(token, first, axis=1),
        score=running,
        clock=length,
        done_score=done_score,
        done_node=jnp.take_along_axis(done_node, best, axis=1),
        is_open=hypotheses.is_open & can_improve,
    )
