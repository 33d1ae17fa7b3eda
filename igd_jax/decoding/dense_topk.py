"""The best rows of the catalogue by inner products with vectors of their items, in chunks that fit into memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def best_rows(
    query: Float[Array, "B ZD"], tables: dict[str, Array], *, k: int
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k catalogue rows with the highest score, that of a row's best item; -inf where there are fewer.

    Args:
      tables: chunks of items in the order of their rows, that never part the items of a row: ``tokens``
        [chunks, items, ZD], ``row`` and ``is_item`` [chunks, items]; what is no item fills up a chunk and repeats its
        last row.

    Returns:
      Scores, best first, and rows.
    """

    def add_chunk(best: tuple[Array, Array], chunk: dict[str, Array]) -> tuple[tuple[Array, Array], None]:
        exact = jax.lax.Precision.HIGHEST  # these products decide the order
        scores = jnp.einsum("BD,ID->IB", query, chunk["tokens"], precision=exact, preferred_element_type=jnp.float32)
        scores = jnp.where(chunk["is_item"][:, None], scores, -jnp.inf)
        place = chunk["row"] - chunk["row"][0]  # the rows of a chunk are consecutive
        of_rows = jax.ops.segment_max(scores, place, num_segments=len(place), indices_are_sorted=True).T
        found, at = jax.lax.top_k(of_rows, min(k, len(place)))
        scores, rows = (jnp.concatenate(pair, 1) for pair in zip(best, (found, chunk["row"][0] + at), strict=True))
        scores, at = jax.lax.top_k(scores, k)
        return (scores, jnp.take_along_axis(rows, at, axis=1)), None

    nothing = jnp.full((len(query), k), -jnp.inf), jnp.zeros((len(query), k), jnp.int32)
    chunks = {name: tables[name] for name in ("tokens", "row", "is_item")}
    return jax.lax.scan(add_chunk, nothing, chunks)[0]
