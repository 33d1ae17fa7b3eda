"""IGD's edge score, which rebalances siblings by information gain (arXiv 2506.13229; docs/methods.md, IGD).

    w(c) = (logp(c) / temperature - 1e-7) * (1 - alpha * factor(c))

``factor`` is the gain scaled to [0, 1) among siblings. Nothing is renormalised, so forced tokens contribute their
log-probability, and the temperature rescales sums without changing their order. Alpha 0 is plain beam search.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.items.info_gain import EdgeGain


@struct.dataclass
class Rebalanced:
    """Log-probabilities, discounted by the gain.

    Attributes:
      factor: factor of each edge out of a branching node; a last entry, 0, represents all other edges.
      alpha: strength of the discount, 0 to 1.
      temperature: divisor of log-probabilities, above 0.
    """

    factor: Float[Array, " E_plus_1"]
    alpha: Float[Array, ""]
    temperature: Float[Array, ""]

    def of_rows(self, batch: TextBatch) -> tuple[()]:
        """Nothing, as all rows share the trie."""
        return ()

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """The score as defined at the top of this module."""
        return (logp / self.temperature - 1e-7) * (1.0 - self.alpha * self.factor[edge])


def rebalanced(gain: EdgeGain, *, alpha: float, temperature: float) -> Rebalanced:
    """Make the score."""
    factor = jnp.asarray(np.append(gain.factor, np.float32(0)))
    return Rebalanced(factor, jnp.float32(alpha), jnp.float32(temperature))
