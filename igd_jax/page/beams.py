"""Beams of some users as trees, with the scores of the search and those of the same search without alpha."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import divisible
from igd_jax.core.shown import NEWLINE
from igd_jax.data.batches import prompt_room
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.decoding.engine import grow, start
from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.decoding.search import STEPWISE
from igd_jax.page.lists import chosen_queries
from igd_jax.session.analysis import Evaluated
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.limits import decode_options
from igd_jax.session.ranker import engine_of
from igd_jax.training.mesh import put_batch

N_BEAMS = 4
"""Users whose beams are shown, the first ones of those whose lists are."""


@dataclass
class Beam:
    """What a search kept for one user.

    Attributes:
      score: sum of edge scores of each trie node that was in the beam at some step.
      parent: node before each of them, and before each end of a title; 0 is the root.
      ends: final score of each title in the list, by its last node, best first.
      last: nodes that are in the beam now, with their scores.
      is_open: whether the search continues.
    """

    score: dict[int, float] = field(default_factory=dict)
    parent: dict[int, int] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=lambda: {0: 0.0})
    is_open: bool = True


@dataclass(frozen=True)
class Node:
    """A token, or a chain of tokens, of a tree of beams.

    Attributes:
      text: its text.
      score, plain: sum up to it with and without alpha, or the final score of a title; None where the search with, or
        without, alpha does not keep it.
      rank, plain_rank: place of a title in the list with and without alpha, from 1.
      children: nodes after it.
    """

    text: str
    score: float | None
    plain: float | None
    rank: int | None
    plain_rank: int | None
    children: Sequence["Node"]


def beam_trees(evaluated: Evaluated) -> list[Node]:
    """Trees of the beams of the first users that are shown.

    Raises:
      InputError: lists do not come from a search over the trie, or the weights are not there.
    """
    session = evaluated.session
    if not session.method.beam_search:
        raise InputError(f"{session.settings.method.name} does not search with a beam over the trie")
    queries = np.array(chosen_queries(len(evaluated.lists))[:N_BEAMS])
    with_alpha, plain = (_beams(evaluated, queries, alpha=alpha) for alpha in (session.settings.decode.alpha, 0.0))
    token = evaluated.ranker.index.trie.token
    return [_tree(*pair, token=token, tokenizer=session.tokenizer) for pair in zip(with_alpha, plain, strict=True)]


def _beams(evaluated: Evaluated, queries: Int[np.ndarray, " q"], *, alpha: float) -> list[Beam]:
    """What the search keeps for some queries, token by token."""
    session, ranker = evaluated.session, evaluated.ranker
    index, mesh, split = ranker.index, session.mesh, session.settings.eval.split
    options = replace(decode_options(session.settings.decode, index), alpha=alpha, search=STEPWISE)
    engine: Any = engine_of(session, index, ranker.trained.model, options)
    whole, numbers = session.rows(split), evaluated.lists.row[queries]
    examples, allowed = ranker.examples(whole.take(numbers)), ranker.allowed(whole, numbers)
    source = collaborative_source(session, split=split, n_rows=len(whole))
    batch = ranker.batch(
        examples,
        np.arange(len(queries)),
        size=divisible(len(queries), mesh),
        collaborative=None if source is None else source.take(numbers),
        allowed=allowed if any(allowed) else (),
    )
    beams = [Beam() for _ in queries]
    with jax.set_mesh(mesh):
        state = start(engine, put_batch(batch, mesh), prompt_room(examples))
        while _record(beams, state.hypotheses, top_k=engine.top_k):
            if not engine.has_room(state):
                state = grow(engine, state)
            state = _step(engine, state)
    return beams


@jax.jit
def _step(engine: Any, state: Any) -> Any:
    return engine.generate(state)


def _record(beams: Sequence[Beam], hypotheses: Hypotheses, *, top_k: int) -> bool:
    """Add to each beam what its search holds after a step; returns whether any search continues.

    Of the finished titles, of which there are as many as beams, a list holds the first `top_k` only.
    """
    held = (hypotheses.node, hypotheses.score, hypotheses.done_node, hypotheses.done_score, hypotheses.is_open)
    nodes, scores, done_nodes, done_scores, is_open = jax.device_get(held)
    for row, beam in enumerate(beams):
        if not beam.is_open:
            continue
        beam.is_open = bool(is_open[row])
        before = sorted(beam.last)
        ends = zip(done_nodes[row, :top_k].tolist(), done_scores[row, :top_k].tolist(), strict=True)
        beam.ends = {node: score for node, score in ends if node >= 0}
        running = zip(nodes[row].tolist(), scores[row].tolist(), strict=True)
        beam.last = {node: score for node, score in running if node >= 0}
        beam.score |= beam.last
        for node in (*beam.last, *beam.ends):
            # Nodes are numbered depth first: of those of the step before, the parent is the last that is not after it.
            beam.parent.setdefault(node, before[bisect_right(before, node) - 1])
    return any(beam.is_open for beam in beams)


def _tree(beam: Beam, plain: Beam, *, token: Int[np.ndarray, " M"], tokenizer: Tokenizer) -> Node:
    """The nodes of two searches of one user as one tree, whose chains are one node each."""
    children: dict[int, list[int]] = {}
    kept = {node: _scores(node, beam, plain) for node in (0, *plain.parent, *beam.parent)}
    for node, parent in sorted((plain.parent | beam.parent).items()):
        if kept[node] != [None, None]:  # a title that better ones pushed out of the list is in neither
            children.setdefault(parent, []).append(node)
    ranks = [{node: rank for rank, node in enumerate(each.ends, start=1)} for each in (beam, plain)]

    def of(node: int) -> Node:
        ids, first = [], kept[node]
        while node:
            ids.append(int(token[node]))
            below = children.get(node, [])
            if len(below) != 1 or [each is None for each in kept[below[0]]] != [each is None for each in first]:
                break
            (node,) = below
        text = tokenizer.shown([each for each in ids if each != tokenizer.eos]).replace("\n", NEWLINE)
        best_first = sorted(map(of, children.get(node, [])), key=lambda each: -_best(each))
        score, without = kept[node]
        return Node(text, score, without, ranks[0].get(node), ranks[1].get(node), best_first)

    return of(0)


def _best(node: Node) -> float:
    """Score of a node, with alpha if it is kept then."""
    score = node.plain if node.score is None else node.score
    assert score is not None, "a node that neither search keeps is in the tree"
    return score


def _scores(node: int, *beams: Beam) -> list[float | None]:
    """Score of a node in each search; None where it is not kept."""
    return [0.0 if node == 0 else beam.ends.get(node, beam.score.get(node)) for beam in beams]
