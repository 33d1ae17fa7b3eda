"""The arrays of packs, from rows that have their places in them (docs/packing.md).

Of each row, a pack holds what the row does not share with the one before it; a token sees an earlier one up to whose
`leave` it stands, see `data.packing`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from igd_jax.core.ragged import Ragged, places_in_rows, ragged_index
from igd_jax.core.types import PackTrees, TextBatch
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, Placed, place_within


def make_packs(
    placed: Placed,
    examples: Examples,
    item_tokens: Ragged,
    annotations: Mapping[str, Shaped[np.ndarray, " total"]],
    shape: PackShape,
    *,
    own: Int[np.ndarray, " own"] | None = None,
    has_seed: bool = False,
) -> Iterator[TextBatch]:
    """Micro-batches of ``shape.packs`` packs, the last one filled up with empty ones; all arrays are NumPy's.

    Their `prompt` holds all inputs, a pack per row, and `target` the targets of packs that stand together, in whose
    joined columns `before` counts. With `covers_prompt`, further slots of `target`, which `target_mask` does not count,
    predict tokens of prompts: the annotation ``prompt`` is the number of rows that do.

    Args:
      placed: rows in packs, from `place_rows`.
      annotations: as in `batches.make_text_batch`.
      own: places, among those of a micro-batch, of the packs that are made; None = all.
      has_seed: whether each token gets the seed of the row that it is first read for.
    """
    n_batches = -(-placed.n_packs // shape.packs)
    n_packs, texts = n_batches * shape.packs, placed.texts
    n_groups = n_packs // shape.together
    start = placed.pack * shape.width + place_within(placed.pack, placed.own)
    depth = np.arange(texts.tokens.shape[1])
    is_own = (depth >= placed.shared[:, None]) & (depth < texts.lengths[:, None])
    column = start[:, None] + depth - placed.shared[:, None]
    # The token at a depth of a row is that of the last row, up to it, which owns one there.
    path = np.maximum.accumulate(np.where(is_own, column, -1), axis=0)
    n_shared = len(examples.shared_prefix) if shape.shares_prefix else 0
    columns = {
        "prompt": texts.tokens,
        "position": depth + (n_shared * texts.follows)[:, None],
        "leave": _leave(start, placed.shared, depth) - (placed.pack * shape.width)[:, None],
        "seed": texts.seed[:, None],
        "prompt_mask": np.True_,
        "follows_shared": texts.follows[:, None],
    }
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        flat = np.zeros(n_packs * shape.width, bool if values.dtype == bool else np.int32)
        flat[column[is_own]] = np.broadcast_to(values, is_own.shape)[is_own]
        arrays[name] = flat.reshape(n_packs, -1)
    arrays["leave"] = np.minimum(arrays["leave"], shape.width)
    slots, first = _slots(placed, path, item_tokens, annotations, shape, n_groups)
    slots = {name: array.reshape(n_groups, -1) for name, array in slots.items()}
    for number, first_of_batch in enumerate(np.split(first, n_batches)):
        packs = number * shape.packs + (np.arange(shape.packs) if own is None else own)
        groups = packs[:: shape.together] // shape.together
        yield _batch(
            {name: array[packs] for name, array in arrays.items()}
            | {name: array[groups] for name, array in slots.items()},
            examples.shared_prefix[:n_shared],
            first_of_batch,
            shape,
            annotations=(*annotations, *(("prompt",) if shape.covers_prompt else ())),
            has_seed=has_seed,
        )


def _batch(
    arrays: dict[str, Any],
    prefix: Int[np.ndarray, " P"],
    first: Int[np.ndarray, "groups rows"],
    shape: PackShape,
    *,
    annotations: tuple[str, ...],
    has_seed: bool,
) -> TextBatch:
    """One micro-batch."""
    flat = np.where(first >= 0, first + np.arange(len(first))[:, None] * shape.slots, first.shape[0] * shape.slots)
    made: Any = {name: arrays[name] for name in ("prompt", "prompt_mask", "target", "target_mask", "place", "before")}
    trees: Any = {name: arrays[name] for name in ("position", "leave", "follows_shared")}
    return TextBatch(
        shared_prefix=prefix,  # type: ignore[arg-type]
        first=flat.reshape(-1).astype(np.int32),  # type: ignore[arg-type]
        annotations={name: arrays[f"annotation {name}"] for name in annotations},
        seed=arrays["seed"] if has_seed else None,
        pack_trees=PackTrees(**trees),
        **made,
    )


def _leave(
    start: Int[np.ndarray, " b"], shared: Int[np.ndarray, " b"], depth: Int[np.ndarray, " L"]
) -> Int[np.ndarray, "b L"]:
    """Column, over all packs, after the last descendant of each row's token at each depth: where the next row begins
    that does not share the token; the largest number there is after the last."""
    ends = np.where(depth >= shared[:, None], start[:, None], np.iinfo(np.int32).max)
    ends = np.append(ends[1:], np.full((1, len(depth)), np.iinfo(np.int32).max), axis=0)
    return np.minimum.accumulate(ends[::-1], axis=0)[::-1]


def _slots(
    placed: Placed,
    path: Int[np.ndarray, "b L"],
    item_tokens: Ragged,
    annotations: Mapping[str, Shaped[np.ndarray, " total"]],
    shape: PackShape,
    n_groups: int,
) -> tuple[dict[str, Shaped[np.ndarray, " slots"]], Int[np.ndarray, "groups rows"]]:
    """Arrays of all slots, and the slot, among those together, of each row's first token; -1 if there is no row."""
    texts, n_target, group = placed.texts, placed.texts.n_target, placed.pack // shape.together
    begin = place_within(group, n_target)
    slot = ragged_index(group * shape.slots + begin, n_target)
    row = np.repeat(np.arange(len(n_target)), n_target)
    place = places_in_rows(n_target)
    at = ragged_index(item_tokens.start[texts.item], n_target)
    values: dict[str, Any] = {
        "target": item_tokens.ids[at],
        "target_mask": np.ones(len(at), bool),
        "place": place.astype(np.int32),
        "before": (path[row, texts.n_prompt[row] - 1 + place] % (shape.width * shape.together)).astype(np.int32),
        **{f"annotation {name}": flat[at] for name, flat in annotations.items()},
    }
    slots = {name: np.zeros(n_groups * shape.slots, flat.dtype) for name, flat in values.items()}
    for name, flat in values.items():
        slots[name][slot] = flat
    if shape.covers_prompt:
        used = np.bincount(group, n_target, minlength=n_groups).astype(np.int64)
        slots |= _with_prompts(slots, placed, path, used, shape)
    first = np.full((n_groups, shape.rows), -1)
    first[group, place_within(group, np.ones_like(n_target))] = begin
    return slots, first


def _with_prompts(
    slots: dict[str, Shaped[np.ndarray, " slots"]],
    placed: Placed,
    path: Int[np.ndarray, "b L"],
    used: Int[np.ndarray, " groups"],
    shape: PackShape,
) -> dict[str, Shaped[np.ndarray, " slots"]]:
    """Further slots, behind those that are used, for the tokens of prompts that follow another."""
    depth = np.arange(1, path.shape[1])
    is_prompt = depth < placed.texts.n_prompt[:, None]
    after, before = path[:, 1:][is_prompt], path[:, :-1][is_prompt]
    columns, at, number = np.unique(after, return_index=True, return_counts=True)
    n_columns = shape.width * shape.together
    group = columns // n_columns
    slot = group * shape.slots + used[group] + place_within(group, np.ones_like(group))
    token, column, count = slots["target"].copy(), slots["before"].copy(), np.zeros(len(slots["target"]), np.float32)
    token[slot] = placed.texts.tokens[:, 1:][is_prompt][at]
    column[slot], count[slot] = before[at] % n_columns, number
    return {"target": token, "before": column, "annotation prompt": count}
