"""Sizes of the packs of a run, chosen once from its rows, so that a run has one shape (docs/packing.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jax.sharding import Mesh

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.sharding import divisible, row_shards
from igd_jax.data.batches import Users, rows_of_step, steps_per_epoch
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, Placed, own_lengths, per_pack, place_rows
from igd_jax.methods.base import Objective
from igd_jax.models.attention import columns_in_order
from igd_jax.models.config import ModelConfig
from igd_jax.models.cost import forward_flops_per_token
from igd_jax.session.cost import backbone_config, vocab_size
from igd_jax.session.sections import PADDED, TREES
from igd_jax.session.session import Session

WIDTHS = (256, 384, 512, 1024)
"""Tokens of a pack, beside those of the longest row, of which the cheapest number is taken: in wide packs less is left
over and more is shared, but attention costs more."""
MOST_TOKENS = 1.25
"""Packs of a micro-batch at most, rounded up, in proportion to those asked for, if fewer of them then stay empty."""
MORE_SLOTS, MORE_ROWS = (1.15, 1.3, 1.5), 2.0
"""Room for targets, of which the cheapest is taken, and for rows of a device's packs, in proportion to the mean of the
steps that are tried: where steps differ, packs stay empty for want of room; but the head runs on empty places, too."""
MORE_BATCHES = 1.15
"""Micro-batches of a step at most, in proportion to the most of those that are tried."""
TRIED_STEPS = 8
ANY = 2**30


def users_to_shuffle(session: Session) -> Users | None:
    """Users of the train rows, if users are what each epoch shuffles."""
    if session.settings.train.shuffle == "rows":
        return None
    return Users(np.unique(session.rows("train").user.astype(str), return_inverse=True)[1])


def choose_packs(session: Session, objective: Objective, *, train: Examples, valid: Examples) -> PackShape | None:
    """Sizes of packs for any rows of a run, from the packs of some steps; prints them. None = rows are padded.

    Raises:
      InputError: `config.train.pack_length` is less than the longest row.
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
    place = partial(_tried, session, train, users_to_shuffle(session))
    widths = [replace(free, width=width) for width in _widths(settings.pack_length, longest)]
    shape, placed = _cheapest_width(
        session, {shape: place(shape) for shape in widths}, tokens=settings.micro_batch_size * float(lengths.mean())
    )
    _, slots, rows = shape.together * per_pack(placed, covers_prompt=covers_prompt)
    least = longest_target + longest * covers_prompt
    shape = replace(shape, rows=_rounded(MORE_ROWS * rows, 4))
    with_room = [replace(shape, slots=_rounded(max(more * slots, least), 16)) for more in MORE_SLOTS]
    shape, placed = _cheapest(session, {shape: place(shape) for shape in with_room})
    _say_sizes(shape, placed)
    return replace(shape, batches=int(-(-MORE_BATCHES * max(each.n_packs for each in placed) // shape.packs)))


def _say_sizes(shape: PackShape, placed: Sequence[Placed]) -> None:
    room = np.array([shape.width, shape.slots / shape.together, shape.rows / shape.together])
    used = per_pack(placed, covers_prompt=shape.covers_prompt) / room
    own = sum(int(each.own.sum()) for each in placed)
    whole = sum(int(each.texts.lengths.sum()) for each in placed)
    shared = f"; {1 - own / whole:.0%} of the rows' tokens are shared" if shape.trees else ""
    say(
        f"packing: {'trees' if shape.trees else 'rows'} in packs of {shape.width} tokens, {shape.packs} per "
        f"micro-batch, with {shape.slots} targets per device; {used[0]:.0%} of tokens and {used[1]:.0%} of targets are "
        f"no padding{shared}"
    )


def _widths(given: int, longest: int) -> list[int]:
    """Tokens that a pack may have."""
    if given and given < longest:
        raise InputError(
            f"config.train.pack_length is {given}, but the longest row has {longest} tokens (of its prompt, without "
            "what all share, and its target); raise it, or lower config.data.max_length"
        )
    return [given] if given else [_rounded(longest, 64), *(width for width in WIDTHS if width > longest)]


def _cheapest_width(
    session: Session, tried: Mapping[PackShape, list[Placed]], *, tokens: float
) -> tuple[PackShape, list[Placed]]:
    """The width and the number of packs that take the fewest operations but for the head, with packs of some steps.

    Args:
      tried: packs of some steps in each width.
      tokens: those that are asked for of a micro-batch.
    """
    mesh = session.mesh
    return _cheapest(
        session,
        {
            replace(shape, packs=packs, slots=0, together=packs // row_shards(mesh)): placed
            for shape, placed in tried.items()
            for packs in _numbers_of_packs(tokens / shape.width, mesh)
        },
    )


def _numbers_of_packs(wanted: float, mesh: Mesh) -> list[int]:
    """Packs that a micro-batch may have, if this number has the tokens asked for."""
    numbers = range(max(int(wanted), 1), math.ceil(MOST_TOKENS * wanted) + 1)
    return sorted({divisible(number, mesh) for number in numbers})


def _cheapest(session: Session, tried: Mapping[PackShape, list[Placed]]) -> tuple[PackShape, list[Placed]]:
    """The sizes that take the fewest operations on some steps, with the packs of those."""
    config = backbone_config(session)
    assert isinstance(config, ModelConfig)  # rows of others do not stand in packs
    n_ids = vocab_size(session, config)

    def cost(shape: PackShape) -> float:
        return _flops(config, shape, n_packs=[each.n_packs for each in tried[shape]], n_ids=n_ids)

    shape = min(tried, key=cost)
    return shape, tried[shape]


def _flops(config: ModelConfig, shape: PackShape, *, n_packs: Sequence[int], n_ids: int) -> float:
    """Operations on steps of so many packs, padding and empty packs included."""
    layers = shape.packs * shape.width * forward_flops_per_token(config, columns_in_order(shape.width))
    n_slots = shape.slots * shape.packs // shape.together
    head = 2.0 * n_slots * config.hidden_size * n_ids
    return sum(-(-number // shape.packs) for number in n_packs) * (layers + head)


def _tried(session: Session, examples: Examples, users: Users | None, shape: PackShape) -> list[Placed]:
    """The packs of the first steps."""
    settings = session.settings.train
    size, n_rows = settings.global_batch_size, len(examples)
    drawn = (
        rows_of_step(n_rows, batch_size=size, seed=settings.seed, step=step, users=users)
        for step in range(min(TRIED_STEPS, steps_per_epoch(n_rows, size)))
    )
    return [place_rows(examples, rows, session.index.item_tokens, shape) for rows in drawn]


def _rounded(number: float | int, multiple: int) -> int:
    """The least multiple that is not less than the number."""
    return int(-(-number // multiple) * multiple)
