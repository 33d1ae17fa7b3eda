"""The arrays hold the same trie as nested dictionaries, node for node."""

import numpy as np
import pytest
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows, trie_of

from igd_jax.core.ragged import Ragged
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
    return trie_of(catalog), plain_trie(rows), rows


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
    at = Ragged.from_lists(walked)
    node, edge = trie.walk(at)
    edges = {number: index for index, number in enumerate(trie.child.tolist())}
    for r, row in enumerate(walked):
        here = slice(at.start[r], at.start[r + 1])
        assert (node[here].tolist(), edge[here].tolist()) == _walk_plainly(nodes, edges, row)


def test_the_order_in_which_rows_are_walked_changes_nothing(both):
    trie, _, rows = both
    at = Ragged.from_lists(rows + [row[::-1] for row in rows])
    order = np.random.default_rng(0).permutation(len(at))
    for plain, ordered in zip(trie.walk(at), trie.walk(at, order), strict=True):
        np.testing.assert_array_equal(plain, ordered)


def test_walking_no_rows_or_no_tokens_finds_nothing():
    trie = trie_of(catalog_of([[3, EOS], [4, EOS]]))
    for lists in ([], [[], []]):
        node, edge = trie.walk(Ragged.from_lists(lists))
        assert node.shape == edge.shape == (0,)


def test_walking_passes_over_empty_rows():
    trie = trie_of(catalog_of([[3, EOS], [4, EOS]]))
    node, _ = trie.walk(Ragged.from_lists([[], [3, EOS], [], [4], []]))
    assert node.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", CATALOGUES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_trie_over_some_rows_is_that_of_a_catalogue_of_those_alone_with_row_numbers_of_the_whole(name, share):
    catalog = catalog_of(CATALOGUES[name])
    is_candidate = np.random.default_rng(len(catalog)).random(len(catalog)) < share
    is_candidate[len(catalog) // 2] = True
    some, rows = build_trie(catalog, is_candidate), lists_of(catalog.tokens)
    alone = trie_of(catalog_of([row for row, is_one in zip(rows, is_candidate, strict=True) if is_one]))
    for field in ("token", "branch", "child_start", "child", "leaf"):
        np.testing.assert_array_equal(getattr(some, field), getattr(alone, field), err_msg=field)
    assert some.row.tolist() == np.flatnonzero(is_candidate).tolist()
    for low, high, first, last in zip(some.child_lo, some.child_hi, alone.child_lo, alone.child_hi, strict=True):
        assert (np.flatnonzero(is_candidate[low:high]) + low).tolist() == some.row[first:last].tolist()
        assert is_candidate[[low, high - 1]].all()


def test_row_numbers_are_small_integers():
    trie = trie_of(catalog_of([[3, EOS], [4, EOS], [4, 5, EOS]]))
    for field in ("token", "branch", "child_start", "child", "child_lo", "child_hi", "leaf", "row"):
        assert getattr(trie, field).dtype == np.int32, field
