"""Where a run starts from: the state that an earlier start of it left, or the first one."""

from functools import partial
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import say
from igd_jax.core.metrics_log import MetricsWriter, last_step
from igd_jax.core.process import is_first
from igd_jax.session.plan import Plan
from igd_jax.session.session import Session
from igd_jax.session.weights import check_fingerprints, fingerprints
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.step import TrainState


def resume(
    first: TrainState,
    frozen: Any,
    *,
    session: Session,
    workdir: Workdir,
    plan: Plan,
    n_valid: int,
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    restart: bool,
) -> tuple[TrainState, dict[str, Any]]:
    """The state to train from and its progress; metrics are cut back to it.

    Progress, which each checkpoint holds: `fingerprints` of what it was trained on; ``best_step`` and ``best_loss`` of
    the best evaluation, 0 and None without any, ``worse``, how many came after it, and ``evaluated``, the step of the
    newest; ``num_steps`` of the plan and ``n_valid``, rows of valid that are evaluated.

    Args:
      first: the state before the first step.
      frozen: variables that are not trained.
      restart: remove what there is and start from step 0.

    Raises:
      InputError: states were saved and none can be gone on from, or they were trained on something else.
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
            _check_nothing_lost(checkpoints, workdir)
        checkpoints.clear()  # what was left unfinished
    if is_first():
        workdir.checkpoints.mkdir(parents=True, exist_ok=True)  # where it is missing later, it was lost
    metrics.truncate(int(state.step), last_evaluation=progress["evaluated"])
    return state, progress


def _follow(plan: Plan, step: int, progress: dict[str, Any], *, session: Session, n_valid: int) -> dict[str, Any]:
    """Progress under a plan that may differ from the one it was made under; tells what that changes."""
    if plan.is_over(step, worse=progress["worse"]):
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
    """Raise `InputError` where there is no state to go on from, though one was saved."""
    was_at = last_step(workdir.metrics)
    if checkpoints.newest_step or (was_at and not workdir.checkpoints.is_dir()):
        raise InputError(
            f"{workdir.path} was at step {max(was_at, checkpoints.newest_step):,}, but {workdir.checkpoints} holds no "
            "checkpoint to go on from; put it back, or start again from step 0 with --restart"
        )
    if was_at:
        say(f"note: stopped after step {was_at:,}, before anything was saved; starting from step 0")
