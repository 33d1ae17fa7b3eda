"""Chains, ranges of descendants and shares are those of a plain trie."""

import jax.numpy as jnp
import numpy as np
import pytest
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows, trie_of

from igd_jax.decoding.chains import LONGEST, chains_of

CATALOGUES = {
    "one title": [[3, 2, EOS]],
    "one token": [[EOS]],
    "the end is the last sibling": [[3, 4, 99], [3, 4, 5, 99], [3, 99]],
    "longer than what is read at once": [[*[7] * (LONGEST + 20), 1, EOS], [*[7] * (LONGEST + 20), 2, EOS]],
} | {f"random {seed}": random_rows(np.random.default_rng(seed), 30 * (seed + 1)) for seed in range(4)}


def _chain(node: PlainNode) -> int:
    """Number of nodes from this one to the first that branches or precedes an end."""
    length = 1
    while len(node.children) == 1 and node.by_token()[0].children:
        node, length = node.by_token()[0], length + 1
    return min(length, LONGEST)


@pytest.mark.parametrize("rows", CATALOGUES.values(), ids=CATALOGUES.keys())
def test_every_node_has_its_chain_its_range_and_its_heaviest_children(rows):
    counts = np.random.default_rng(len(rows)).integers(0, 5, len(rows)).tolist()
    catalog = catalog_of(rows, counts)
    trie = trie_of(catalog)
    chains, nodes = chains_of(trie, catalog.counts), plain_trie(lists_of(catalog.tokens))
    inner = [node for node in nodes[1:] if node.children]
    assert [int(chains.length[node.number]) for node in inner] == [_chain(node) for node in inner]
    assert all(chains.length[node.number] == 0 for node in nodes if not node.children)
    end = chains.end_of(jnp.array([[node.number for node in inner] or [1]]))[0]
    assert [int(x) for x in end][: len(inner)] == [max(each.number for each in node.below()) + 1 for node in inner]
    for number, node in enumerate(trie.branch.tolist()):
        first, last = trie.child_start[number : number + 2].tolist()
        mass = {child.number: sum(catalog.counts[r] + 1 for r in child.rows) for child in nodes[node].by_token()}
        found = trie.child[np.asarray(chains.heavy)[first:last]].tolist()
        assert sorted(found) == sorted(mass)
        masses = np.array([mass[child] for child in found])
        assert (np.diff(masses) <= 0).all()
        np.testing.assert_allclose(chains.log_share[first:last], np.log(masses / masses.sum()), rtol=1e-5, atol=1e-6)
    assert int(chains.heavy[-1]) == len(trie.child)
