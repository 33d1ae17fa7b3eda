"""Normalisation among the legal children of a node, instead of over the whole vocabulary.

    logp(c) - ln sum of exp(logp(v)) over the legal children v

So a token that has no alternative costs nothing, and the scores of all candidates are the logarithms of probabilities
that sum to 1, which those over the vocabulary do not.
"""

from typing import Any

import jax
from flax import struct
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.decoding.edge_score import EdgeScore

NORMALIZE = ("vocabulary", "children")
"""Values of `config.decode.normalize`."""


@struct.dataclass
class AmongChildren:
    """Another edge score, of log-probabilities among the legal children.

    Attributes:
      then: the score.
    """

    then: EdgeScore

    def of_rows(self, batch: TextBatch) -> Any:
        """What the other score needs."""
        return self.then.of_rows(batch)

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """The other score; arbitrary where no child of a node is legal."""
        return self.then(logp - jax.nn.logsumexp(logp, axis=-1, keepdims=True), edge, rows)
