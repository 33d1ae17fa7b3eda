"""What a search adds up: from the log-probability of a child to the score of the edge that leads to it."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch


@runtime_checkable
class EdgeScore(Protocol):
    """Scores edges; a pytree, so that its numbers are no constants of a compiled program."""

    def of_rows(self, batch: TextBatch) -> Any:
        """What the score knows of each row beside the beams: arrays whose first axis is B, or nothing."""

    def __call__(self, logp: Float[Array, "B K C"], edge: Int[Array, "B K C"], rows: Any) -> Float[Array, "B K C"]:
        """Scores of edges.

        Args:
          logp: natural log-probabilities of the children's tokens over the whole vocabulary, float32.
          edge: index of each edge among those out of branching nodes; E for the only child of its parent.
          rows: from `of_rows`.
        """
