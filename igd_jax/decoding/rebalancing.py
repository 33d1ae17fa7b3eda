"""IGD's edge score, which rebalances siblings by information gain (arXiv 2506.13229; docs/methods/igd.md).

    w(c) = (logp(c) / temperature - 1e-7) * (1 - alpha * factor(c))

``factor`` is the gain scaled to [0, 1] among siblings. Nothing is renormalised, so forced tokens contribute their
log-probability, and the temperature rescales sums without changing their order. Alpha 0 is plain beam search.

Where a user's candidates are restricted, the factors are those of a trie of the allowed rows alone, computed on the
device as in `items.info_gain`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import at_edges
from igd_jax.decoding.siblings import Siblings, siblings
from igd_jax.items.info_gain import EdgeGain


@struct.dataclass
class Rebalanced:
    """Log-probabilities, discounted by the gain.

    Attributes:
      factor: factor of each edge out of a branching node; a last entry, 0, represents all other edges.
      alpha: strength of the discount, 0 to 1.
      temperature: divisor of log-probabilities, above 0.
      count: train targets of each catalogue row.
      siblings: edges out of branching nodes.
    """

    factor: Float[Array, " E_plus_1"]
    alpha: Float[Array, ""]
    temperature: Float[Array, ""]
    count: Int[Array, " N"]
    siblings: Siblings

    def of_rows(self, batch: TextBatch) -> tuple[()] | tuple[Float[Array, "B E_plus_1"]]:
        """Factors of each row where its candidates are restricted; nothing if all rows share the trie."""
        if batch.allowed is None:
            return ()
        count = jnp.where(batch.allowed, self.count, 0)
        p = count / jnp.maximum(count.sum(axis=1, keepdims=True), 1)
        entropy = self.siblings.below(jax.scipy.special.entr(p))
        seen = self.siblings.count(count > 0) > 0
        # The gains of siblings differ by what is left below them.
        most, least = (sign * self.siblings.largest(jnp.where(seen, sign * entropy, -jnp.inf)) for sign in (1.0, -1.0))
        factor = jnp.where(seen & (most > least), (most - entropy) / (most - least + 1e-7), 0.0)
        return (jnp.pad(factor, ((0, 0), (0, 1))),)

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """The score as defined at the top of this module."""
        factor = at_edges(rows[0], edge) if rows else self.factor[edge]
        return (logp / self.temperature - 1e-7) * (1.0 - self.alpha * factor)


def rebalanced(gain: EdgeGain, *, alpha: float, temperature: float) -> Rebalanced:
    """Make the score."""
    factor = jnp.asarray(np.append(gain.factor, np.float32(0)))
    count = jnp.asarray(gain.counts, jnp.int32)
    return Rebalanced(factor, jnp.float32(alpha), jnp.float32(temperature), count, siblings(gain.trie))
