"""Grounding: the titles of the catalogue that are nearest to generated texts.

Let e be the last hidden state of a text at its last token, and W a statistic of an item for a user (BIGRec, arXiv
2308.08434; docs/methods/bigrec.md):

    D(u, i)  = |e(u) - e(i)|
    D~(u, i) = (D - min_i D) / (max_i D - min_i D) * (1 + W(u, i))^-gamma
"""

from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.log import Progress
from igd_jax.core.map_rows import deal_rows, in_groups, map_rows
from igd_jax.core.ragged import Ragged
from igd_jax.core.sharding import put, replicated
from igd_jax.core.types import Remainders
from igd_jax.models.decoder import Decoder
from igd_jax.models.visibility import Causal, positions_of

CHUNK = 16_384
"""Titles per matrix product; at the highest precision an accelerator makes several copies of the operands."""

TITLES_AT_ONCE, WIDTH_STEP = 64, 16
"""Shapes in which titles are embedded: number of titles, and the step of widths in tokens."""


@no_type_check  # as a pytree it also holds shardings
@struct.dataclass
class TitleEmbeddings:
    """Embeddings of the catalogue, ready for distances.

    Attributes:
      centred: embeddings minus `mean`, float32, which keeps precision.
      square: squared norm of each centred row.
      mean: mean of all embeddings.
    """

    centred: Float[Array, "N D"]
    square: Float[Array, " N"]
    mean: Float[Array, " D"]


def make_titles(embeddings: Float[np.ndarray, "N D"]) -> TitleEmbeddings:
    """Centre the embeddings and put them on the device."""
    mean = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = embeddings - mean
    return TitleEmbeddings(jnp.asarray(centred), jnp.asarray(np.square(centred).sum(axis=1)), jnp.asarray(mean))


def cut(
    tokens: Int[Array, "n T"], lengths: Int[Array, " n"], remainders: Remainders
) -> tuple[Int[Array, "n T"], Int[Array, " n"]]:
    r"""Cut texts before their first newline or EOS, and then take off quotes; at least one token is kept.

    A token may contain a newline or a quote beside other characters. With a token ``)\n``, of which ``)`` remains:

        Red  Fox  )\n  EOS      Red  Fox  )
        Red  \n   Fox  )        Red
        "    Fox  "    EOS      Fox                   where texts are quoted
        \n   EOS  .    .        \n

    Args:
      tokens: ids of each text.
      lengths: length of each text in tokens; the rest is padding.
      remainders: what remains of each token.

    Returns:
      Tokens, arbitrary beyond the new lengths, and the new lengths, at least 1 even for empty texts.
    """
    place = jnp.arange(tokens.shape[1])[None]
    left = remainders.end[tokens]
    is_end = (left != tokens) & (place < lengths[:, None])
    first = jnp.where(is_end.any(axis=1), is_end.argmax(axis=1), lengths)
    stays = is_end & (left >= 0) & (place == first[:, None])
    tokens, lengths = jnp.where(stays, left, tokens), first + stays.any(axis=1).astype(first.dtype)

    left, is_last = remainders.closing[tokens], place == lengths[:, None] - 1
    tokens = jnp.where(is_last & (left >= 0), left, tokens)
    lengths = lengths - (is_last & (left < 0)).any(axis=1).astype(lengths.dtype)

    left, is_first = remainders.opening[tokens], place == 0
    tokens = jnp.where(is_first & (left >= 0), left, tokens)
    is_gone = (left[:, 0] < 0) & (lengths > 1)
    tokens = jnp.where(is_gone[:, None], jnp.roll(tokens, -1, axis=1), tokens)
    return tokens, jnp.maximum(lengths - is_gone.astype(lengths.dtype), 1).astype(jnp.int32)


def embed_texts(
    model: Decoder, tokens: Int[Array, "n T"], lengths: Int[Array, " n"], *, bos: int | None
) -> Float[Array, "n D"]:
    """Hidden state of each text at its last token, after the final norm; float32.

    Args:
      tokens: right-padded texts of at least one token, without newline, EOS and quotes; see `cut`.
      lengths: length of each text in tokens.
      bos: token before each text, for models that have one.
    """
    if bos is not None:
        tokens = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=bos)
        lengths = lengths + 1
    valid = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    hidden, _ = model(tokens, positions=positions_of(valid), visible=Causal(valid))
    return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0].astype(jnp.float32)


def embed_rows(
    model: Decoder, rows: Ragged, remainders: Remainders, *, bos: int | None, mesh: Mesh
) -> Float[np.ndarray, "N D"]:
    """Embeddings of many rows, cut like generated texts; batches have few shapes and are divided among devices."""
    graph, state = nnx.split(model)
    held = put((state, remainders), replicated(mesh))

    @jax.jit
    def embed(held: Any, tokens: Int[Array, "n T"], lengths: Int[Array, " n"]) -> Float[Array, "n D"]:
        state, remainders = held
        return embed_texts(nnx.merge(graph, state), *cut(tokens, lengths, remainders), bos=bos)

    def answer(group: Int[np.ndarray, " n"]) -> Float[Array, "m D"]:
        part = rows.take(group)
        width = -(-int(part.lengths.max()) // WIDTH_STEP) * WIDTH_STEP
        return embed(held, *deal_rows(part.pad(width), part.lengths, size=TITLES_AT_ONCE, mesh=mesh))

    groups = in_groups(np.argsort(rows.lengths, kind="stable"), TITLES_AT_ONCE)
    return map_rows(answer, groups, n_rows=len(rows), progress=Progress("embed", len(rows), "titles"))


def distances(texts: Float[Array, "n D"], titles: TitleEmbeddings, *, chunk: int = CHUNK) -> Float[Array, "n N"]:
    """Euclidean distance of each text to each title of the catalogue, computed in chunks of `chunk` titles."""
    texts = texts - titles.mean[None]
    parts = [
        jnp.matmul(texts, titles.centred[begin : begin + chunk].T, precision=jax.lax.Precision.HIGHEST)
        for begin in range(0, len(titles.centred), chunk)
    ]
    squares = jnp.square(texts).sum(axis=1)[:, None] + titles.square[None] - 2.0 * jnp.concatenate(parts, axis=1)
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def min_max(values: Float[Array, "... N"]) -> Float[Array, "... N"]:
    """Scale each row from 0 at its lowest finite value to 1 at its highest; -inf and constant rows become 0."""
    finite = jnp.isfinite(values)
    low = jnp.where(finite, values, jnp.inf).min(axis=-1, keepdims=True)
    high = jnp.where(finite, values, -jnp.inf).max(axis=-1, keepdims=True)
    spread = high - low
    return jnp.where(finite & (spread > 0), (values - low) / jnp.where(spread > 0, spread, 1.0), 0.0)


def collaborative_weight(
    scores: Float[Array, "B items"], item: Int[Array, " I"], item_title: Int[Array, " I"], may_be: Bool[Array, "B N"]
) -> Float[Array, "B N"]:
    """W of each title for each user: the best score among its items, scaled from 0 to 1 among those that may be."""
    n_titles = may_be.shape[1]
    best = jax.ops.segment_max(scores[:, item].T, item_title, num_segments=n_titles, indices_are_sorted=True)
    return min_max(jnp.where(may_be, best.T, -jnp.inf))


def adjusted(
    distance: Float[Array, "B K N"], weight: Float[Array, "B N"], gamma: float | Float[Array, ""]
) -> Float[Array, "B K N"]:
    """D~ as defined at the top of this module. The nearest title of a text stays the nearest for any gamma.

    Args:
      distance: distances from each of a user's K texts; infinite for titles that must not be returned, which stay so.
      weight: W, 0 to 1.
      gamma: exponent, 0 or more; 0 keeps the order of the distances.
    """
    near = min_max(distance) * jnp.exp(-gamma * jnp.log1p(weight))[:, None]
    return jnp.where(jnp.isfinite(distance), near, jnp.inf)


def nearest(
    distance: Float[Array, "B K N"], exists: Bool[Array, "B K"], *, k: int
) -> tuple[Int[Array, "B {k}"], Float[Array, "B {k}"]]:
    """The k titles nearest to a user's texts, interleaved (CFT; docs/methods/cft.md).

    The nearest title of each text comes first, in the order of the texts, then the second nearest of each, and so on; a
    repeated title counts at its first occurrence. For a single text these are its k nearest titles, ties by row.

    Args:
      distance: distances from each of a user's K texts; infinite for titles that must not be returned.
      exists: mask of existing texts.
      k: number of titles.

    Returns:
      Catalogue rows, -1 if there are fewer, and the distance of each at its first occurrence, else inf.
    """
    n_rows, n_texts, n_titles = distance.shape
    depth = min(k, n_titles)
    negative, row = jax.lax.top_k(-distance, depth)
    row, distance = (x.transpose(0, 2, 1).reshape(n_rows, -1) for x in (row, -negative))  # interleaved
    place = jnp.arange(depth * n_texts)
    earlier = (place[None, :] < place[:, None])[None]
    there = jnp.tile(exists, (1, depth)) & jnp.isfinite(distance)
    again = ((row[:, :, None] == row[:, None, :]) & there[:, None, :] & earlier).any(axis=2)
    order, first = jax.lax.top_k(jnp.where(there & ~again, len(place) - place[None], 0), depth)
    kept = order > 0
    row = jnp.where(kept, jnp.take_along_axis(row, first, axis=1), -1)
    distance = jnp.where(kept, jnp.take_along_axis(distance, first, axis=1), jnp.inf)
    missing = ((0, 0), (0, k - depth))
    return jnp.pad(row, missing, constant_values=-1), jnp.pad(distance, missing, constant_values=jnp.inf)
