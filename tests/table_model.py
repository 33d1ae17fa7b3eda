"""A table in the place of a model, and tries of one shape, so that one program searches thousands of them.

The table's numbers depend on the row, on every token that a query sees and on the position of each: a token that is
seen by mistake, missed, or read at a wrong position changes all of them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from plain_trie import catalog_of, trie_of

from igd_jax.core.types import TextBatch
from igd_jax.decoding.chains import Chains, chains_of
from igd_jax.decoding.device_trie import DeviceTrie, device_trie
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.restriction import Restricted
from igd_jax.decoding.siblings import Siblings
from igd_jax.items.catalog import Catalog
from igd_jax.items.info_gain import edge_gain
from igd_jax.models.backbone import KVCache, Past, Prefix
from igd_jax.models.visibility import Visibility, mask_of

PRIME = 8191
"""Sums of a few hundred codes below it are exact in float32."""


class Sizes(NamedTuple):
    """A vocabulary, and a bound of the nodes, edges, rows and children of every trie."""

    vocab: int
    nodes: int
    edges: int
    rows: int
    width: int


class TableModel(nnx.Module):
    """Its logits are numbers of a table that the tokens before them select."""

    dtype = jnp.dtype(jnp.float32)
    config: Any = None

    def __init__(self, vocab: int, seed: int):
        self.table = nnx.Param(jnp.asarray(np.random.default_rng(seed).normal(0, 2, (PRIME, vocab)), jnp.float32))

    def read_shared(self, ids: jax.Array) -> None:
        """Nothing: what comes after them is part of the sum."""

    def prefill(self, batch: TextBatch, shared: KVCache | None = None) -> Prefix:
        code = (jnp.where(batch.prompt_mask, batch.prompt, 0).sum(axis=1) * 613 + 7) % PRIME
        kv = self._kv(code[:, None])
        length = batch.prompt_mask.sum(axis=1, dtype=jnp.int32)
        return Prefix(kv, jnp.ones((len(code), 1), bool), length, code[:, None].astype(jnp.float32))

    def extend(
        self, prefix: Prefix, tokens: jax.Array, *, positions: jax.Array, visible: Visibility, past: list[Past] = ()
    ) -> tuple[jax.Array, KVCache]:
        code = (tokens * 131 + (positions - prefix.length[:, None]) * 1709 + 11) % PRIME
        seen = prefix.kv.key[0, :, 0, :, 0].sum(axis=1)[:, None]
        for kv, mask in [*past, (self._kv(code), mask_of(visible))]:
            seen = seen + jnp.where(mask, kv.key[0, :, 0, :, 0][:, None], 0).sum(axis=2)
        return (seen % PRIME)[..., None], self._kv(code)

    def target_hidden(self, batch: TextBatch) -> jax.Array:
        raise NotImplementedError

    def logits(self, hidden: jax.Array) -> jax.Array:
        return self.table[...][hidden[..., 0].astype(jnp.int32) % PRIME]

    @staticmethod
    def _kv(code: jax.Array) -> KVCache:
        kept = code.astype(jnp.float32)[None, :, None, :, None]
        return KVCache(kept, kept)


class Padded(NamedTuple):
    """The tables of one catalogue, padded to common sizes."""

    catalog: Catalog
    trie: DeviceTrie
    chains: Chains
    score: Restricted


def padded(rows: list[list[int]], counts: list[int], sizes: Sizes, *, alpha: float) -> Padded:
    """A catalogue whose trie is within the sizes."""
    catalog = catalog_of(rows, counts)
    host = trie_of(catalog)
    trie, chains = device_trie(host), chains_of(host, catalog.counts)
    n_edges = sizes.edges
    assert trie.n_edges <= n_edges
    assert max(trie.width, trie.root_width) <= sizes.width

    def wide(x: Any, n: int, value: float) -> jax.Array:
        assert len(x) <= n
        # NumPy's, as every shape of an array would be compiled.
        return jnp.asarray(np.pad(np.asarray(x), (0, n - len(x)), constant_values=value))

    words = sizes.nodes // 32 + 1
    trie = trie.replace(
        token=wide(trie.token, sizes.nodes, 0),
        branch_bits=wide(trie.branch_bits, words, 0),
        branch_rank=wide(trie.branch_rank, words, 0),
        child_start=wide(trie.child_start, n_edges + 2, 0),
        child=wide(trie.child, n_edges + 1, 0),
        leaf=wide(trie.leaf, sizes.rows, sizes.nodes),
        row=wide(trie.row, sizes.rows, 0),
        n_edges=n_edges,
        root_width=sizes.width,
        width=sizes.width,
    )
    stops = sizes.nodes + 1
    chains = Chains(
        length=wide(chains.length, sizes.nodes, 0),
        stop=wide(chains.stop, stops, sizes.nodes),
        end=wide(chains.end, stops, sizes.nodes),
        heavy=wide(np.asarray(chains.heavy)[:-1], n_edges + 1, n_edges),
        log_share=wide(np.asarray(chains.log_share)[:-1], n_edges + 1, -np.inf),
    )
    gain = rebalanced(edge_gain(host, catalog.counts), alpha=alpha, temperature=1.0)
    among = gain.siblings
    among = Siblings(
        low=wide(among.low, n_edges, 0),
        high=wide(among.high, n_edges, 0),
        parent=wide(among.parent, n_edges, n_edges - 1),
        n_branches=n_edges,
    )
    gain = gain.replace(
        factor=wide(np.asarray(gain.factor)[:-1], n_edges + 1, 0),
        count=wide(gain.count, sizes.rows, 0),
        siblings=among,
    )
    return Padded(catalog, trie, chains, Restricted(wide(host.row, sizes.rows, 0), among, gain))
