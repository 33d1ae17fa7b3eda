"""IGD's edge score: siblings of high information gain are discounted (arXiv 2506.13229; docs/methods.md, IGD).

    w(c) = (logp(c) / temperature - 1e-7) * (1 - alpha * factor(c))

``factor`` is the gain scaled to [0, 1) among siblings. Nothing is renormalised, so forced tokens count with their
log-probability, and the temperature rescales sums without changing their order. At alpha 0 it is plain beam search.
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
    """Discounted log-probabilities.

    Attributes:
      factor: of each edge out of a branching node, and 0 in a last place for all others.
      alpha: strength of the discount, 0 to 1.
      temperature: divisor of log-probabilities, above 0.
    """

    factor: Float[Array, " E_plus_1"]
    alpha: Float[Array, ""]
    temperature: Float[Array, ""]

    def of_rows(self, batch: TextBatch) -> tuple[()]:
        """Nothing: all rows share the trie."""
        return ()

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """See the module's head."""
        return (logp / self.temperature - 1e-7) * (1.0 - self.alpha * self.factor[edge])


def rebalanced(gain: EdgeGain, *, alpha: float, temperature: float) -> Rebalanced:
    """The score on the device."""
    factor = jnp.asarray(np.append(gain.factor, np.float32(0)))
    return Rebalanced(factor, jnp.float32(alpha), jnp.float32(temperature))
