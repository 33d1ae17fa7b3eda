"""Information gain of every trie edge (IGD, arXiv 2506.13229, section 3; docs/methods/igd.md).

    H(v) = sum over rows i below v of -p_i ln p_i,   p_i = count_i / total,   0 ln 0 = 0
    gain(u -> v) = H(u) - H(v)

H is not renormalised per prefix: a large gain means that little mass is left below v. An edge is *forced* if the child
covers as many train-seen rows as its parent; its gain is then exactly 0. This is decided with integers, since float
sums over the same rows can differ in the last bit. An only child is always forced.

An edge is *unseen* if no train target lies below its child. All other edges are as in a trie of train targets alone, to
the bit. By the definition, the first unseen edge of a title has the gain H(u), the largest among its siblings, and is
not forced: there the title leaves all train targets. Edges below it have gain 0 and are forced.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.items.trie import Trie


@dataclass(frozen=True)
class EdgeGain:
    """Gain of each edge out of a branching node (every other edge is forced, with gain and factor 0).

    Attributes:
      trie, counts: arguments of `edge_gain`.
      root_entropy: H(root) in nats.
      gain: information gain in nats, float64; exactly 0 on forced edges.
      forced: whether the edge decides nothing among rows seen in training.
      factor: gain scaled to [0, 1] among seen siblings, 0 if they all have the same gain, and on unseen edges;
        float32.
    """

    trie: Trie
    counts: Int[np.ndarray, " N"]
    root_entropy: float
    gain: Float[np.ndarray, " E"]
    forced: Bool[np.ndarray, " E"]
    factor: Float[np.ndarray, " E"]

    def along(
        self, edge: Int[np.ndarray, " total"], on_trie: Bool[np.ndarray, " total"]
    ) -> tuple[Float[np.ndarray, " total"], Bool[np.ndarray, " total"]]:
        """Gain (nats) and forced mask along the edges of `Trie.walk`; 0 and True where `on_trie` is False.

        The authors give every token of a target that leaves the trie a gain of 0, so pass `on_trie` False for all
        tokens of such a row.
        """
        index = np.where(on_trie & (edge >= 0), edge, np.int32(len(self.gain)))
        return np.append(self.gain, 0.0)[index], np.append(self.forced, True)[index]


def edge_gain(trie: Trie, counts: Int[np.ndarray, " N"]) -> EdgeGain:
    """Compute the gain of all edges out of branching nodes from the train counts of the rows.

    Rows that are never a train target add nothing. If all counts are 0, every edge is forced, with gain 0.

    Args:
      trie: the trie.
      counts: train targets per catalogue row, 0 for rows that are not candidates.
    """
    total = counts.sum()
    p = counts[counts > 0] / total if total else np.zeros(0)
    mass = np.zeros(len(counts))
    mass[counts > 0] = -p * np.log(p)
    mass_before = np.concatenate([[0.0], np.cumsum(mass)])
    seen_before = np.concatenate([[0], np.cumsum(counts > 0)])

    first, last = trie.child_start[:-1], trie.child_start[1:] - 1
    parent_lo, parent_hi = (np.repeat(a, trie.n_children) for a in (trie.child_lo[first], trie.child_hi[last]))
    n_seen = seen_before[trie.child_hi] - seen_before[trie.child_lo]
    forced = n_seen == seen_before[parent_hi] - seen_before[parent_lo]
    below = mass_before[trie.child_hi] - mass_before[trie.child_lo]
    gain = np.where(forced, 0.0, mass_before[parent_hi] - mass_before[parent_lo] - below)
    return EdgeGain(trie, counts, float(mass_before[-1]), gain, forced, _factor(gain, n_seen > 0, trie))


def _factor(gain: Float[np.ndarray, " E"], is_seen: Bool[np.ndarray, " E"], trie: Trie) -> Float[np.ndarray, " E"]:
    """Min-max of the gain among seen siblings (arXiv 2506.13229, section 3), and 0 for unseen ones."""
    if not len(gain):
        return np.zeros(0, np.float32)
    start, n_children = trie.child_start[:-1], trie.n_children
    low = np.repeat(np.minimum.reduceat(gain, start), n_children)  # of a seen sibling, since an unseen one gains H(u)
    high = np.repeat(np.maximum.reduceat(np.where(is_seen, gain, low), start), n_children)
    return np.where(is_seen & (high > low), (gain - low) / (high - low + 1e-7), 0.0).astype(np.float32)
