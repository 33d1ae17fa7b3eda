"""Input of training: the micro-batches of each step, padded or in packs, and what they amount to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from igd_jax.core.map_rows import in_groups
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import by_length, seed_of_rows
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, place_rows
from igd_jax.data.packs import make_packs
from igd_jax.models.cost import real_tokens
from igd_jax.session.batch import make_batch
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.training.mesh import local_rows
from igd_jax.training.step import Group, grouped
from igd_jax.training.train_log import Amount

EVALUATED_AT_ONCE = 1024
"""Rows of validation that are placed in packs together, at least."""


def micro_batches(
    session: Session,
    annotations: Mapping[str, np.ndarray],
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    *,
    step: int | None = None,
    packs: PackShape | None = None,
) -> Iterator[TextBatch | ItemBatch]:
    """The micro-batches of a step, in NumPy; sorted by length if the divisor is that of the whole step.

    Args:
      session: the run.
      annotations: annotations of target tokens, by name.
      examples: examples of the split.
      rows: row numbers of the step.
      step: number of the step in training, for which each row gets a seed; None in evaluation.
      packs: sizes of packs, from `packing.choose_packs`; None = rows are padded.
    """
    if packs is not None:
        yield from _packed(session, annotations, examples, rows, packs, step=step)
        return
    settings = session.settings
    size, together = settings.train.micro_batch_size, None
    if settings.loss.normalizer == "global":
        rows = together = by_length(examples, rows)
    own = local_rows(size, session.mesh)
    for group in in_groups(rows, size):
        seed = None if step is None else seed_of_rows(group, seed=settings.train.seed, step=step)
        yield make_batch(
            session, examples, group, size=size, own=own, seed=seed, annotations=annotations, together=together
        )


def _packed(
    session: Session,
    annotations: Mapping[str, np.ndarray],
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    packs: PackShape,
    *,
    step: int | None,
) -> Iterator[TextBatch]:
    """The micro-batches of a step in packs."""
    train, tokens = session.settings.train, session.index.item_tokens
    own = local_rows(packs.packs, session.mesh)
    # Evaluation has no steps: of many rows together, fewer packs stay empty.
    at_once = len(rows) if step is not None else max(train.global_batch_size, EVALUATED_AT_ONCE)
    for group in in_groups(rows, at_once):
        seed = None if step is None else seed_of_rows(group, seed=train.seed, step=step)
        placed = place_rows(examples, group, tokens, packs, seed=seed)
        yield from make_packs(placed, examples, tokens, annotations, packs, own=own, has_seed=seed is not None)


def step_inputs(
    session: Session,
    plan: TrainPlan,
    batches_of: Callable[..., Iterator[TextBatch | ItemBatch]],
    flops: Callable[[Any], float],
    first: int,
    packs: PackShape | None = None,
) -> Iterator[tuple[list[Group], Amount]]:
    """Micro-batches of each step from number `first` on, grouped and on the devices, and what they amount to.

    Of several processes, each counts its own rows, and takes those of the others for as many and as long.

    Args:
      session: the run.
      plan: its duration and sizes.
      batches_of: function from rows and the number of a step to micro-batches of NumPy arrays.
      flops: floating-point operations of training on a micro-batch.
      first: number of the first step, from 0.
      packs: as in `micro_batches`.
    """
    mesh = session.mesh
    size = plan.micro_batch_size if packs is None else packs.packs
    room = plan.global_batch_size // size if packs is None else packs.batches
    share = len(local_rows(size, mesh)) / size
    for step in range(first, plan.num_steps):
        rows = plan.rows(step)
        batches = list(batches_of(rows, step=step))
        amount = Amount(len(rows), round(_of_all(real_tokens, batches, share)), _of_all(flops, batches, share))
        yield grouped(batches, mesh, size=size, room=room), amount


def _of_all(count: Callable[[Any], float], batches: Sequence[TextBatch | ItemBatch], share: float) -> float:
    """A count over micro-batches of all processes, by the share of rows that are here; a shared prefix counts once."""
    if share == 1.0:
        return float(sum(map(count, batches)))
    total = 0.0
    for batch in batches:
        no_rows = jax.tree.map(lambda x: x[:0], batch)
        if isinstance(batch, TextBatch):
            no_rows = replace(no_rows, shared_prefix=batch.shared_prefix)
        total += (shared := count(no_rows)) + (count(batch) - shared) / share
    return total
