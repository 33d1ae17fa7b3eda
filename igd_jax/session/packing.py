"""Sizes of the packs of a run, chosen once from its rows, so that a run has one shape (docs/packing.md)."""

from dataclasses import replace

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.sharding import divisible
from igd_jax.data.batches import Users, rows_of_step, steps_per_epoch
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, Placed, own_lengths, per_pack, place_rows
from igd_jax.methods.base import Objective
from igd_jax.session.session import Session

PACK_LENGTH = 512
"""Default tokens of a pack: few are left over, and attention within it costs little beside the linear maps."""
MORE = 1.15
"""Targets and rows of a pack, and packs of a step, in proportion to the mean of the steps that are tried."""
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
    if settings.packing == "none":
        return None
    assert train.target is not None
    assert valid.target is not None
    covers_prompt = objective.covers_prompt
    # What is drawn or predicted for each row cannot be read once for all.
    apart = not covers_prompt and not (model.lora_rank and model.lora_dropout)
    lengths = own_lengths(train, tokens, shares_prefix=apart)
    longest = int(max(lengths.max(), own_lengths(valid, tokens, shares_prefix=apart).max(initial=0)))
    width = _width(settings.pack_length, longest)
    packs = divisible(max(round(settings.micro_batch_size * float(lengths.mean()) / width), 1), session.mesh)
    trees = settings.packing == "trees"
    free = PackShape(width, ANY, ANY, packs, trees=trees, shares_prefix=apart, covers_prompt=covers_prompt)
    users = users_to_shuffle(session)
    _, slots, rows = per_pack(_tried(session, train, free, users), covers_prompt=covers_prompt)
    longest_target = int(tokens.lengths[np.concatenate([train.target, valid.target])].max())
    least = longest_target + longest * covers_prompt
    shape = replace(free, slots=_rounded(max(MORE * slots, least), 16), rows=_rounded(MORE * rows, 4))
    placed = _tried(session, train, shape, users)
    used = per_pack(placed, covers_prompt=covers_prompt) / (shape.width, shape.slots, shape.rows)
    own = sum(int(each.own.sum()) for each in placed)
    whole = sum(int(each.texts.lengths.sum()) for each in placed)
    shared = f"; {1 - own / whole:.0%} of the rows' tokens are shared" if trees else ""
    say(
        f"packing: {'trees' if trees else 'rows'} in packs of {width} tokens and {shape.slots} targets, {packs} packs "
        f"per micro-batch; {used[0]:.0%} of tokens and {used[1]:.0%} of targets are no padding{shared}"
    )
    return replace(shape, batches=int(-(-MORE * max(each.n_packs for each in placed) // packs)))


def _width(given: int, longest: int) -> int:
    """Tokens of a pack."""
    if given and given < longest:
        raise InputError(
            f"config.train.pack_length is {given}, but the longest row has {longest} tokens (of its prompt, without "
            "what all share, and its target); raise it, or lower config.data.max_length"
        )
    return given or max(PACK_LENGTH, _rounded(longest, 64))


def _tried(session: Session, examples: Examples, shape: PackShape, users: Users | None) -> list[Placed]:
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
