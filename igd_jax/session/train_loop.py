"""The train loop: steps, evaluations of the loss on validation, and saving, until a plan is over or a signal comes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.log import say, with_progress
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.core.prefetch import prefetch
from igd_jax.core.signals import Stop
from igd_jax.core.types import ItemBatch, LossSum, TextBatch
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape
from igd_jax.session.cost import flops_of
from igd_jax.session.input import step_inputs
from igd_jax.session.preview import Sample
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import put_batch
from igd_jax.training.profile import Profiler
from igd_jax.training.step import StepFunctions, TrainState, means
from igd_jax.training.train_log import TrainLog, finite_metrics

NO_WEIGHT = (
    "no target of the validation rows has a token with weight, so that no step would be the best; give "
    "config.data.candidates among which some have one, or other arguments of the method"
)


@dataclass(frozen=True)
class Parts:
    """What a run is made of, beside what its steps change.

    Attributes:
      plan: number of steps, and when the loss on validation is computed.
      examples: train rows, and the rows on which that loss is computed.
      batches_of: `micro_batches` of this run: ``(examples, rows, step=...)``.
      packs: sizes of packs; None = rows are padded.
      functions: compiled functions of a step.
      sample: what the model recommends to one user, shown from time to time.
      criterion: what the loss on validation is, for people.
    """

    plan: TrainPlan
    examples: dict[str, Examples]
    batches_of: Callable[..., Iterator[TextBatch | ItemBatch]]
    packs: PackShape | None
    functions: StepFunctions
    sample: Sample
    criterion: str


@dataclass(frozen=True)
class Outputs:
    """Where a run writes to while it trains."""

    log: TrainLog
    metrics: MetricsWriter
    checkpoints: Checkpoints
    profiler: Profiler


def train_steps(
    session: Session, parts: Parts, state: TrainState, progress: dict[str, Any], out: Outputs, stop: Stop
) -> tuple[int, dict[str, Any]]:
    """Train until the plan is over or a signal comes; the last step and the final progress, both saved."""
    plan, functions, step = parts.plan, parts.functions, int(state.step)
    flops, of_rows = flops_of(session, state), partial(parts.batches_of, parts.examples["train"])
    with closing(prefetch(step_inputs(session, plan, of_rows, flops, step, parts.packs))) as ahead:
        while True:
            if evaluated := plan.owes_evaluation(step, evaluated=progress["evaluated"]):
                progress = _evaluated(session, parts, state, progress, out, stop)
            is_over = stop.check() or plan.is_over(step, worse=progress["worse"])
            shows = evaluated and not stop
            is_at_stake = shows and parts.sample.is_new  # its search may need more memory than there is
            if step and (is_over or is_at_stake or step % session.settings.train.checkpoint_every_steps == 0):
                out.log.flush()
                out.metrics.sync()
                out.checkpoints.save_last(state, progress)
            if shows:
                parts.sample.show(step, state.params)
            if stop:
                saved = f"saving step {step}; the same command resumes from it" if step else "no step was made"
                say(f"terminated: {saved}")
            if is_over:
                return step, progress
            groups, amount = out.log.take(ahead)
            step += 1
            out.profiler.before(step, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, values = functions.update(state, functions.accumulate(state, out.log.watch("step", groups)))
            out.profiler.after(step, state)
            out.log.add(step, values, amount)


def _evaluated(
    session: Session, parts: Parts, state: TrainState, progress: dict[str, Any], out: Outputs, stop: Stop
) -> dict[str, Any]:
    """Progress after computing the loss on validation, unchanged if a signal came meanwhile; keeps the best weights."""
    out.log.flush()
    examples, plan, step = parts.examples["valid"], parts.plan, int(state.step)
    size = plan.micro_batch_size if parts.packs is None else parts.packs.packs
    batches = parts.batches_of(examples, np.arange(len(examples)))
    n_batches = -(-len(examples) // size) if parts.packs is None else None  # packs are made on the way
    with closing(prefetch(put_batch(batch, session.mesh, size=size) for batch in batches)) as ready:
        watched = out.log.watch("evaluation", ready)
        valid = evaluate_loss(parts.functions, state, watched, stop, n_batches=n_batches)
    if not valid:
        return progress
    valid = finite_metrics(valid, step)
    out.metrics.write(step, **valid)
    progress = update_best(progress, valid["valid_loss"], step)
    told = f"{valid['valid_loss']:.4f} (best {progress['best_loss']:.4f})"
    say(f"step {step}: valid {parts.criterion} {told}")
    if progress["worse"] == 0:
        out.checkpoints.save_best(step, state.params, progress)
    if step < plan.num_steps and plan.out_of_patience(progress["worse"]):
        say(f"stopping early: {progress['worse']} evaluation(s) without a better loss")
    return progress


def evaluate_loss(
    functions: StepFunctions,
    state: TrainState,
    batches: Iterator[TextBatch | ItemBatch],
    stop: Stop,
    *,
    n_batches: int | None,
) -> dict[str, float] | None:
    """Weighted loss of a whole split, divided once; None if a signal to stop is received meanwhile."""
    sums: list[LossSum] = []
    for (batch,) in with_progress(([batch] for batch in batches), "valid", n_batches, "batches"):
        jax.block_until_ready(sums[-2:-1])  # keeps the device close behind, so that signals are handled soon
        if stop.check():
            return None
        sums.append(functions.evaluate(state, batch))
    total = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(sums))
    if not total.weight:
        raise InputError(NO_WEIGHT)
    return {f"valid_{name}": float(value) for name, value in means(total).items()}


def update_best(progress: dict[str, Any], loss: float, step: int) -> dict[str, Any]:
    """Progress after an evaluation, which is a new best or not."""
    if progress["best_loss"] is None or loss < progress["best_loss"]:
        return {**progress, "evaluated": step, "best_loss": loss, "best_step": step, "worse": 0}
    return {**progress, "evaluated": step, "worse": progress["worse"] + 1}
