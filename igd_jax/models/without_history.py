"""What a model predicts of target tokens if it does not know the history: after one prompt for all rows."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from igd_jax.core.types import TextBatch, prompt_batch
from igd_jax.models.backbone import Backbone
from igd_jax.models.layers import pick
from igd_jax.models.visibility import Segments, newest_before


def logits_without_history(model: Backbone, batch: TextBatch, prompt: Int[Array, " P"]) -> Float[Array, "B T V"]:
    """Float32 logits of each target token after `prompt`, aligned with those after the prompts of the rows."""
    return model.logits(hidden_without_history(model, batch, prompt))


def hidden_without_history(model: Backbone, batch: TextBatch, prompt: Int[Array, " P"]) -> Float[Array, "B T D"]:
    """States that predict each target token after `prompt`, aligned with `Backbone.target_hidden`.

    The prompt is read once for the whole batch, and each identifier is read directly after it:

        target     t1 t2 t3 .
        place       0  1  2 .
        predicted
        after       p t1 t2 .       p is the prompt's last token

    The published code shifts the shorter of the two prompts, so that targets have equal positions. As rotary positions
    are relative, the logits are the same.
    """
    prefix = model.prefill(prompt_batch(prompt)).take(jnp.zeros(len(batch.target), jnp.int32))
    is_first = batch.place == 0
    identifier = jnp.cumsum(is_first & batch.target_mask, axis=1, dtype=jnp.int32)
    hidden, _ = model.extend(
        prefix,
        batch.target,
        positions=prefix.length[:, None] + batch.place,
        visible=Segments(jnp.where(batch.target_mask, identifier, 0)),
    )
    before = pick(hidden, jnp.maximum(newest_before(batch.target_mask), 0))
    return jnp.where(is_first[..., None], prefix.hidden[:, None], before)
