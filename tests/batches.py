"""Batches made by hand, for tests that need no data."""

import jax.numpy as jnp
import numpy as np

from igd_jax.core.types import TextBatch


def text_batch(
    prompts: list[list[int]],
    targets: list[list[int]] | None = None,
    *,
    width: int | None = None,
    shared: list[int] | None = None,
) -> TextBatch:
    """Left-padded prompts after a shared prefix, with or without targets; an empty row only fills up."""
    width = max(map(len, prompts)) if width is None else width
    ids = np.array([[0] * (width - len(prompt)) + prompt for prompt in prompts], np.int32)
    mask = np.arange(width) >= width - np.array([[len(prompt)] for prompt in prompts])
    nothing = jnp.zeros((len(prompts), 0), jnp.int32)
    batch = TextBatch(
        shared_prefix=jnp.asarray(shared or [], jnp.int32),
        prompt=jnp.asarray(ids),
        prompt_mask=jnp.asarray(mask),
        target=nothing,
        target_mask=nothing.astype(bool),
        place=nothing,
        before=nothing,
        first=jnp.zeros(0, jnp.int32),
    )
    return with_targets(batch, targets, width=max(map(len, targets))) if targets else batch


def with_targets(
    batch: TextBatch, targets: list[list[int]], *, width: int, columns: list[int] | None = None
) -> TextBatch:
    """One target per row; an empty one is that of a row that only fills up.

    Args:
      columns: where the first, second, ... token of each target stands, ascending.
    """
    column = np.arange(width) if columns is None else np.array(columns)
    n_rows, n_prompt, length = len(targets), batch.prompt.shape[1], np.array([len(target) for target in targets])
    row, place = np.nonzero(np.arange(len(column)) < length[:, None])
    arrays = {name: np.zeros((n_rows, width), np.int32) for name in ("target", "place", "before")}
    arrays["target_mask"] = np.zeros((n_rows, width), bool)
    before = np.where(place == 0, n_prompt - 1, n_prompt + column[np.maximum(place - 1, 0)])
    for name, values in (("place", place), ("before", before), ("target_mask", True)):
        arrays[name][row, column[place]] = values
    arrays["target"][row, column[place]] = [token for target in targets for token in target]
    first = np.where(length > 0, np.arange(n_rows) * width + column[0], n_rows * width).astype(np.int32)
    return batch.replace(first=jnp.asarray(first), **{name: jnp.asarray(array) for name, array in arrays.items()})


def annotated(batch: TextBatch, annotations: dict[str, list[np.ndarray]]) -> TextBatch:
    """Annotations by name and row, each as long as the row's target."""
    mask, placed = np.asarray(batch.target_mask), {}
    for name, rows in annotations.items():
        flat = np.concatenate(rows)
        placed[name] = np.zeros(mask.shape, flat.dtype)
        placed[name][mask] = flat
    return batch.replace(annotations={name: jnp.asarray(array) for name, array in placed.items()})
