"""The trie of all candidates' identifiers, as arrays (docs/design.md).

Nodes are numbered depth first over the sorted rows: the root is 0, an only child of node n is n + 1, and every node
covers a contiguous range of rows. Only branching nodes store a list of children. A row owns the nodes that it does not
share with the previous candidate row, so the node at depth d that row r owns is ``node_start[r] + d - lcp[r] - 1``;
everything else follows from neighbours in ``lcp`` (an LCP-interval tree), without a loop over rows or nodes.

The catalogue holds all items, the trie only the rows of candidates. All row numbers are catalogue rows, so arrays per
row are valid for any set of candidates.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.ragged import Ragged, ragged_index, starts_of
from igd_jax.items.catalog import Catalog


@dataclass(frozen=True)
class Trie:
    """All prefixes of the candidates' identifiers.

    Attributes:
      token: token of the edge into each node; -1 for the root. int32.
      branch: nodes with two or more children, ascending; int32.
      child_start: range of the edges out of ``branch[i]``, ``child_start[i]`` to ``child_start[i + 1]``; int32.
      child: node below each such edge; sorted by token within a parent. int32.
      child_lo, child_hi: range of catalogue rows from the first to the last candidate below that child; int32. Other
        rows in the range are not candidates.
      leaf: last node of each candidate row, ascending; int32.
      row: catalogue row of each leaf, ascending; int32.
    """

    token: Int[np.ndarray, " M"]
    branch: Int[np.ndarray, " branches"]
    child_start: Int[np.ndarray, " branches_plus_1"]
    child: Int[np.ndarray, " E"]
    child_lo: Int[np.ndarray, " E"]
    child_hi: Int[np.ndarray, " E"]
    leaf: Int[np.ndarray, " leaves"]
    row: Int[np.ndarray, " leaves"]

    @property
    def n_children(self) -> Int[np.ndarray, " branches"]:
        """Number of children of each branching node."""
        return np.diff(self.child_start)

    def walk(
        self, rows: Ragged, order: Int[np.ndarray, " R"] | None = None
    ) -> tuple[Int[np.ndarray, " total"], Int[np.ndarray, " total"]]:
        """Follow rows of tokens from the root.

        Args:
          rows: token rows.
          order: row numbers sorted by tokens, which makes memory accesses local and thus faster.

        Returns:
          node: node after each token; -1 from the token that leaves the trie to the end of its row.
          edge: index into `child` if the node is one of several children, else -1.
        """
        node, edge = np.full(len(rows.ids), -1, np.int32), np.full(len(rows.ids), -1, np.int32)
        live = np.arange(len(rows)) if order is None else order
        at, end = rows.start[:-1][live], rows.start[1:][live]  # next token of each row that is still on the trie
        here = np.zeros(len(live), np.int32)
        on = at < end
        while on.any():
            at, end, here = at[on], end[on], here[on]
            here, edge[at] = self._step(here, rows.ids[at])
            node[at] = here
            at += 1
            on = (here >= 0) & (at < end)
        return node, edge

    @cached_property
    def _keys(self) -> Int[np.ndarray, " E"]:
        """Branching node and token of each child, as one ascending number."""
        return np.repeat(np.arange(len(self.branch)) << 32, self.n_children) | self.token[self.child]

    def _step(
        self, node: Int[np.ndarray, " r"], token: Int[np.ndarray, " r"]
    ) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
        """One step of `walk`: the child of each node by `token`, and its edge."""
        at = _find(self.branch, node)
        edge = np.where(at >= 0, _find(self._keys, at << 32 | token), -1)
        chain = node + 1  # a node without a list of children precedes its only child, unless it ends a row
        has_chain = (at < 0) & (_find(self.leaf, node) < 0)
        chain = np.where(has_chain & (self.token[np.minimum(chain, len(self.token) - 1)] == token), chain, -1)
        child = np.append(self.child, -1)[edge]
        return np.where(edge >= 0, child, chain).astype(np.int32), edge.astype(np.int32)


def _find(sorted_values: Int[np.ndarray, " n"], wanted: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
    """Index of each wanted value in a sorted array, -1 if absent."""
    if not len(sorted_values):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[at] == wanted, at, -1)


def build_trie(catalog: Catalog, is_candidate: Bool[np.ndarray, " N"]) -> Trie:
    """Build the trie of at least one candidate row; time and memory are linear in the number of tokens."""
    row = np.flatnonzero(is_candidate).astype(np.int32)
    item = catalog.first[row]
    # The prefix shared with the previous candidate is the shortest of those shared by neighbours between the two.
    lcp = np.full(len(row), -1, np.int32)
    lcp[1:] = np.minimum.reduceat(catalog.lcp[: row[-1] + 1], row[:-1] + 1) if len(row) > 1 else 0
    owned = catalog.given.lengths[item] - lcp
    node_start = starts_of(owned)
    branch, child_start, child, low, high = _branches(lcp, node_start)
    return Trie(
        token=_edge_tokens(catalog.given, item, lcp, owned),
        branch=branch,
        child_start=child_start,
        child=child,
        child_lo=row[low],
        child_hi=row[high - 1] + np.int32(1),
        leaf=(node_start[1:] - 1).astype(np.int32),
        row=row,
    )


def _branches(lcp: Int[np.ndarray, " n"], node_start: Int[np.ndarray, " n_plus_1"]) -> tuple[np.ndarray, ...]:
    """`branch`, `child_start`, `child` of the trie, and the range of candidate rows below each child; all int32.

    Row r >= 1 leaves the previous row at a branching node of depth lcp[r]. That node is owned by the last earlier row
    with a smaller lcp; the child that starts with r ends at the next row whose lcp is not greater than that of r.
    """
    n_rows = len(lcp)
    split = np.arange(1, n_rows)
    owner = _jump(np.arange(n_rows) - 1, lcp, operator.ge)
    end = _jump(np.arange(1, n_rows + 1), np.append(lcp, -2).astype(np.int32), operator.gt)
    parent = node_start[owner[1:]] + lcp[1:] - lcp[owner[1:]] - 1

    key = np.sort(parent << 32 | split)  # by parent and then by row, both packed into one integer
    parent, split = key >> 32, key & (2**32 - 1)
    owner, end = owner[split], end[split]
    is_first = np.diff(parent, prepend=-1) != 0
    branch = parent[is_first]
    # A branching node has one child more than splits: that of its owner, which is always the next node.
    first = np.flatnonzero(is_first) + np.arange(len(branch))
    rest = np.arange(n_rows - 1) + np.cumsum(is_first)
    child = np.empty(n_rows - 1 + len(branch), np.int32)
    low, high = np.empty_like(child), np.empty_like(child)
    child[first], child[rest] = branch + 1, node_start[split]
    low[first], low[rest] = owner[is_first], split
    high[first], high[rest] = split[is_first], end
    return branch.astype(np.int32), np.append(first, len(child)).astype(np.int32), child, low, high


def _jump(
    pointer: Int[np.ndarray, " N"], values: Int[np.ndarray, " n"], passes: Callable[..., Bool[np.ndarray, " r"]]
) -> Int[np.ndarray, " N"]:
    """Follow pointers while the value pointed at `passes` that of the row (nearest smaller value).

    Pointers of resolved rows skip everything in between, so there are few rounds (at most the depth of the trie).
    """
    pointer = np.append(pointer, 0)
    rows = np.arange(len(pointer) - 1)
    rows = rows[1:] if pointer[0] < 0 else rows
    while len(rows):
        rows = rows[passes(values[pointer[rows]], values[rows])]
        pointer[rows] = pointer[pointer[rows]]
    return pointer[:-1]


def _edge_tokens(
    given: Ragged, item: Int[np.ndarray, " n"], lcp: Int[np.ndarray, " n"], owned: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " M"]:
    """Token into each node: -1 for the root, then the unshared part of every row."""
    begin = given.start[item] + lcp  # the root precedes the first token of the first row
    token = given.ids.take(ragged_index(begin, owned), mode="clip")
    token[0] = -1
    return token
