"""The trie of all titles, as arrays (DESIGN section 2).

Nodes are numbered depth first over the sorted rows: the root is 0, the only child of a node n is n + 1, and every node
covers a contiguous range of rows. Only branching nodes keep a list of children. A row of the catalogue owns the nodes
that it does not share with the row before it, so the node at depth d of row r that r owns is
``node_start[r] + d - lcp[r] - 1``; all else follows from the neighbours in ``lcp`` (an LCP-interval tree), without a
loop over rows or nodes.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.ragged import ragged_index
from igd_jax.items.catalog import Catalog


@dataclass(frozen=True)
class Trie:
    """All title prefixes.

    Attributes:
      token: token of the edge into each node; -1 for the root. int32.
      branch: nodes with two children or more, ascending; int32.
      child_start: children of ``branch[i]`` are edges ``child_start[i]`` to ``child_start[i + 1]``; int32.
      child: node that each such edge leads to; by token within a parent. int32.
      child_lo, child_hi: the range of catalogue rows below that child; int32.
      leaf: the node that ends each catalogue row, ascending; int32.
    """

    token: Int[np.ndarray, " M"]
    branch: Int[np.ndarray, " branches"]
    child_start: Int[np.ndarray, " branches_plus_1"]
    child: Int[np.ndarray, " E"]
    child_lo: Int[np.ndarray, " E"]
    child_hi: Int[np.ndarray, " E"]
    leaf: Int[np.ndarray, " N"]

    @property
    def n_children(self) -> Int[np.ndarray, " branches"]:
        """Children of each branching node."""
        return np.diff(self.child_start)

    def row_of_leaf(self, node: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The catalogue row that ends at each node; -1 for nodes that end none (also for node -1)."""
        row = np.minimum(np.searchsorted(self.leaf, node), len(self.leaf) - 1)
        return np.where(self.leaf[row] == node, row, -1).astype(np.int32)

    def walk(
        self, tokens: Int[np.ndarray, "R T"], mask: Bool[np.ndarray, "R T"]
    ) -> tuple[Int[np.ndarray, "R T"], Int[np.ndarray, "R T"]]:
        """Follow rows of tokens from the root.

        Returns:
          node: node after each token; -1 from the first token on that leaves the trie, and where `mask` is False.
          edge: index into `child` where the node was one of several children, else -1.
        """
        node = np.full(tokens.shape, -1, np.int32)
        edge = np.full(tokens.shape, -1, np.int32)
        keys = np.repeat(np.arange(len(self.branch)), self.n_children).astype(np.int64) << 32 | self.token[self.child]
        live = np.flatnonzero(mask[:, 0]) if tokens.shape[1] else np.zeros(0, np.int64)
        here = np.zeros(len(live), np.int32)
        for t in range(tokens.shape[1]):
            here, edge[live, t] = self._step(here, tokens[live, t], keys)
            node[live, t] = here
            on = (here >= 0) & (mask[live, t + 1] if t + 1 < tokens.shape[1] else False)
            live, here = live[on], here[on]
        return node, edge

    def _step(
        self, node: Int[np.ndarray, " r"], token: Int[np.ndarray, " r"], keys: Int[np.ndarray, " E"]
    ) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
        """One step of `walk`: the child by `token` of each node, and its edge."""
        at = _find(self.branch, node)
        edge = np.where(at >= 0, _find(keys, at.astype(np.int64) << 32 | token), -1)
        chain = node + 1  # a node without a list of children is followed by its only child, unless it ends a title
        has_chain = (at < 0) & (_find(self.leaf, node) < 0)
        chain = np.where(has_chain & (self.token[np.minimum(chain, len(self.token) - 1)] == token), chain, -1)
        child = np.append(self.child, -1)[edge]
        return np.where(edge >= 0, child, chain).astype(np.int32), edge.astype(np.int32)


def _find(sorted_values: Int[np.ndarray, " n"], wanted: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
    """Position of each wanted value in a sorted array, -1 where it is absent."""
    if not len(sorted_values):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[at] == wanted, at, -1)


def build_trie(catalog: Catalog) -> Trie:
    """Build the trie of a catalogue; time and memory linear in tokens."""
    lcp, length = catalog.lcp, catalog.lengths
    n_rows = len(lcp)
    node_start = np.zeros(n_rows + 1, np.int64)
    np.cumsum(length - lcp, out=node_start[1:])

    # Row r >= 1 leaves the row before it at a branching node of depth lcp[r]. That node belongs to the last earlier
    # row that shares less; the child begun by r ends where a later row shares no more than r does.
    split = np.arange(1, n_rows)
    owner = _jump(np.arange(n_rows) - 1, lcp, operator.ge)
    end = _jump(np.arange(1, n_rows + 1), np.append(lcp, -2).astype(np.int32), operator.gt)
    parent = node_start[owner[1:]] + lcp[1:] - lcp[owner[1:]] - 1

    key = np.sort(parent << 32 | split)  # by parent and then by row, both in one integer
    parent, split = key >> 32, key & (2**32 - 1)
    owner, end = owner[split], end[split]
    is_first = np.diff(parent, prepend=-1) != 0
    branch = parent[is_first]
    # Each branching node has one child more than splits: the one its owner goes on with, always the next node.
    first = np.flatnonzero(is_first) + np.arange(len(branch))
    rest = np.arange(n_rows - 1) + np.cumsum(is_first)
    child = np.empty(n_rows - 1 + len(branch), np.int32)
    low, high = np.empty_like(child), np.empty_like(child)
    child[first], child[rest] = branch + 1, node_start[split]
    low[first], low[rest] = owner[is_first], split
    high[first], high[rest] = split[is_first], end
    return Trie(
        token=_edge_tokens(catalog, node_start),
        branch=branch.astype(np.int32),
        child_start=np.append(first, len(child)).astype(np.int32),
        child=child,
        child_lo=low,
        child_hi=high,
        leaf=(node_start[1:] - 1).astype(np.int32),
    )


def _jump(
    pointer: Int[np.ndarray, " N"], values: Int[np.ndarray, " n"], passes: Callable[..., Bool[np.ndarray, " r"]]
) -> Int[np.ndarray, " N"]:
    """Move each pointer along pointers while the value it points at `passes` the row's own (nearest smaller value).

    Pointers of resolved rows skip all that lies between, so the rounds are few (at most the depth of the trie).
    """
    pointer = np.append(pointer, 0)
    rows = np.arange(len(pointer) - 1)
    rows = rows[1:] if pointer[0] < 0 else rows
    while len(rows):
        rows = rows[passes(values[pointer[rows]], values[rows])]
        pointer[rows] = pointer[pointer[rows]]
    return pointer[:-1]


def _edge_tokens(catalog: Catalog, node_start: Int[np.ndarray, " N_plus_1"]) -> Int[np.ndarray, " M"]:
    """The token into every node: the unshared part of every row, after the root."""
    owned = np.diff(node_start)
    owned[0] -= 1  # the root has no token
    begin = catalog.given.start[catalog.first] + np.maximum(catalog.lcp, 0)
    return np.append(np.int32(-1), catalog.given.ids[ragged_index(begin, owned)])
