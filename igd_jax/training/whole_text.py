"""Prompts as targets: the predictions of all tokens of a text, for losses that also cover the prompt."""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from igd_jax.core.types import TextBatch
from igd_jax.models.visibility import newest_before


class WholeText(NamedTuple):
    """The columns of each row: shared prefix, prompt and target.

    ::

        batch       shared a b     prompt  . c d    target  e f .
        tokens      a b . c d e f .
        predicted     b   c d                       in_prompt; the first token of a text has no prediction
        before        0   1 3 4 5

    Attributes:
      batch: the same rows without a shared prefix, whose `before` names the column before each of the columns.
      tokens: ids of all columns.
      in_prompt: mask of the tokens of shared prefix and prompt that are predicted.
    """

    batch: TextBatch
    tokens: Int[Array, "B W"]
    in_prompt: Bool[Array, "B W"]


def whole_text(batch: TextBatch) -> WholeText:
    """Take the prompts of a batch as targets, too; each row reads the shared prefix by itself."""
    n_rows, n_shared = len(batch.prompt), len(batch.shared_prefix)
    shared = jnp.broadcast_to(batch.shared_prefix[None], (n_rows, n_shared))
    is_shared = jnp.broadcast_to(batch.is_real[:, None], shared.shape)
    prompt = jnp.concatenate([shared, batch.prompt], axis=1)
    is_prompt = jnp.concatenate([is_shared, batch.prompt_mask], axis=1)
    before = newest_before(is_prompt)
    in_prompt = is_prompt & (before >= 0)
    batch = replace(
        batch,
        shared_prefix=batch.shared_prefix[:0],
        prompt=prompt,
        prompt_mask=is_prompt,
        before=jnp.concatenate([jnp.maximum(before, 0), batch.before + n_shared], axis=1),
    )
    tokens = jnp.concatenate([prompt, batch.target], axis=1)
    return WholeText(batch, tokens, jnp.pad(in_prompt, ((0, 0), (0, batch.target.shape[1]))))
