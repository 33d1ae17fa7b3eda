"""The arrays hold the same trie as nested dictionaries, node for node."""

import numpy as np
import pytest
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows

from igd_jax.items.trie import Trie, build_trie

CATALOGUES = {
    "one title": [[3, 2, EOS]],
    "one token": [[EOS]],
    "two titles": [[3, EOS], [4, EOS]],
    "a title and its beginning": [[3, EOS], [3, 4, EOS], [EOS]],
    "a forced chain before the split": [[3, 4, 5, 6, EOS], [3, 4, 5, 7, EOS]],
    "titles of one token": [[token, EOS] for token in range(1, 40)],
    "each title longer than the last": [[1] * n + [EOS] for n in range(30)],
    "a comb": [[1] * n + [2, EOS] for n in range(30)],
    "large token ids": [[200_000, 199_999, EOS], [200_000, 3, EOS], [151_643, EOS]],
} | {f"random {seed}": random_rows(np.random.default_rng(seed), 40 * (seed + 1)) for seed in range(8)}


@pytest.fixture(params=CATALOGUES, scope="module")
def both(request) -> tuple[Trie, list[PlainNode], list[list[int]]]:
    """The trie, its plain twin and the catalogue's rows."""
    catalog = catalog_of(CATALOGUES[request.param])
    rows = lists_of(catalog.tokens)
    return build_trie(catalog), plain_trie(rows), rows


def test_nodes_are_numbered_depth_first_by_token(both):
    trie, nodes, _ = both
    assert trie.token.tolist() == [node.token for node in nodes]


def test_only_branching_nodes_list_their_children_by_token(both):
    trie, nodes, _ = both
    branching = [node for node in nodes if len(node.children) > 1]
    assert trie.branch.tolist() == [node.number for node in branching]
    assert trie.n_children.tolist() == [len(node.children) for node in branching]
    children = [child for node in branching for child in node.by_token()]
    assert trie.child.tolist() == [child.number for child in children]


def test_the_only_child_of_a_node_is_the_next_node(both):
    trie, nodes, _ = both
    lonely = [node for node in nodes if len(node.children) == 1]
    assert not set(trie.branch.tolist()) & {node.number for node in lonely}
    assert all(next(iter(node.children.values())).number == node.number + 1 for node in lonely)


def test_the_range_of_a_child_is_the_rows_below_it(both):
    trie, nodes, _ = both
    for child, low, high in zip(trie.child, trie.child_lo, trie.child_hi, strict=True):
        assert nodes[child].rows == list(range(low, high))


def test_each_row_ends_in_a_leaf_and_no_other_node_ends_one(both):
    trie, nodes, rows = both
    leaves = {node.number: node.rows[0] for node in nodes if not node.children}
    assert dict(zip(trie.leaf.tolist(), range(len(rows)), strict=True)) == leaves
    every = np.arange(-1, len(nodes))
    assert trie.row_of_leaf(every).tolist() == [leaves.get(node, -1) for node in every.tolist()]


def _walk_plainly(nodes: list[PlainNode], edges: dict[int, int], row: list[int]) -> tuple[list[int], list[int]]:
    """Node and edge after each token, -1 from the first that leaves the trie."""
    here: PlainNode | None = nodes[0]
    found: tuple[list[int], list[int]] = ([], [])
    for token in row:
        here = here.children.get(token) if here else None
        found[0].append(here.number if here else -1)
        found[1].append(edges.get(here.number, -1) if here else -1)
    return found


def test_walking_follows_titles_and_stops_where_a_row_leaves_the_trie(both):
    trie, nodes, rows = both
    rng = np.random.default_rng(len(rows))
    strays = [row.copy() for row in rows]
    for row in strays:
        row[rng.integers(len(row))] = int(rng.choice(trie.token[1:]))
    beyond = [[*row, EOS] for row in rows] + [[*row, int(trie.token[-1])] for row in rows]
    walked = rows + strays + beyond + [row[:-1] for row in rows if len(row) > 1] + [[7, EOS], [123_456]]
    width = max(map(len, walked)) + 2
    tokens = np.array([row + [EOS] * (width - len(row)) for row in walked], np.int32)
    mask = np.arange(width) < np.array([[len(row)] for row in walked])
    node, edge = trie.walk(tokens, mask)
    edges = {number: index for index, number in enumerate(trie.child.tolist())}
    for r, row in enumerate(walked):
        expected_node, expected_edge = _walk_plainly(nodes, edges, row)
        padding = [-1] * (width - len(row))
        assert node[r].tolist() == expected_node + padding
        assert edge[r].tolist() == expected_edge + padding


def test_walking_no_rows_or_no_tokens_finds_nothing():
    trie = build_trie(catalog_of([[3, EOS], [4, EOS]]))
    for shape in ((0, 3), (2, 0)):
        node, edge = trie.walk(np.zeros(shape, np.int32), np.ones(shape, bool))
        assert node.shape == edge.shape == shape


def test_walking_skips_rows_that_are_all_padding():
    trie = build_trie(catalog_of([[3, EOS], [4, EOS]]))
    node, _ = trie.walk(np.array([[3, EOS], [3, EOS]], np.int32), np.array([[False, False], [True, True]]))
    assert node.tolist() == [[-1, -1], [1, 2]]
