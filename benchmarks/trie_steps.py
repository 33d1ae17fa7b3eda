"""What a step of a search costs beside the model, three ways.

A step begins with logits of all beams and ends with the next beams. All ways find the same:

- dense: a mask of the vocabulary for each beam, log-probabilities, the best 2K among beams x vocabulary;
- STATIC: log-probabilities, and the children of each beam gathered from sparse rows, as many as the widest node of the
  depth has; written after the description of arXiv 2602.22647, for titles of any length;
- ours: one log-sum-exp, `TrieSearch.best_children` and `recurrence.advance`; and the reference, which gathers as many
  children as the widest node of the trie has.

The states are those of a search with random logits, after the first token, the second, and so on; and one in which the
beams of all rows are at the widest nodes but the root, the worst case for ours. Times are those of a step on average,
without what is made once per trie, and without masks where they are given.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from benchmarks import common
from igd_jax.core.errors import InputError
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.recurrence import Edges, Hypotheses, SearchOptions, advance, root
from igd_jax.decoding.search import TrieSearch
from igd_jax.items.trie import Trie

ROWS, BEAMS, VOCABULARY = 16, 10, 151_936
N_STEPS, REPEATS = 8, 7
OURS = "igd_jax"


class Csr(NamedTuple):
    """Children of every node, ascending by token: entries ``start[n]`` to ``start[n + 1]``."""

    start: Int[Array, " M_plus_1"]
    token: Int[Array, " M_minus_1"]
    child: Int[Array, " M_minus_1"]


@struct.dataclass
class LogProbability:
    """The edge score of a search for the most probable titles."""

    def of_rows(self, _: Any) -> tuple[()]:
        """Nothing."""
        return ()

    def __call__(self, logp: Float[Array, "B K C"], _: Any, __: Any) -> Float[Array, "B K C"]:
        """The log-probabilities themselves."""
        return logp


def csr_of(trie: Trie) -> Csr:
    """The children of a trie, on the host."""
    n_children = np.ones(len(trie.token), np.int32)
    n_children[trie.branch], n_children[trie.leaf] = trie.n_children, 0
    start = np.zeros(len(n_children) + 1, np.int32)
    np.cumsum(n_children, out=start[1:])
    child = np.repeat(np.arange(1, len(n_children) + 1, dtype=np.int32), n_children)
    child[np.repeat(n_children > 1, n_children)] = trie.child
    return Csr(*(cast(Any, x) for x in (start, trie.token[child], child)))


def widest(csr: Csr, n_depths: int) -> Iterator[int]:
    """The largest number of children at each depth from the root on; at least 1."""
    nodes, start = np.zeros(1, np.int32), np.asarray(csr.start)
    for _ in range(n_depths):
        n_children = start[nodes + 1] - start[nodes]
        yield int(n_children.max(initial=1))
        before = np.cumsum(n_children) - n_children
        nodes = np.asarray(csr.child)[np.repeat(start[nodes] - before, n_children) + np.arange(n_children.sum())]


def make_search(trie: Trie, *, num_beams: int) -> TrieSearch:
    """A search without a model."""
    options = SearchOptions(num_beams, max_length=1000, length_penalty=0.0)
    return TrieSearch(None, None, device_trie(trie), LogProbability(), options, num_beams)


def gathered(csr: Csr, node: Int[Array, "B n"], limit: int) -> tuple[Array, Array, Array]:
    """Tokens and nodes of the first `limit` children of each node, and whether they exist; all [B n limit]."""
    at = jnp.maximum(node, 0)
    entry = csr.start[at][..., None] + jnp.arange(limit)[None, None]
    exists = (entry < csr.start[at + 1][..., None]) & (node >= 0)[..., None]
    return csr.token[entry], csr.child[entry], exists


@partial(jax.jit, static_argnames=("limit", "vocab_size"))
def make_mask(csr: Csr, node: Int[Array, "B K"], *, limit: int, vocab_size: int) -> Bool[Array, "B K V"]:
    """Mask of the legal tokens of each beam."""
    token, _, exists = gathered(csr, node, limit)
    row, beam = (jnp.arange(n) for n in node.shape)
    mask = jnp.zeros((*node.shape, vocab_size), bool)
    return mask.at[row[:, None, None], beam[None, :, None], jnp.where(exists, token, vocab_size)].set(True, mode="drop")


@partial(jax.jit, static_argnames=("limit", "normalise"))
def dense(
    search: TrieSearch,
    csr: Csr,
    logits: Float[Array, "B K V"],
    state: Hypotheses,
    mask: Bool[Array, "B K V"] | None = None,
    *,
    limit: int,
    normalise: bool,
) -> Hypotheses:
    """A step over the whole vocabulary; the mask is made unless it is given. `_selected` tells what it returns."""
    n_rows, _, vocab_size = logits.shape
    if mask is None:
        mask = make_mask(csr, state.node, limit=limit, vocab_size=vocab_size)
    logp = jax.nn.log_softmax(logits) if normalise else logits
    total = state.score[..., None] + jnp.where(mask, logp, -jnp.inf)
    score, flat = jax.lax.top_k(total.reshape(n_rows, -1), 2 * search.options.num_beams)
    token = flat % vocab_size
    tokens, children, exists = gathered(csr, jnp.take_along_axis(state.node, flat // vocab_size, axis=1), limit)
    at = jnp.argmax((tokens == token[..., None]) & exists, axis=2, keepdims=True)
    return _selected(search, state, score, token, jnp.take_along_axis(children, at, axis=2)[..., 0])


@partial(jax.jit, static_argnames=("limit", "normalise"))
def static(
    search: TrieSearch,
    csr: Csr,
    logits: Float[Array, "B K V"],
    state: Hypotheses,
    *,
    limit: int,
    normalise: bool,
) -> Hypotheses:
    """A step over the gathered children. `_selected` tells what it returns."""
    logp = jax.nn.log_softmax(logits) if normalise else logits
    token, child, exists = gathered(csr, state.node, limit)
    picked = jnp.take_along_axis(logp, token, axis=2)
    total = (state.score[..., None] + jnp.where(exists, picked, -jnp.inf)).reshape(len(logits), -1)
    score, flat = jax.lax.top_k(total, min(2 * search.options.num_beams, total.shape[1]))
    token, child = (jnp.take_along_axis(x.reshape(len(x), -1), flat, axis=1) for x in (token, child))
    return _selected(search, state, score, token, child)


def _selected(search: TrieSearch, state: Hypotheses, score: Array, token: Array, node: Array) -> Hypotheses:
    """The state after a step, of its best 2K candidates [B 2K]; `parent` is not told."""
    first = {name: getattr(state, name)[:, :1] for name in ("parent", "node", "token")}
    of_one = replace(state, **first, score=jnp.zeros_like(state.score[:, :1]))
    edges = Edges(node[:, None], token[:, None], score[:, None])
    return advance(of_one, edges, eos=search.trie.eos, options=search.options)


@partial(jax.jit, static_argnames="normalise")
def ours(search: TrieSearch, logits: Float[Array, "B K V"], state: Hypotheses, *, normalise: bool) -> Hypotheses:
    """A step of the engine."""
    total = _total(logits, normalise)
    place = jnp.broadcast_to(jnp.arange(state.node.shape[1])[None], state.node.shape)
    rows = search.best_children(logits, total, state.node, place, ())
    edges = Edges(rows.child, search.trie.token[rows.child], rows.score)
    return advance(state, edges, eos=search.trie.eos, options=search.options)


@partial(jax.jit, static_argnames=("normalise", "width"))
def reference(
    search: TrieSearch, logits: Float[Array, "B K V"], state: Hypotheses, *, width: int, normalise: bool
) -> Hypotheses:
    """A step of the step-by-step search."""
    place = jnp.broadcast_to(jnp.arange(state.node.shape[1])[None], state.node.shape)
    children = search.trie.children(state.node, width)
    score = search.edge_scores(logits, _total(logits, normalise), place, children, ())
    edges = Edges(children.node, children.token, score)
    return advance(state, edges, eos=search.trie.eos, options=search.options)


def _total(logits: Float[Array, "B K V"], normalise: bool) -> Float[Array, "B K"]:
    return jax.nn.logsumexp(logits, axis=-1) if normalise else jnp.zeros(logits.shape[:-1])


Way = Callable[..., Hypotheses]


def searched(
    search: TrieSearch, csr: Csr, logits: Float[Array, "B K V"], n_steps: int
) -> tuple[list[Hypotheses], list[int]]:
    """The states of a search before its second step and later ones, and the width of the trie at their depths."""
    state = root(jnp.ones(len(logits), bool), num_beams=logits.shape[1])
    states = [reference(search, logits[:, :1], state, width=search.trie.root_width, normalise=True)]
    for _ in range(n_steps - 1):
        states.append(ours(search, logits, states[-1], normalise=True))
    return states, list(widest(csr, n_steps + 1))[1:]


def at_widest_nodes(trie: Trie, state: Hypotheses) -> Hypotheses:
    """A state with all beams of each row at the widest nodes but the root, as far as there are enough that branch."""
    inner = trie.branch > 0
    most = np.argsort(-trie.n_children[inner], kind="stable")[: state.node.shape[1]]
    node = np.full(state.node.shape, -1, np.int32)
    node[:, : len(most)] = trie.branch[inner][most]
    score = np.where(node >= 0, np.float32(0), -np.inf)
    return replace(state, node=jnp.asarray(node), score=jnp.asarray(score, jnp.float32))


def ways_of(
    search: TrieSearch, csr: Csr, logits: Float[Array, "B K V"], states: list[Hypotheses], limits: list[int]
) -> dict[str, list[Way]]:
    """A function per state of each way; they take ``normalise``: whether logits are normalised, or already are."""
    ways: dict[str, list[Way]] = {name: [] for name in ("dense", "dense, masks given", "STATIC", "reference", OURS)}
    for state, limit in zip(states, limits, strict=True):
        mask = make_mask(csr, state.node, limit=limit, vocab_size=logits.shape[2])
        by_rows = (search, csr, logits, state)
        ways["dense"].append(partial(dense, *by_rows, limit=limit))
        ways["dense, masks given"].append(partial(dense, *by_rows, mask, limit=limit))
        ways["STATIC"].append(partial(static, *by_rows, limit=limit))
        ways["reference"].append(partial(reference, search, logits, state, width=search.trie.width))
        ways[OURS].append(partial(ours, search, logits, state))
    return ways


def check(ways: Mapping[str, list[Way]]) -> float:
    """The largest difference of scores, of running beams and finished results, between any way and ours.

    Raises:
      InputError: it is above 1e-4, or a way has more beams than another.
    """
    most = 0.0
    for steps in zip(*ways.values(), strict=True):
        found = dict(zip(ways, (step(normalise=True) for step in steps), strict=True))
        for name, state in found.items():
            for field in ("score", "done_score"):
                our, their = (np.asarray(getattr(each, field)) for each in (found[OURS], state))
                exists = np.isfinite(our)
                if (exists != np.isfinite(their)).any():
                    raise InputError(f"{name} finds other beams than ours: one of the two is wrong")
                most = max(most, float(np.abs(our[exists] - their[exists]).max(initial=0)))
    if most > 1e-4:
        raise InputError(f"the ways differ in their scores by {most}: one of them is wrong")
    return most


def compare(trie: Trie, logits: Float[Array, "B K V"]) -> dict[str, dict[str, Any]]:
    """Figures of each way over a trie, with random logits for all steps."""
    search, on_host = make_search(trie, num_beams=logits.shape[1]), csr_of(trie)
    csr, width = Csr(*map(jnp.asarray, on_host)), search.trie.width
    states, limits = searched(search, on_host, logits, N_STEPS)
    of_search = timed(ways_of(search, csr, logits, states, limits))
    of_widest = timed(ways_of(search, csr, logits, [at_widest_nodes(trie, states[0])], [width]), "_at_widest_nodes")
    figures = {name: {**of_search[name], **of_widest[name]} for name in of_search}
    figures[OURS]["widest_node"] = width
    return figures


def timed(ways: Mapping[str, list[Way]], suffix: str = "") -> dict[str, dict[str, float]]:
    """Milliseconds per step of each way and how many times as long as ours it takes, least of `REPEATS` turns.

    Log-probabilities are computed, and then given. All ways are checked before.
    """
    check(ways)

    def run(steps: list[Way], normalise: bool) -> None:
        for step in steps:
            jax.block_until_ready(step(normalise=normalise))

    figures: dict[str, dict[str, float]] = {name: {} for name in ways}
    for normalise, given in ((True, ""), (False, "_log_probabilities_given")):
        sides = {name: partial(run, steps, normalise) for name, steps in ways.items()}
        common.interleaved(sides, repeats=1)  # compiles
        taken = common.interleaved(sides, repeats=REPEATS)
        for name, seconds in taken.items():
            figures[name][f"ms_per_step{given}{suffix}"] = round(seconds / len(ways[name]) * 1e3, 2)
            figures[name][f"times_ours{given}{suffix}"] = round(seconds / taken[OURS], 2)
    return figures
