"""The loss on validation, which decides which step is the best."""

import jax.numpy as jnp
import optax
import pytest
from runs import session_of
from tiny_run import tiny_config

from igd_jax.core.errors import InputError
from igd_jax.core.signals import stoppable
from igd_jax.core.types import LossSum
from igd_jax.session.resume import _follow
from igd_jax.session.train_loop import evaluate_loss
from igd_jax.session.train_plan import TrainPlan
from igd_jax.training.step import StepFunctions, init_state
from igd_jax.training.train_log import finite_metrics


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_validation_without_any_weight_has_no_loss(weight):
    """As with IGD at beta 0, or MSL, if the candidates are a file with none of its targets."""
    nothing = (jnp.float32(0.0), jnp.float32(0.0))
    found = LossSum(jnp.float32(3.0 * weight), jnp.float32(weight), {"loss_deciding": nothing})
    functions = StepFunctions(lambda *_: None, None, lambda *_: None, lambda *_: found)
    state = init_state({"w": jnp.float32(0)}, optax.sgd(0.1))
    with stoppable() as stop, stop.held_back(int):
        if weight:
            measured = evaluate_loss(functions, state, iter(["a", "b"]), stop, n_batches=2)
            assert finite_metrics(measured, step=1) == {"valid_loss": 3.0}
            return
        with pytest.raises(InputError, match="no target of the validation rows has a token with weight"):
            evaluate_loss(functions, state, iter(["a", "b"]), stop, n_batches=2)


@pytest.mark.parametrize(("evaluated", "n_valid", "best"), [(9, 5, None), (18, 5, 0.5), (9, 13, 0.5)])
def test_an_evaluation_that_the_last_step_owes_is_of_the_rows_that_are_watched_now(
    tiny, tmp_path, evaluated, n_valid, best
):
    session = session_of(tiny_config(tiny), tmp_path)
    plan = TrainPlan(session, 90)
    progress = {"best_loss": 0.5, "worse": 0, "n_valid": 13, "num_steps": plan.num_steps, "evaluated": evaluated}
    assert plan.num_steps == 18
    assert _follow(plan, 18, progress, session=session, n_valid=n_valid)["best_loss"] == best
