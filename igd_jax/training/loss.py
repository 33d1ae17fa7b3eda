"""Weighted cross-entropy as a `LossSum`: sum and weight are kept separate, and divided once."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import LossSum


def weighted_cross_entropy(
    logits: Float[Array, "B T V"],
    target: Int[Array, "B T"],
    weight: Float[Array, "B T"],
    *,
    parts: Mapping[str, Bool[Array, "B T"] | Float[Array, "B T"]],
) -> LossSum:
    """Sum of ``weight * (logsumexp(logits) - logits[target])`` in nats, over all tokens of all rows.

    Args:
      logits: logits of the tokens.
      target: ids of the tokens.
      weight: weight of each token; 0 on padding.
      parts: masks of tokens, or how often each counts, by name; the mean cross-entropy of each is reported under its
        name, without `weight`.
    """
    logits = logits.astype(jnp.float32)  # a softmax in bf16 is too coarse for small gains
    token = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - token
    counts = {name: part.astype(jnp.float32) for name, part in parts.items()}
    metrics = {name: ((count * nll).sum(), count.sum()) for name, count in counts.items()}
    return LossSum((weight * nll).sum(), weight.sum(), metrics)
