"""Parts of a trie that a model reads in one call each, so that titles share their beginnings (`decoding.exact`).

Nodes are taken depth first, as many at a time as fit in a block. Those ancestors of a block's nodes that come before it
are the ancestors of its first node; they are repeated at its beginning, so that no block needs another:

    root -> a -> b -> c -> end          block 1   root  a b c
                   -> d -> e -> end     block 2   root  a b  d e

The end of a title is scored and not read, as nothing follows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from igd_jax.core.arrays import power_of_two
from igd_jax.core.ragged import Ragged, places_in_rows, starts_of
from igd_jax.items.trie import Trie

WIDTH = 256
"""Most columns of a block, unless the paths to the deepest nodes would take more than half of them."""


@no_type_check  # as a pytree it also holds shardings
@struct.dataclass
class Blocks:
    """The blocks of each of R rows; R is 1 where all rows have the same.

    Edges in a block are numbered: 0 to T - 1 the only child of the node in each column; T none; and from there on the W
    children of each branching node, node after node.

    Attributes:
      node: node of each column; the first is the root, and the last ones may be padding, as node 0.
      token: token into the node; 0 at the root and on padding.
      depth: number of tokens up to the node.
      leave: number beyond those of all its descendants, so that `node` and `leave` make a `models.visibility.Tree`.
      into: edge into each node; T at the root and on padding.
      end: edge by which a title ends after the node; T if none does.
      branching: columns of the branching nodes, filled up with the first.
      width: W.
    """

    node: Int[Array, "R blocks T"]
    token: Int[Array, "R blocks T"]
    depth: Int[Array, "R blocks T"]
    leave: Int[Array, "R blocks T"]
    into: Int[Array, "R blocks T"]
    end: Int[Array, "R blocks T"]
    branching: Int[Array, "R blocks b"]
    width: int = struct.field(pytree_node=False)


@dataclass(frozen=True)
class _Tree:
    """The nodes after which the titles of one row go on, depth first, the root included.

    Attributes:
      node, token, depth, leave: as in `Blocks`; `leave` is 0 at the root.
      parent: number of each node's parent; 0 for the root.
      edge, end: edge into each node, and to the end of a title after it, among those out of branching nodes; -1 for an
        only child, and where there is none.
      ends: whether a title ends after each node.
      title: a title through each node.
      last: number of the node after which each title ends.
      path: numbers of the nodes of each title, without the root.
    """

    node: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    depth: Int[np.ndarray, " n"]
    leave: Int[np.ndarray, " n"]
    parent: Int[np.ndarray, " n"]
    edge: Int[np.ndarray, " n"]
    end: Int[np.ndarray, " n"]
    ends: Bool[np.ndarray, " n"]
    title: Int[np.ndarray, " n"]
    last: Int[np.ndarray, " titles"]
    path: Ragged

    def before(self, number: int) -> Int[np.ndarray, " ancestors"]:
        """Numbers of the ancestors of a node, from the root on."""
        if number == 0:
            return np.zeros(0, np.int32)
        return np.append(np.int32(0), self.path[int(self.title[number])][: self.depth[number] - 1])


def blocks_of(
    trie: Trie, lists: Sequence[Ragged], *, of_requests: bool = False
) -> tuple[Blocks, list[Int[np.ndarray, " titles"]]]:
    """Lay out titles in blocks.

    Args:
      trie: the trie.
      lists: titles of the trie for each row, each once and in the order of the trie; token rows, ends included.
      of_requests: whether other lists will follow; sizes are then powers of two, as each needs a program.

    Returns:
      The blocks, as NumPy arrays, and where the titles of each row end: columns, counted through its blocks.
    """
    trees = [_tree_of(trie, titles) for titles in lists]
    longest = max(int(tree.depth.max()) for tree in trees)
    rounded = power_of_two if of_requests else int
    n_columns = min(max(WIDTH, rounded(2 * longest + 2)), power_of_two(max(len(tree.node) for tree in trees)))
    parts = [list(_parts(tree.depth, n_columns)) for tree in trees]
    n_blocks = rounded(max(map(len, parts)))
    width = int(trie.n_children.max(initial=1))
    shape = len(lists), n_blocks, n_columns
    filled: dict[str, Any] = {name: np.zeros(shape, np.int32) for name in ("node", "token", "depth", "leave")}
    filled |= {name: np.full(shape, n_columns, np.int32) for name in ("into", "end")}
    branching, places = dict[tuple[int, int], np.ndarray](), []
    for row, (tree, bounds) in enumerate(zip(trees, parts, strict=True)):
        place = np.empty(len(tree.node), np.int64)
        for number, (begin, end) in enumerate(bounds):
            at = np.concatenate([tree.before(begin), np.arange(begin, end)])
            place[begin:end] = number * n_columns + np.arange(len(at) - (end - begin), len(at))
            columns, branching[row, number] = _block(trie, tree, at, n_columns, width)
            for name, values in columns.items():
                filled[name][row, number, : len(at)] = values
        places.append(place[tree.last])
    every: Any = np.zeros((len(lists), n_blocks, power_of_two(max(map(len, branching.values())))), np.int32)
    for where, some in branching.items():
        every[where][: len(some)] = some
    return Blocks(branching=every, width=width, **filled), places


def _tree_of(trie: Trie, titles: Ragged) -> _Tree:
    node, edge = trie.walk(titles)
    title = np.repeat(np.arange(len(titles)), titles.lengths)
    place = places_in_rows(titles.lengths)
    is_end = place == titles.lengths[title] - 1
    within = np.flatnonzero(~is_end)
    distinct, first, count = np.unique(node[within], return_index=True, return_counts=True)
    at = within[first]  # a token into each node
    number = np.searchsorted(distinct, node[within]).astype(np.int32) + 1
    path = Ragged(number, starts_of(titles.lengths - 1))
    last = np.zeros(len(titles), np.int32)
    goes_on = titles.lengths > 1
    last[goes_on] = number[path.start[1:][goes_on] - 1]
    numbered = np.append(0, distinct)
    # The titles through a node are neighbours, and the last one passes its last descendant.
    leave = numbered[last[title[at] + count - 1]] + 1
    parent = np.where(place[at] > 0, np.append(0, number)[first], 0)
    end, ends = np.full(len(numbered), -1, np.int32), np.zeros(len(numbered), bool)
    end[last], ends[last] = edge[is_end], True

    def with_root(values: Int[np.ndarray, " n"], root: int) -> Int[np.ndarray, " n_plus_1"]:
        return np.append(np.int32(root), values.astype(np.int32))

    return _Tree(
        node=numbered.astype(np.int32),
        token=with_root(titles.ids[at], 0),
        depth=with_root(place[at] + 1, 0),
        leave=with_root(leave, 0),
        parent=with_root(parent, 0),
        edge=with_root(edge[at], -1),
        end=end,
        ends=ends,
        title=with_root(title[at], 0),
        last=last,
        path=path,
    )


def _parts(depth: Int[np.ndarray, " n"], n_columns: int) -> Iterator[tuple[int, int]]:
    """Ranges of nodes that fill blocks, with the ancestors of the first."""
    begin = 0
    while begin < len(depth):
        end = min(begin + n_columns - int(depth[begin]), len(depth))
        yield begin, end
        begin = end


def _block(
    trie: Trie, tree: _Tree, at: Int[np.ndarray, " c"], n_columns: int, width: int
) -> tuple[dict[str, Int[np.ndarray, " c"]], Int[np.ndarray, " b"]]:
    """Columns of a block by their names in `Blocks`, and which of them branch, for some nodes by their numbers."""
    node = tree.node[at]
    branch = np.minimum(np.searchsorted(trie.branch, node), max(len(trie.branch) - 1, 0))
    branches = trie.branch[branch] == node if len(trie.branch) else np.zeros(len(node), bool)
    place_among = np.cumsum(branches) - 1

    def number_of(edge: Int[np.ndarray, " c"], parent: Int[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
        """Number of an edge in the block, out of a node in the column `parent`."""
        child = edge - trie.child_start[branch[parent]]
        return np.where(edge >= 0, n_columns + 1 + place_among[parent] * width + child, parent)

    columns = np.arange(len(at))
    into = number_of(tree.edge[at], np.searchsorted(at, tree.parent[at]))
    columns_of = {
        "node": node,
        "token": tree.token[at],
        "depth": tree.depth[at],
        "leave": tree.leave[at],
        "into": np.where(columns > 0, into, n_columns),
        "end": np.where(tree.ends[at], number_of(tree.end[at], columns), n_columns),
    }
    return columns_of, np.flatnonzero(branches)
