"""Initial state of a run: the last state of an earlier start, or the first one."""

from functools import partial
from typing import Any

from igd_jax.core import hosts
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.metrics_log import MetricsWriter, last_step
from igd_jax.core.process import is_first
from igd_jax.session.session import Session
from igd_jax.session.train_plan import TrainPlan
from igd_jax.session.weights import check_fingerprints, fingerprints
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.step import TrainState


def resume(
    first: TrainState,
    frozen: Any,
    *,
    session: Session,
    workdir: Workdir,
    plan: TrainPlan,
    n_valid: int,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    restart: bool,
) -> tuple[TrainState, dict[str, Any]]:
    """Find the state to train from and its progress, and truncate the metrics to it.

    Progress is part of each checkpoint: `fingerprints` of data and frozen variables; ``best_step`` and ``best_loss`` of
    the best evaluation (0 and None without any), ``worse``, the number of evaluations since, and ``evaluated``, the
    step of the latest one; ``num_steps`` of the plan and ``n_valid``, the number of valid rows that are evaluated.

    Args:
      first: state before the first step; where a later one is saved, shapes may stand in its place.
      frozen: variables that are not trained.
      session: the run.
      workdir: its folder.
      plan: duration of training.
      n_valid: number of valid rows that are evaluated.
      checkpoints: checkpoints of the run.
      metrics: metrics of the run.
      restart: whether to remove existing checkpoints and start from step 0.

    Raises:
      InputError: states were saved, but none can be resumed, or they belong to other data or frozen variables.
    """
    expected = fingerprints(session, frozen)
    new: dict[str, Any] = {"best_loss": None, "best_step": 0, "worse": 0, "evaluated": 0, "num_steps": plan.num_steps}
    new["n_valid"] = n_valid
    state, progress = first, {**expected, **new}
    check = partial(check_fingerprints, expected=expected, session=session, workdir=workdir)
    found = None if restart else checkpoints.restore_last(first, check=check)
    if found is not None:
        state, progress = found
        say(f"resuming from step {int(state.step)} of {plan.num_steps}")
        progress = _follow(plan, int(state.step), progress, session=session, n_valid=n_valid)
    else:
        if not restart:
            hosts.from_first(partial(_check_nothing_lost, checkpoints, workdir))
        checkpoints.clear()  # unfinished ones
    if is_first():
        workdir.checkpoints.mkdir(parents=True, exist_ok=True)  # if it is missing later, it was lost
    metrics.truncate(int(state.step), last_evaluation=progress["evaluated"])
    return state, progress


def _follow(plan: TrainPlan, step: int, progress: dict[str, Any], *, session: Session, n_valid: int) -> dict[str, Any]:
    """Adapt progress to the current plan, and report what differs from the plan of the checkpoint."""
    owes_evaluation = plan.owes_evaluation(step, evaluated=progress["evaluated"])
    if plan.is_over(step, worse=progress["worse"]) and not owes_evaluation:
        return progress
    schedule = session.settings.train.schedule
    if progress["num_steps"] != plan.num_steps and schedule != "constant":
        say(
            f"note: {plan.num_steps:,} steps instead of {progress['num_steps']:,}: from step {step + 1:,} on the "
            f"learning rate is that of the {schedule} schedule over {plan.num_steps:,} steps"
        )
    progress = {**progress, "num_steps": plan.num_steps}
    if progress["n_valid"] != n_valid:
        say(
            f"note: the loss is that of {n_valid:,} rows of valid instead of {progress['n_valid']:,}: the first "
            "evaluation from here on counts as the best so far"
        )
        progress |= {"n_valid": n_valid, "best_loss": None, "worse": 0}
    return progress


def _check_nothing_lost(checkpoints: Checkpoints, workdir: Workdir) -> None:
    """Raise `InputError` if a state was saved, but none can be resumed."""
    was_at = last_step(workdir.metrics)
    if checkpoints.newest_step or (was_at and not workdir.checkpoints.is_dir()):
        raise InputError(
            f"{workdir.path} was at step {max(was_at, checkpoints.newest_step):,}, but {workdir.checkpoints} holds no "
            "checkpoint to go on from; put it back, or start again from step 0 with --restart"
        )
    if was_at:
        say(f"note: stopped after step {was_at:,}, before anything was saved; starting from step 0")
