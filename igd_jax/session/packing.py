"""Sizes of the packs of a run, chosen once from its rows, so that a run has one shape (docs/packing.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.map_rows import in_groups
from igd_jax.core.sharding import divisible, row_shards
from igd_jax.data.batches import by_length, padded_columns
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, Placed, own_lengths, per_pack, place_rows
from igd_jax.methods.base import Objective
from igd_jax.models.attention import columns_in_order
from igd_jax.models.config import ModelConfig
from igd_jax.models.cost import forward_flops_per_token
from igd_jax.session.cost import backbone_config, vocab_size
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.settings.sections import AUTO, PADDED, TREES

WIDTHS = (256, 384, 512, 1024)
"""Tokens of a pack, beside those of the longest row, of which the cheapest number is taken: in wide packs less is left
over and more is shared, but attention costs more."""
MOST_TOKENS = 1.25
"""Tokens of a micro-batch at most, in proportion to those asked for, if fewer of its packs then stay empty."""
MORE_SLOTS, MORE_ROWS = (1.15, 1.3, 1.5), 2.0
"""Room for targets, of which the cheapest is taken, and for rows of a device's packs, in proportion to the mean of the
steps that are tried: where steps differ, packs stay empty for want of room; but the head runs on empty places, too."""
MORE_BATCHES = 1.15
"""Micro-batches of a step at most, in proportion to the most of those that are tried."""
TRIED_ROWS, TRIED_STEPS = 2048, (4, 64)
"""Rows of the first steps that are tried, and those steps at least and at most."""
ANY = 2**30

Steps: TypeAlias = Sequence[Int[np.ndarray, " _"]]
"""Row numbers of each of some steps."""
Sizes: TypeAlias = tuple[ModelConfig, int]
"""Sizes of the model, and number of the ids that it writes: read once, as they may be those of a file."""


def choose_packs(
    session: Session, objective: Objective, plan: TrainPlan, *, train: Examples, valid: Examples
) -> PackShape | None:
    """Sizes of packs for any rows of a run, from the packs of some steps; prints them. None = rows are padded.

    Raises:
      InputError: `config.train.pack_length` is less than the longest row, or more than any step has.
    """
    settings, model, tokens = session.settings.train, session.settings.model, session.index.item_tokens
    if settings.packing == PADDED:
        return None
    assert train.target is not None
    assert valid.target is not None
    covers_prompt = objective.covers_prompt
    # What is drawn or predicted for each row cannot be read once for all.
    apart = not covers_prompt and not (model.lora_rank and model.lora_dropout)
    lengths = own_lengths(train, tokens, shares_prefix=apart)
    longest = int(max(lengths.max(), own_lengths(valid, tokens, shares_prefix=apart).max(initial=0)))
    longest_target = int(tokens.lengths[np.concatenate([train.target, valid.target])].max())

    trees = settings.packing == TREES
    free = PackShape(0, ANY, ANY, 0, trees=trees, shares_prefix=apart, covers_prompt=covers_prompt)
    steps = _first_steps(plan)

    def place(shape: PackShape) -> list[Placed]:
        return [place_rows(train, rows, tokens, shape) for rows in steps]

    most = settings.global_batch_size * longest
    widths = [replace(free, width=width) for width in _widths(settings.pack_length, longest, most)]
    wanted = min(settings.micro_batch_size, len(train)) * float(lengths.mean())
    sizes = _sizes(session)
    shape, placed = _cheapest_width(sizes, session.mesh, {shape: place(shape) for shape in widths}, tokens=wanted)
    _, slots, rows = shape.together * per_pack(placed, covers_prompt=covers_prompt)
    least = longest_target + longest * covers_prompt
    shape = replace(shape, rows=_rounded(MORE_ROWS * rows, 4))
    with_room = [replace(shape, slots=_rounded(max(more * slots, least), 16)) for more in MORE_SLOTS]
    shape, placed = _cheapest(sizes, {shape: place(shape) for shape in with_room})
    if settings.packing == AUTO:
        padded = _padded_flops(sizes, session, train, steps, covers_prompt=covers_prompt)
        if (share := padded / _flops(sizes, shape, placed)) < 1:
            say(f"packing: none, as padded rows take {share:.2f} times the operations of packs")
            return None
    _say_sizes(shape, placed)
    return replace(shape, batches=int(-(-MORE_BATCHES * max(each.n_packs for each in placed) // shape.packs)))


def _say_sizes(shape: PackShape, placed: Sequence[Placed]) -> None:
    room = np.array([shape.width, shape.slots / shape.together, shape.rows / shape.together])
    n_packs = [each.n_packs for each in placed]
    n_filled_up = [-(-number // shape.packs) * shape.packs for number in n_packs]
    used = per_pack(placed, covers_prompt=shape.covers_prompt) / room * sum(n_packs) / sum(n_filled_up)
    own = sum(int(each.own.sum()) for each in placed)
    whole = sum(int(each.texts.lengths.sum()) for each in placed)
    shared = f"; {1 - own / whole:.0%} of the rows' tokens are shared" if shape.trees else ""
    say(
        f"packing: {'trees' if shape.trees else 'rows'} in packs of {shape.width} tokens, {shape.packs} per "
        f"micro-batch, with {shape.slots} targets per device; {used[0]:.0%} of tokens and {used[1]:.0%} of targets are "
        f"no padding{shared}"
    )


def _widths(given: int, longest: int, most: int) -> list[int]:
    """Tokens that a pack may have, between those of the longest row and the most that a step can have."""
    if given and given < longest:
        raise InputError(
            f"config.train.pack_length is {given}, but the longest row has {longest} tokens (of its prompt, but for "
            "what stands apart, and its target); raise it, or lower config.data.max_length"
        )
    if given > most:
        raise InputError(
            f"config.train.pack_length is {given}, but the config.train.global_batch_size rows of a step have at most "
            f"{most} tokens together; lower it, or set it to 0 for the width that takes the fewest operations"
        )
    return [given] if given else [_rounded(longest, 64), *(width for width in WIDTHS if width > longest)]


def _cheapest_width(
    sizes: Sizes, mesh: Mesh, tried: Mapping[PackShape, list[Placed]], *, tokens: float
) -> tuple[PackShape, list[Placed]]:
    """The width and the number of packs that take the fewest operations but for the head, with packs of some steps.

    Args:
      tried: packs of some steps in each width.
      tokens: those that are asked for of a micro-batch.
    """
    sized = {
        replace(shape, packs=packs, slots=0, together=packs // row_shards(mesh)): placed
        for shape, placed in tried.items()
        for packs in _numbers_of_packs(tokens / shape.width, mesh)
    }
    most = max(MOST_TOKENS * tokens, min(shape.packs * shape.width for shape in sized))
    return _cheapest(sizes, {shape: placed for shape, placed in sized.items() if shape.packs * shape.width <= most})


def _numbers_of_packs(wanted: float, mesh: Mesh) -> list[int]:
    """Packs that a micro-batch may have, if this number has the tokens asked for."""
    numbers = range(max(int(wanted), 1), math.ceil(MOST_TOKENS * wanted) + 1)
    return sorted({divisible(number, mesh) for number in numbers})


def _cheapest(sizes: Sizes, tried: Mapping[PackShape, list[Placed]]) -> tuple[PackShape, list[Placed]]:
    """The shape that takes the fewest operations on some steps, with the packs of those."""
    return min(tried.items(), key=lambda shaped: _flops(sizes, *shaped))


def _sizes(session: Session) -> Sizes:
    config = backbone_config(session)
    assert isinstance(config, ModelConfig)  # rows of others do not stand in packs
    return config, vocab_size(session, config)


def _flops(sizes: Sizes, shape: PackShape, placed: Sequence[Placed]) -> float:
    """Operations on the packs of some steps, padding and empty packs included."""
    config, n_ids = sizes
    layers = shape.packs * shape.width * forward_flops_per_token(config, columns_in_order(shape.width))
    n_slots = shape.slots * shape.packs // shape.together
    head = 2.0 * n_slots * config.hidden_size * n_ids
    return sum(-(-each.n_packs // shape.packs) for each in placed) * (layers + head)


def _padded_flops(sizes: Sizes, session: Session, examples: Examples, steps: Steps, *, covers_prompt: bool) -> float:
    """As `_flops`, of the same rows, padded to the longest of each micro-batch."""
    (config, n_ids), size, found = sizes, session.settings.train.micro_batch_size, 0.0
    for group in (group for rows in steps for group in in_groups(by_length(examples, rows), size)):
        shared, prompt, target = padded_columns(examples, group, session.index.item_tokens)
        layers = (prompt + target) * forward_flops_per_token(config, columns_in_order(prompt + target))
        found += size * (layers + 2.0 * (target + covers_prompt * (shared + prompt)) * config.hidden_size * n_ids)
    return found


def _first_steps(plan: TrainPlan) -> Steps:
    fewest, most = TRIED_STEPS
    n_steps = min(max(fewest, min(most, TRIED_ROWS // plan.global_batch_size)), plan.epoch)
    return [plan.rows(step) for step in range(n_steps)]


def _rounded(number: float | int, multiple: int) -> int:
    """The least multiple that is not less than the number."""
    return int(-(-number // multiple) * multiple)
