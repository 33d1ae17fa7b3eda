"""Trie-constrained beam search, step by step, in one ``lax.while_loop``: the plain reference of the project.

The recurrence is that of spec/performance.md 3b. With clock t, a running beam (s, n) and a child c of its node n:

    s' = s + (logp(c) / temperature - 1e-7) * (1 - alpha * factor(c))

``logp`` is normalised over the whole vocabulary; nothing is renormalised afterwards, so forced tokens are scored too
and the temperature rescales sums without changing their order (IGD, arXiv 2506.13229; spec/methods.md 1.4). The best 2K
candidates are kept, ties by beam and then by token. One that ends its title is finished if its rank is below K, with
score s' / (t + 1)^length_penalty; the first K others run on. A row stops when K results are finished and no running
beam can still enter, or when nothing runs.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import Ranked
from igd_jax.decoding.device_trie import Children, DeviceTrie

Carry: TypeAlias = Any
"""What a scorer keeps between steps (a KV cache, say); any pytree."""


USUAL_LENGTHS = (16, 32)
"""Tokens of a title that many, and then few, exceed; they size the first loops and change no result."""


class Beams(NamedTuple):
    """The beams that a scorer is asked about.

    Attributes:
      parent: index of each beam's predecessor among the beams of the step before.
      node: trie node reached; -1 where there is no beam.
      token: the token into that node.
      clock: tokens written so far.
    """

    parent: Int[Array, "B K"]
    node: Int[Array, "B K"]
    token: Int[Array, "B K"]
    clock: Int[Array, ""]


class Scorer(NamedTuple):
    """The model, as the search sees it: natural log-probabilities of the children asked for, float32.

    Attributes:
      start: ``(children [B 1 C]) -> (carry, logp [B 1 C])``, after the prompt.
      step: ``(carry, beams, children [B K C]) -> (carry, logp [B K C])``.
      reserve: ``(carry, length) -> carry`` with room for every step up to titles of that length.
    """

    start: Callable[[Children], tuple[Carry, Float[Array, "B 1 C"]]]
    step: Callable[[Carry, Beams, Children], tuple[Carry, Float[Array, "B K C"]]]
    reserve: Callable[[Carry, int], Carry] = lambda carry, _: carry


@struct.dataclass
class SearchState:
    """All that one step hands to the next.

    Attributes:
      carry: the scorer's own.
      beams: running beams, best first: the root alone before the first token, then K.
      score: their sums of token scores; -inf where there is no beam.
      done_score: scores of finished results after the length penalty, best first; -inf where there is none.
      done_node: node that each finished result reached; -1 where there is none.
      is_open: rows whose search goes on.
    """

    carry: Carry
    beams: Beams
    score: Float[Array, "B running"]
    done_score: Float[Array, "B K"]
    done_node: Int[Array, "B K"]
    is_open: Bool[Array, " B"]


@struct.dataclass
class SearchOptions:
    """How to search. `alpha` and `temperature` may be traced; the rest shape the program.

    Attributes:
      alpha: discount of the log-probability of high-gain siblings, 0 to 1; 0 is plain beam search.
      temperature: divides log-probabilities, above 0.
      length_penalty: power of the length that divides final scores; 0 leaves sums.
      num_beams: K.
      max_length: longest title in tokens, EOS included; longer ones come out unfinished.
    """

    alpha: Float[Array, ""]
    temperature: Float[Array, ""]
    length_penalty: float = struct.field(pytree_node=False)
    num_beams: int = struct.field(pytree_node=False)
    max_length: int = struct.field(pytree_node=False)


def beam_search(scorer: Scorer, trie: DeviceTrie, options: SearchOptions, *, is_real: Bool[Array, " B"]) -> Ranked:
    """Search all rows at once; `is_real` False marks rows that only fill up the batch, which find nothing."""
    state = begin(scorer, trie, options, is_real=is_real)
    # Each loop carries, and looks at, room for its own length only; most batches never come to the last one.
    step = partial(beam_step, scorer=scorer, trie=trie, options=options)
    for length in sorted({min(n, options.max_length) for n in (*USUAL_LENGTHS, options.max_length)}):
        state = dataclasses.replace(state, carry=scorer.reserve(state.carry, length))
        state = jax.lax.while_loop(partial(unfinished, length=length), step, state)
    return results(state, trie)


def unfinished(state: SearchState, length: int) -> Bool[Array, ""]:
    """Whether any row of the batch has a step to make before its titles are of that length."""
    return state.is_open.any() & (state.beams.clock < length)


def results(state: SearchState, trie: DeviceTrie) -> Ranked:
    """The finished set, best first."""
    return Ranked(rows=trie.row_of(state.done_node), scores=state.done_score, nodes=state.done_node)


def begin(scorer: Scorer, trie: DeviceTrie, options: SearchOptions, *, is_real: Bool[Array, " B"]) -> SearchState:
    """The state after the first token: the best children of the root."""
    state = root_state(is_real, num_beams=options.num_beams)
    children = trie.children(state.beams.node, trie.root_width)
    carry, logp = scorer.start(children)
    return _choose(state, carry, children, logp, trie, options)


def root_state(is_real: Bool[Array, " B"], *, num_beams: int) -> SearchState:
    """The state before the first token, with no carry yet: the root alone runs, in every row that is real."""
    n_rows = len(is_real)
    root = jnp.zeros((n_rows, 1), jnp.int32)
    return SearchState(
        carry=None,
        beams=Beams(parent=root, node=root, token=root, clock=jnp.int32(0)),
        score=jnp.zeros((n_rows, 1), jnp.float32),
        done_score=jnp.full((n_rows, num_beams), -jnp.inf, jnp.float32),
        done_node=jnp.full((n_rows, num_beams), -1, jnp.int32),
        is_open=is_real,
    )


def beam_step(state: SearchState, scorer: Scorer, trie: DeviceTrie, options: SearchOptions) -> SearchState:
    """Lengthen every running beam by one token. Pure: a Python loop over it equals the compiled search."""
    children = trie.children(state.beams.node, trie.width)
    carry, logp = scorer.step(state.carry, state.beams, children)
    return _choose(state, carry, children, logp, trie, options)


def _choose(
    state: SearchState,
    carry: Carry,
    children: Children,
    logp: Float[Array, "B K C"],
    trie: DeviceTrie,
    options: SearchOptions,
) -> SearchState:
    score = (logp / options.temperature - 1e-7) * (1.0 - options.alpha * trie.factor[children.edge])
    score = jnp.where(children.legal, score, -jnp.inf)
    return advance(
        state, carry, node=children.node, token=children.token, edge_score=score, eos=trie.eos, options=options
    )


def advance(
    state: SearchState,
    carry: Carry,
    *,
    node: Int[Array, "B K C"],
    token: Int[Array, "B K C"],
    edge_score: Float[Array, "B K C"],
    eos: int,
    options: SearchOptions,
) -> SearchState:
    """Choose among all children of the running beams: who is finished, who runs on, which rows stop.

    Args:
      carry: the scorer's, after this step.
      node: any number of 0 or more that names the text which the child ends; it is kept, and never read.
      token: the child's token; in order, so that ties go to the lower one.
      edge_score: the child's token score; -inf where there is no such child.
    """
    k, length = options.num_beams, state.beams.clock + 1
    n_rows, _, width = edge_score.shape
    total = (state.score[:, :, None] + edge_score).reshape(n_rows, -1)
    score, flat = _top_k(total, 2 * k)
    node, token = (jnp.take_along_axis(x.reshape(n_rows, -1), flat, axis=1) for x in (node, token))
    exists = score > -jnp.inf
    place = jnp.arange(2 * k)[None]

    # Finished: a title's end among the best K, or anything there once no token is left to write.
    ends = (token == eos) | (length == options.max_length)
    enters = exists & ends & (place < k) & state.is_open[:, None]
    penalty = length.astype(jnp.float32) ** options.length_penalty
    done_score = jnp.concatenate([state.done_score, jnp.where(enters, score / penalty, -jnp.inf)], axis=1)
    done_node = jnp.concatenate([state.done_node, jnp.where(enters, node, -1)], axis=1)
    done_score, best = jax.lax.top_k(done_score, k)
    done_node = jnp.take_along_axis(done_node, best, axis=1)

    # Running: the first K that go on.
    runs = exists & ~ends
    _, first = jax.lax.top_k(jnp.where(runs, 2 * k - place, 0), k)
    keep = jnp.take_along_axis(runs, first, axis=1)
    running = jnp.where(keep, jnp.take_along_axis(score, first, axis=1), -jnp.inf)
    beams = Beams(
        parent=jnp.take_along_axis(flat // width, first, axis=1),
        node=jnp.where(keep, jnp.take_along_axis(node, first, axis=1), -1),
        token=jnp.take_along_axis(token, first, axis=1),
        clock=length,
    )
    can_improve = running[:, 0] / penalty > done_score[:, -1]
    return SearchState(
        carry=carry,
        beams=beams,
        score=running,
        done_score=done_score,
        done_node=done_node,
        is_open=state.is_open & can_improve,
    )


def _top_k(values: Float[Array, "B n"], k: int) -> tuple[Float[Array, "B {k}"], Int[Array, "B {k}"]]:
    """``lax.top_k`` that also takes fewer than k values: the missing are -inf, at index 0."""
    have = min(k, values.shape[1])
    top, index = jax.lax.top_k(values, have)
    pad = ((0, 0), (0, k - have))
    return jnp.pad(top, pad, constant_values=-jnp.inf), jnp.pad(index, pad)
