"""Batches as pure functions of (seed, step): a resumed run needs no iterator state.

Prompts are padded on the left and targets on the right, so that the target starts at one place for the whole batch and
the vocabulary head can run on target positions alone. Widths come from a short list: one compilation a width.

    prompt  . . p p p        target  t t e .
    prompt  p p p p p        target  t t t e

What all prompts begin with, the words of the template before the history, is a header of its own: a model reads it once
a batch and not once a row.

Methods that read items instead of text get histories, padded on the left to the longest of the split.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples

TARGET_WIDTHS = (16, 32, 48, 64, 128, 256, 512)
PROMPT_WIDTHS = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Steps that show every row once; the last batch of an epoch may be short."""
    return -(-n_rows // batch_size)


def rows_of_step(n_rows: int, *, batch_size: int, seed: int, step: int) -> Int[np.ndarray, " b"]:
    """Rows of the batch at `step` (from 0): each epoch is a fresh permutation."""
    epoch, place = divmod(step, steps_per_epoch(n_rows, batch_size))
    order = np.random.default_rng((seed, epoch)).permutation(n_rows)
    return order[place * batch_size : (place + 1) * batch_size]


def noise_of_rows(rows: Int[np.ndarray, " b"], *, seed: int, step: int) -> Int[np.ndarray, " b"]:
    """A seed for each row at `step`: what is random about a row does not depend on the rows beside it."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    mixed = (rows.astype(np.uint64) + words[0]) * np.uint64(0x9E3779B97F4A7C15) + words[1]
    return (mixed >> np.uint64(33)).astype(np.int32)


def by_length(examples: Examples, rows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Order rows by prompt length, so that neighbours pad little."""
    return rows[np.argsort(examples.prompt.lengths[rows], kind="stable")]


def in_groups(rows: Int[np.ndarray, " b"], size: int) -> Iterator[Int[np.ndarray, " s"]]:
    """Cut rows into groups of `size`; the last may be short."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def make_batch(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged,
    per_item: Mapping[str, np.ndarray],
    *,
    size: int,
    inputs: str = "text",
) -> dict[str, np.ndarray]:
    """The arrays of `core.types.Batch` for some rows, filled up to `size` rows that count for nothing.

    Args:
      per_item: further arrays [items, width of the longest title], looked up by target; the method's annotations.
      inputs: ``text`` or ``items``: which of the two kinds of arrays.
    """
    batch = _items_of(examples, rows) if inputs == "items" else _texts_of(examples, rows, item_tokens, per_item)
    return {name: pad_rows(array, size) for name, array in batch.items()}


def pad_rows(array: np.ndarray, size: int) -> np.ndarray:
    """Fill an array up to `size` rows of zeros."""
    return np.pad(array, ((0, size - len(array)), *((0, 0) for _ in array.shape[1:])))


def _items_of(examples: Examples, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
    assert examples.history is not None
    history, width = examples.history.take(rows), int(examples.history.lengths.max(initial=1))
    mask = np.arange(width) >= width - history.lengths[:, None]
    items = np.zeros(mask.shape, np.int32)
    items[mask] = history.ids
    return {
        "history": items,
        "history_mask": mask,
        "target_item": examples.target[rows].astype(np.int32),
        "is_real": np.ones(len(rows), bool),
    }


def _texts_of(
    examples: Examples, rows: Int[np.ndarray, " b"], item_tokens: Ragged, per_item: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    prompts, items = examples.prompt.take(rows), examples.target[rows]
    header = examples.header if examples.has_header[rows].all() else examples.header[:0]
    prompts = prompts.keep_last(prompts.lengths - len(header))
    targets = item_tokens.take(items)
    width = padded_width(int(prompts.lengths.max()), PROMPT_WIDTHS)
    target_width = padded_width(int(targets.lengths.max()), TARGET_WIDTHS)
    prompt_mask = np.arange(width) >= width - prompts.lengths[:, None]
    prompt = np.zeros((len(rows), width), np.int32)
    prompt[prompt_mask] = prompts.ids
    batch = {
        "prompt": prompt,
        "prompt_mask": prompt_mask,
        "target": targets.pad(target_width),
        "target_mask": np.arange(target_width) < targets.lengths[:, None],
    }
    if len(header):
        batch["header"] = np.tile(header, (len(rows), 1))
    for name, array in per_item.items():
        batch[name] = _columns(array[items], target_width)
    return batch


def _columns(array: np.ndarray, width: int) -> np.ndarray:
    """Cut or fill an array to `width` columns; what is cut lies beyond the batch's longest target."""
    return np.pad(array[:, :width], ((0, 0), (0, max(0, width - array.shape[1]))))


def padded_width(longest: int, widths: tuple[int, ...]) -> int:
    """The first width that fits; beyond the list, the next multiple of its last."""
    return next((width for width in widths if width >= longest), -(-longest // widths[-1]) * widths[-1])
