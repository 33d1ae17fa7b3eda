"""Batches made by hand, for tests that need no data."""

import jax.numpy as jnp
import numpy as np

from igd_jax.core.types import TextBatch


def text_batch(prompts: list[list[int]], *, width: int | None = None, shared: list[int] | None = None) -> TextBatch:
    """Left-padded prompts after a shared prefix, without targets; an empty prompt is a row that only fills up."""
    width = max(map(len, prompts)) if width is None else width
    ids = np.array([[0] * (width - len(prompt)) + prompt for prompt in prompts], np.int32)
    mask = np.arange(width) >= width - np.array([[len(prompt)] for prompt in prompts])
    nothing = jnp.zeros((len(prompts), 0), jnp.int32)
    return TextBatch(
        shared_prefix=jnp.asarray(shared or [], jnp.int32),
        prompt=jnp.asarray(ids),
        prompt_mask=jnp.asarray(mask),
        target=nothing,
        target_mask=nothing.astype(bool),
        place=nothing,
        before=nothing,
        first=jnp.zeros(0, jnp.int32),
    )
