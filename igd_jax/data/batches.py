"""Batches as pure functions of (seed, step): a resumed run needs no iterator state.

Prompts are padded on the left and targets on the right, so that the target starts at one place for the whole batch and
the vocabulary head can run on target positions alone. Widths come from a short list: one compilation per width.

    prompt  . . p p p        target  t t e .
    prompt  p p p p p        target  t t t e

What all prompts begin with, the words of the template before the history, is a shared prefix of one row: a model reads
it once per batch and not once per row.

Methods that read items instead of text get histories, padded on the left to such a width.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from igd_jax.core.map_rows import pad_rows
from igd_jax.core.ragged import Ragged, ragged_index
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.examples import Examples

TARGET_WIDTHS = (16, 32, 48, 64, 128, 256, 512)
PROMPT_WIDTHS = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
HISTORY_WIDTHS = (5, 10, 15, 20, 30, 40, 50)


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Steps that show every row once; the last batch of an epoch may be short."""
    return -(-n_rows // batch_size)


@dataclass(frozen=True, eq=False)
class Users:
    """Users whose rows are drawn together.

    Attributes:
      number: number of each row's user, from 0.
    """

    number: Int[np.ndarray, " R"]


def rows_of_step(
    n_rows: int, *, batch_size: int, seed: int, step: int, users: Users | None = None
) -> Int[np.ndarray, " b"]:
    """Rows of the batch at `step` (from 0): each epoch is a fresh permutation, of rows or of `users` with all theirs.

    Steps have `batch_size` rows in both cases, so that the rows of a user may end one step and begin the next.
    """
    epoch, place = divmod(step, steps_per_epoch(n_rows, batch_size))
    return _order(n_rows, seed, epoch, users)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=1)
def _order(n_rows: int, seed: int, epoch: int, users: Users | None) -> Int[np.ndarray, " n_rows"]:
    """The rows in the order of an epoch; that of the last epoch asked for is kept."""
    random = np.random.default_rng((seed, epoch))
    if users is None:
        order = random.permutation(n_rows)
    else:
        order = np.argsort(random.permutation(users.number.max() + 1)[users.number], kind="stable")
    order.flags.writeable = False
    return order


def seed_of_rows(rows: Int[np.ndarray, " b"], *, seed: int, step: int) -> Int[np.ndarray, " b"]:
    """A seed for each row at `step`: what is random about a row does not depend on the rows beside it."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    mixed = (rows.astype(np.uint64) + words[0]) * np.uint64(0x9E3779B97F4A7C15) + words[1]
    return (mixed >> np.uint64(33)).astype(np.int32)


def by_length(examples: Examples, rows: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Order rows by the length of prompt or history, so that neighbours pad little."""
    read = examples.prompt if examples.history is None else examples.history
    return rows[np.argsort(read.lengths[rows], kind="stable")]


def make_text_batch(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged,
    annotations: Mapping[str, Shaped[np.ndarray, " total"]],
    *,
    size: int,
    own: Int[np.ndarray, " own"] | None = None,
    seed: Int[np.ndarray, " b"] | None = None,
) -> TextBatch:
    """Some rows as text, filled up to `size` rows that count for nothing; all arrays are NumPy's.

    Args:
      item_tokens: token row of each item.
      annotations: what a method says of each of those tokens, aligned with their `ids`; 0 where there is no token.
      own: places, among the `size`, of the rows that are made, ascending; None = all. Widths are those of all rows.
      seed: of what is random about each row, in training; see `seed_of_rows`.
    """
    prefix, width = _prompt_columns(examples, rows)
    first, n_tokens = _first_columns(examples, rows, item_tokens, size)
    rows, seed, size = _own_rows(rows, seed, size, own)
    prompts = examples.prompt.take(rows)
    prompts = prompts.keep_last(prompts.lengths - len(prefix))
    target, target_mask, found = _targets(examples, rows, item_tokens, annotations, width=n_tokens)
    place = np.arange(target.shape[1], dtype=np.int32) * target_mask
    arrays: dict[str, Any] = {
        "prompt": _left_padded(prompts, width),
        "prompt_mask": _right_aligned(prompts.lengths, width),
        "target": target,
        "target_mask": target_mask,
        "place": place,
        "before": np.where(target_mask, place + np.int32(width - 1), np.int32(0)),
    }
    if seed is not None:
        arrays["seed"] = seed
    arrays = {name: pad_rows(array, size) for name, array in arrays.items()}
    annotated: dict[str, Any] = {name: pad_rows(array, size) for name, array in found.items()}
    return TextBatch(shared_prefix=prefix, first=first, annotations=annotated, **arrays)


def _prompt_columns(examples: Examples, rows: Int[np.ndarray, " b"]) -> tuple[Any, int]:
    """The shared prefix of a batch, and the columns of the prompts after it."""
    prefix = examples.shared_prefix if examples.has_prefix[rows].all() else examples.shared_prefix[:0]
    return prefix, padded_width(int(examples.prompt.lengths[rows].max()) - len(prefix), PROMPT_WIDTHS)


def padded_columns(examples: Examples, rows: Int[np.ndarray, " b"], item_tokens: Ragged) -> tuple[int, int, int]:
    """Columns of the shared prefix, of prompts and of targets in a batch of these rows."""
    prefix, width = _prompt_columns(examples, rows)
    return len(prefix), width, _first_columns(examples, rows, item_tokens, 0)[1]


def n_shapes(examples: Examples, groups: Iterable[Int[np.ndarray, " b"]]) -> int:
    """Number of shapes that the prompts or histories of batches have, each made of one group of rows."""
    if examples.history is not None:
        return len({_history_width(examples.history, group) for group in groups})
    return len({(len(prefix), width) for prefix, width in (_prompt_columns(examples, group) for group in groups)})


def _first_columns(examples: Examples, rows: Int[np.ndarray, " b"], item_tokens: Ragged, size: int) -> tuple[Any, int]:
    """Where, in the flattened targets of a batch, each row begins, and the columns of the targets."""
    if examples.target is None:
        return np.zeros(0, np.int32), 0
    width = padded_width(int(item_tokens.lengths[examples.target[rows]].max()), TARGET_WIDTHS)
    numbers = np.arange(size)
    return np.where(numbers < len(rows), numbers, size).astype(np.int32) * np.int32(width), width


def _own_rows(
    rows: Int[np.ndarray, " b"], seed: Int[np.ndarray, " b"] | None, size: int, own: Int[np.ndarray, " own"] | None
) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"] | None, int]:
    """Rows, seeds and size of the part of a batch that has these places."""
    if own is None:
        return rows, seed, size
    places = own[own < len(rows)]
    return rows[places], None if seed is None else seed[places], len(own)


def prompt_room(examples: Examples) -> int:
    """Columns of the widest prompt in any batch of these examples, shared prefix included."""
    lengths, n_shared = examples.prompt.lengths, len(examples.shared_prefix)
    own, whole = (padded_width(int(part.max(initial=1)), PROMPT_WIDTHS) for part in (lengths - n_shared, lengths))
    return max(n_shared + own, 0 if examples.has_prefix.all() else whole)


def make_item_batch(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    *,
    size: int,
    own: Int[np.ndarray, " own"] | None = None,
    seed: Int[np.ndarray, " b"] | None = None,
    together: Int[np.ndarray, " n"] | None = None,
) -> ItemBatch:
    """Some rows as items, filled up to `size` rows that count for nothing; all arrays are NumPy's.

    Args:
      own, seed: as in `make_text_batch`.
      together: all rows whose loss is divided once, of which these are some; None = these alone.
    """
    assert examples.history is not None
    together = rows if together is None else together
    rows_per_read = np.float32(len(together) / max(int(examples.history.lengths[together].sum()), 1))
    width = _history_width(examples.history, rows)
    rows, seed, size = _own_rows(rows, seed, size, own)
    history = examples.history.take(rows)
    target = np.zeros(len(rows), np.int32) if examples.target is None else examples.target[rows].astype(np.int32)
    arrays: dict[str, Any] = {
        "history": _left_padded(history, width),
        "history_mask": _right_aligned(history.lengths, width),
        "target": target,
        "is_real": np.ones(len(rows), bool),
        "rows_per_read": np.full(len(rows), rows_per_read),
        "seed": seed,
    }
    filled: dict[str, Any] = {n: None if array is None else pad_rows(array, size) for n, array in arrays.items()}
    return ItemBatch(**filled)


def _history_width(history: Ragged, rows: Int[np.ndarray, " b"]) -> int:
    """Columns of the histories of a batch of these rows."""
    return padded_width(int(history.lengths[rows].max(initial=1)), HISTORY_WIDTHS)


def _targets(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged,
    annotations: Mapping[str, np.ndarray],
    *,
    width: int,
) -> tuple[Int[np.ndarray, "b T"], Bool[np.ndarray, "b T"], dict[str, np.ndarray]]:
    """Tokens of the targets, where they are, and what is said of them; T is `width`, 0 where no targets are known."""
    if examples.target is None:
        none = np.zeros((len(rows), 0), np.int32)
        return none, none.astype(bool), {name: none.astype(flat.dtype) for name, flat in annotations.items()}
    items = examples.target[rows]
    first, lengths = item_tokens.start[items], item_tokens.start[items + 1] - item_tokens.start[items]
    mask = np.arange(width) < lengths[:, None]
    at = ragged_index(first, lengths)

    def placed(flat: Shaped[np.ndarray, " total"]) -> Shaped[np.ndarray, "b T"]:
        columns = np.zeros(mask.shape, flat.dtype)
        columns[mask] = flat[at]
        return columns

    return placed(item_tokens.ids), mask, {name: placed(flat) for name, flat in annotations.items()}


def _right_aligned(lengths: Int[np.ndarray, " b"], width: int) -> Bool[np.ndarray, "b {width}"]:
    """True on the last `lengths` columns of each row."""
    return np.arange(width) >= width - lengths[:, None]


def _left_padded(rows: Ragged, width: int) -> Int[np.ndarray, "b {width}"]:
    """A left-padded matrix of rows that fit, int32."""
    mask = _right_aligned(rows.lengths, width)
    columns = np.zeros(mask.shape, np.int32)
    columns[mask] = rows.ids
    return columns


def padded_width(longest: int, widths: tuple[int, ...]) -> int:
    """The first width that fits; beyond the list, the next multiple of its last."""
    return next((width for width in widths if width >= longest), -(-longest // widths[-1]) * widths[-1])
