"""The loss on validation, which decides which step is the best."""

import jax.numpy as jnp
import optax
import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.signals import stoppable
from igd_jax.core.types import LossSum
from igd_jax.session.train_loop import evaluate_loss
from igd_jax.training.step import StepFunctions, init_state


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_validation_without_any_weight_has_no_loss(weight):
    """As with IGD at beta 0, or MSL, if the candidates are a file with none of its targets."""
    found = LossSum(jnp.float32(3.0 * weight), jnp.float32(weight), {})
    functions = StepFunctions(lambda *_: None, None, lambda *_: None, lambda *_: found)
    state = init_state({"w": jnp.float32(0)}, optax.sgd(0.1))
    with stoppable() as stop, stop.held_back(int):
        if weight:
            assert evaluate_loss(functions, state, iter(["a", "b"]), stop, n_batches=2) == {"valid_loss": 3.0}
            return
        with pytest.raises(InputError, match="no target of the validation rows has a token with weight"):
            evaluate_loss(functions, state, iter(["a", "b"]), stop, n_batches=2)
