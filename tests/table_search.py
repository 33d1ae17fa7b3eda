"""The recurrence with a table in the place of a model: it knows one number per node, that of the edge into it."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from plain_search import plain_factors
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows, trie_of

from igd_jax.core.types import TextBatch
from igd_jax.decoding.device_trie import Children, DeviceTrie, device_trie
from igd_jax.decoding.edge_score import EdgeScore
from igd_jax.decoding.recurrence import Edges, Hypotheses, SearchOptions, advance, root
from igd_jax.items.info_gain import EdgeGain, edge_gain

N_ROWS = 6
LONG = 40
SETTINGS = [(0.0, 1.0), (0.2, 1.0), (1.0, 1.0), (0.0, 0.7), (0.4, 2.0)]
"""alpha, temperature"""


class Case(NamedTuple):
    """A catalogue, and what shapes the search; see `SearchOptions`."""

    rows: list[list[int]]
    k: int
    max_length: int
    length_penalty: float


def _rows(seed: int, n: int, **kwargs: int) -> list[list[int]]:
    return random_rows(np.random.default_rng(seed), n, **kwargs)


_CHAINS = [[a, *[7] * 9, b, *[8] * a, EOS] for a in range(1, 5) for b in range(1, 4)]
CASES = {
    "one title": Case([[3, 2, EOS]], 3, LONG, 0.0),
    "one title, cut": Case([[3, 2, 5, EOS]], 2, 2, 1.0),
    "as many titles as beams": Case([[1, EOS], [2, EOS], [2, 3, EOS], [2, 3, 4, EOS]], 4, LONG, 0.5),
    "fewer titles than beams": Case([[1, EOS], [1, 2, EOS], [2, EOS], [3, 3, 3, EOS]], 6, LONG, 1.0),
    "greedy": Case(_rows(0, 60), 1, LONG, 0.0),
    "two beams": Case(_rows(1, 60), 2, LONG, 0.5),
    "many titles": Case(_rows(2, 150), 4, LONG, 1.0),
    "sums": Case(_rows(3, 100), 5, LONG, 0.0),
    "cut short": Case(_rows(4, 100), 6, 3, 0.0),
    "cut short, normalised": Case(_rows(5, 100), 3, 4, 1.0),
    "cut at the first token": Case(_rows(6, 40), 3, 1, 1.0),
    "wide": Case([[token, EOS] for token in range(1, 80)] + [[80, token, EOS] for token in range(1, 90)], 4, LONG, 0.5),
    "forced chains": Case(_CHAINS, 5, LONG, 1.0),
    "forced chains, cut": Case(_CHAINS, 4, 13, 0.5),
}


class Built(NamedTuple):
    """A case made ready.

    Attributes:
      nodes, factors: the plain trie, and the plain factor of the edge into each node.
      leaves: node that ends each row.
      trie, gain: on the device, and what the gain says of its edges.
    """

    case: Case
    nodes: list[PlainNode]
    factors: list[np.float32]
    leaves: list[int]
    trie: DeviceTrie
    gain: EdgeGain

    @property
    def options(self) -> SearchOptions:
        return SearchOptions(self.case.k, self.case.max_length, self.case.length_penalty)


@cache
def build(name: str) -> Built:
    case = CASES[name]
    counts = np.random.default_rng(len(case.rows)).integers(0, 9, len(case.rows)).tolist()
    catalog = catalog_of(case.rows, counts)
    host = trie_of(catalog)
    nodes = plain_trie(lists_of(catalog.tokens))
    factors = plain_factors(nodes, catalog.counts.tolist())
    return Built(case, nodes, factors, host.leaf.tolist(), device_trie(host), edge_gain(host, catalog.counts))


def smooth(built: Built, seed: int) -> np.ndarray:
    """[N_ROWS M] log-probabilities, no two alike."""
    rng = np.random.default_rng(seed)
    return (-rng.gamma(1.0, 2.0, (N_ROWS, len(built.nodes))) - 1e-3).astype(np.float32)


@struct.dataclass
class AsGiven:
    """The edge score that leaves its numbers as they are."""

    def of_rows(self, batch: TextBatch) -> tuple[()]:
        return ()

    def __call__(self, logp: jax.Array, edge: jax.Array, rows: Any) -> jax.Array:
        return logp


def edges_of(children: Children, numbers: jax.Array, score: EdgeScore) -> Edges:
    """The children of all beams, by their numbers in the table."""
    scores = jnp.where(children.legal, score(numbers, children.edge, ()), -jnp.inf)
    return Edges(children.node, children.token, scores)


def step(hypotheses: Hypotheses, trie: DeviceTrie, table: jax.Array, score: EdgeScore, options: SearchOptions, width):
    """One token more for all beams."""
    children = trie.children(hypotheses.node, width)
    numbers = jnp.take_along_axis(table[:, None], children.node, axis=2)
    return advance(hypotheses, edges_of(children, numbers, score), eos=trie.eos, options=options)


@jax.jit
def first_step(trie: DeviceTrie, table: jax.Array, is_real: jax.Array, score: EdgeScore, options: SearchOptions):
    return step(root(is_real, num_beams=options.num_beams), trie, table, score, options, trie.root_width)


@jax.jit
def next_step(hypotheses: Hypotheses, trie: DeviceTrie, table: jax.Array, score: EdgeScore, options: SearchOptions):
    return step(hypotheses, trie, table, score, options, trie.width)


@jax.jit
def _search(trie: DeviceTrie, table: jax.Array, is_real: jax.Array, score: EdgeScore, options: SearchOptions):
    hypotheses = first_step(trie, table, is_real, score, options)
    return jax.lax.while_loop(
        lambda state: state.is_open.any(), lambda state: next_step(state, trie, table, score, options), hypotheses
    )


class Found(NamedTuple):
    """Lists of a search, as NumPy arrays [N_ROWS K]."""

    rows: np.ndarray
    nodes: np.ndarray
    scores: np.ndarray


def found_of(trie: DeviceTrie, hypotheses: Hypotheses) -> Found:
    found = Found(trie.row_of(hypotheses.done_node), hypotheses.done_node, hypotheses.done_score)
    return Found(*map(np.asarray, found))


def search(
    trie: DeviceTrie,
    table: np.ndarray,
    score: EdgeScore,
    options: SearchOptions,
    *,
    is_real: np.ndarray | None = None,
) -> Found:
    """The compiled search over a table [B M], once per shape, kind of score and options."""
    real = np.ones(len(table), bool) if is_real is None else is_real
    return found_of(trie, _search(trie, jnp.asarray(table), jnp.asarray(real), score, options))


def run(built: Built, table: np.ndarray, *, score: EdgeScore | None = None, is_real: np.ndarray | None = None) -> Found:
    """The search of a case."""
    return search(built.trie, table, score or AsGiven(), built.options, is_real=is_real)
