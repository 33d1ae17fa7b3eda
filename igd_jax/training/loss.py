"""Weighted cross-entropy as a `LossSum`: sum and weight apart, divided once."""

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
    parts: Mapping[str, Bool[Array, "B T"]],
) -> LossSum:
    """Sum of ``weight * (logsumexp(logits) - logits[target])`` in nats, over all tokens of all rows.

    Args:
      weight: 0 where there is no token.
      parts: masks of tokens whose unweighted mean cross-entropy is reported under the mask's name.
    """
    logits = logits.astype(jnp.float32)  # softmax in bf16 loses the small gains that the weights are about
    token = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - token
    metrics = {name: (jnp.where(mask, nll, 0.0).sum(), mask.astype(jnp.float32).sum()) for name, mask in parts.items()}
    return LossSum((weight * nll).sum(), weight.sum(), metrics)
