"""How much of the uncertainty each target token removes: a share from 0 to 1 (docs/methods/igd.md, IGD further
weights).

    gain       share(u -> v) = (H(u) - H(v)) / H(root)
    relative   share(u -> v) = (H(u) - H(v)) / H(u)

clipped to 0 and 1, and 0 on forced edges and off the trie. H is one of two entropies, in nats, over the rows i below v:

    mass       H(v) = sum of -p_i ln p_i,   p_i = count_i / total              as in items.info_gain
    prefix     H(v) = sum of -q_i ln q_i,   q_i = count_i / count below v      given the prefix
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from igd_jax.items.index import ItemIndex

WEIGHTS = ("zero", "gain", "relative")
"""Rules for token weights; ``zero`` is the published one, which only asks whether there is any gain."""
ENTROPIES = ("mass", "prefix")


def gain_share(index: ItemIndex, *, weights: str, entropy: str) -> Float[np.ndarray, " total"]:
    """Share of each token of all items, float64; aligned with the ids of `ItemIndex.item_tokens`.

    Args:
      index: the items.
      weights: ``gain`` or ``relative``.
      entropy: one of `ENTROPIES`.
    """
    trie, counts = index.trie, np.where(index.is_candidate, index.catalog.counts, 0)
    first, last = trie.child_start[:-1], trie.child_start[1:] - 1
    low, high = (np.repeat(bound, trie.n_children) for bound in (trie.child_lo[first], trie.child_hi[last]))
    before = entropy_below(counts, low, high, entropy=entropy)
    removed = before - entropy_below(counts, trie.child_lo, trie.child_hi, entropy=entropy)
    whole = before if weights == "relative" else np.full_like(before, index.gain.root_entropy)
    share = np.divide(removed, whole, out=np.zeros_like(removed), where=(whole > 0) & ~index.gain.forced)
    return replace(index, gain=replace(index.gain, gain=share.clip(0.0, 1.0))).walk().gain


def entropy_below(
    counts: Int[np.ndarray, " N"], low: Int[np.ndarray, " n"], high: Int[np.ndarray, " n"], *, entropy: str
) -> Float[np.ndarray, " n"]:
    """Entropy of each range of rows, in nats, float64; 0 if it has no train target.

    Args:
      counts: train targets per catalogue row.
      low, high: ranges ``[low, high)``.
      entropy: one of `ENTROPIES`.
    """

    def total(values: np.ndarray) -> np.ndarray:
        before = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
        return before[high] - before[low]

    seen = counts.clip(min=1)
    if entropy == "mass":
        p = seen / max(counts.sum(), 1)
        return total(np.where(counts > 0, -p * np.log(p), 0.0))
    n = total(counts)
    conditional = np.log(n.clip(min=1)) - total(counts * np.log(seen)) / n.clip(min=1)
    return np.where(total(counts > 0) > 1, conditional, 0.0)  # exactly 0 for a single seen row
