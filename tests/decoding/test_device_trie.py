"""The trie on the device answers as the trie on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_trie import EOS, catalog_of, lists_of, plain_trie, random_rows, trie_of

from igd_jax.core.ragged import Ragged
from igd_jax.decoding.device_trie import DeviceTrie, device_trie
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.items.catalog import build_catalog
from igd_jax.items.info_gain import EdgeGain, edge_gain
from igd_jax.items.trie import Trie

CATALOGUES = {
    "one title": [[3, 2, EOS]],
    "one token": [[EOS]],
    "one node that branches": [[3, EOS], [4, EOS], [5, EOS]],
    "the root does not branch": [[3, 4, EOS], [3, 5, EOS], [3, 5, 6, EOS]],
    "branches wider than the root": [[3, token, EOS] for token in range(1, 50)] + [[4, EOS]],
} | {f"random {seed}": random_rows(np.random.default_rng(seed), 30 * (seed + 1)) for seed in range(5)}


children_of = jax.jit(DeviceTrie.children, static_argnums=2)
row_of = jax.jit(DeviceTrie.row_of)


def _build(rows: list[list[int]]) -> tuple[Trie, EdgeGain, DeviceTrie]:
    counts = np.random.default_rng(len(rows)).integers(0, 5, len(rows)).tolist()
    catalog = catalog_of(rows, counts)
    trie = trie_of(catalog)
    return trie, edge_gain(trie, catalog.counts), device_trie(trie)


@pytest.mark.parametrize("rows", CATALOGUES.values(), ids=CATALOGUES.keys())
def test_every_inner_node_has_the_children_factors_and_tokens_of_the_host_trie(rows):
    trie, gain, on_device = _build(rows)
    nodes = plain_trie(lists_of(catalog_of(rows).tokens))
    inner = [node for node in nodes if node.children]
    factor_of = dict(zip(trie.child.tolist(), gain.factor.tolist(), strict=True))
    width = max(on_device.root_width, on_device.width)
    asked = jnp.array([[node.number for node in inner], [-1] * len(inner)], jnp.int32)
    child, token, edge, legal = (np.asarray(x) for x in children_of(on_device, asked, width))
    factor = np.asarray(rebalanced(gain, alpha=1.0, temperature=1.0).factor)[edge]
    for i, node in enumerate(inner):
        children = node.by_token()
        assert child[0, i][legal[0, i]].tolist() == [below.number for below in children]
        assert token[0, i][legal[0, i]].tolist() == [below.token for below in children]
        assert (edge[0, i][legal[0, i]] == on_device.n_edges).all() == (len(children) == 1)
        assert factor[0, i][legal[0, i]].tolist() == [factor_of.get(below.number, 0.0) for below in children]
    assert not legal[1].any()  # node -1 is no beam
    assert (child >= 0).all()
    assert (child[:, :, 0] < len(nodes)).all()


@pytest.mark.parametrize("rows", CATALOGUES.values(), ids=CATALOGUES.keys())
def test_widths_are_those_of_the_widest_nodes(rows):
    _, _, on_device = _build(rows)
    nodes = plain_trie(lists_of(catalog_of(rows).tokens))
    assert on_device.root_width == len(nodes[0].children)
    assert on_device.width == max([len(node.children) for node in nodes[1:] if node.children], default=1)
    assert on_device.eos == EOS


@pytest.mark.parametrize("rows", CATALOGUES.values(), ids=CATALOGUES.keys())
def test_only_leaves_end_a_row(rows):
    trie, _, on_device = _build(rows)
    every = np.arange(-1, len(trie.token))
    row_of_leaf = dict(zip(trie.leaf.tolist(), trie.row.tolist(), strict=True))
    found = row_of(on_device, jnp.asarray(every[None], jnp.int32))
    assert found.tolist() == [[row_of_leaf.get(node, -1) for node in every.tolist()]]


def _word_titles(n: int) -> Ragged:
    """`n` titles of 17 tokens on average; tokens by Zipf, so that they share beginnings as real ones do."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 25, n)
    start = np.append(0, np.cumsum(lengths))
    ids = (rng.zipf(1.3, start[-1]) % 100_000 + 1).astype(np.int32)
    ids[start[1:] - 1] = EOS
    return Ragged(ids, start)


def test_bytes_per_title_stay_small():
    rows = _word_titles(20_000)
    catalog = build_catalog(rows, np.ones(len(rows), int))
    on_device = device_trie(trie_of(catalog))
    assert len(catalog) > 0.99 * len(rows)
    assert rows.lengths.mean() == pytest.approx(17, abs=0.1)
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(on_device))
    assert n_bytes / len(catalog) < 90  # 9 MB for 100,000 titles
