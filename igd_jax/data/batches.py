"""Batches as pure functions of (seed, step): a resumed run needs no iterator state.

Prompts are padded on the left and targets on the right, so that the target starts at one place for the whole batch and
the vocabulary head can run on target positions alone. Widths come from a short list: one compilation per width.

    prompt  . . p p p        target  t t e .
    prompt  p p p p p        target  t t t e

What all prompts begin with, the words of the template before the history, stands apart: a model reads it once per batch
and not once per row.

Methods that read items instead of text get histories, padded on the left to the longest of the split.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int

from igd_jax.core.ragged import Ragged, ragged_index
from igd_jax.core.types import ItemBatch, TextBatch
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


def seed_of_rows(rows: Int[np.ndarray, " b"], *, seed: int, step: int) -> Int[np.ndarray, " b"]:
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


def pad_rows(array: np.ndarray, size: int) -> np.ndarray:
    """Fill an array up to `size` rows of zeros."""
    return np.pad(array, ((0, size - len(array)), *((0, 0) for _ in array.shape[1:])))


def make_item_batch(
    examples: Examples, rows: Int[np.ndarray, " b"], *, size: int, seed: Int[np.ndarray, " b"] | None = None
) -> ItemBatch:
    """Some rows as NumPy arrays, filled up to `size` rows that count for nothing."""
    assert examples.history is not None
    history, width = examples.history.take(rows), int(examples.history.lengths.max(initial=1))
    mask = np.arange(width) >= width - history.lengths[:, None]
    items = np.zeros(mask.shape, np.int32)
    items[mask] = history.ids
    return ItemBatch(
        history=pad_rows(items, size),
        history_mask=pad_rows(mask, size),
        target=pad_rows(examples.target[rows].astype(np.int32), size),
        is_real=pad_rows(np.ones(len(rows), bool), size),
        seed=None if seed is None else pad_rows(seed, size),
    )


def make_text_batch(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged | None,
    annotations: Mapping[str, np.ndarray],
    *,
    size: int,
) -> TextBatch:
    """Some rows as NumPy arrays, filled up to `size` rows that count for nothing.

    Args:
      item_tokens: identifiers of the items, which the targets are; None leaves targets out.
      annotations: arrays aligned with ``item_tokens.ids``, by name.
    """
    prompts, targets = examples.prompt.take(rows), examples.target[rows]
    shared = examples.shared_prefix if examples.has_prefix[rows].all() else examples.shared_prefix[:0]
    prompts = prompts.keep_last(prompts.lengths - len(shared))
    width = padded_width(int(prompts.lengths.max()), PROMPT_WIDTHS)
    prompt_mask = np.arange(width) >= width - prompts.lengths[:, None]
    prompt = np.zeros((len(rows), width), np.int32)
    prompt[prompt_mask] = prompts.ids
    n_tokens = 0
    mask = np.zeros((size, 0), bool)
    if item_tokens is not None:
        lengths = item_tokens.lengths[targets]
        n_tokens = padded_width(int(lengths.max()), TARGET_WIDTHS)
        mask = pad_rows(np.arange(n_tokens) < lengths[:, None], size)
        flat = ragged_index(item_tokens.start[targets], lengths)

    def aligned(values: np.ndarray) -> np.ndarray:
        out = np.zeros(mask.shape, values.dtype)
        if item_tokens is not None:
            out[mask] = values[flat]
        return out

    place = np.broadcast_to(np.arange(n_tokens, dtype=np.int32), mask.shape)
    return TextBatch(
        shared_prefix=shared,
        prompt=pad_rows(prompt, size),
        prompt_mask=pad_rows(prompt_mask, size),
        target=aligned(item_tokens.ids if item_tokens is not None else np.zeros(0, np.int32)),
        target_mask=mask,
        place=place,
        before=place + np.int32(width - 1),
        first=np.arange(size if n_tokens else 0, dtype=np.int32) * np.int32(n_tokens),
        annotations={name: aligned(values) for name, values in annotations.items()},
    )


def padded_width(longest: int, widths: tuple[int, ...]) -> int:
    """The first width that fits; beyond the list, the next multiple of its last."""
    return next((width for width in widths if width >= longest), -(-longest // widths[-1]) * widths[-1])
