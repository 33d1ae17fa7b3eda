"""A folder of checkpoints."""

import pytest
from checkpoint_calls import NEWEST, state_of

from igd_jax.training.checkpoint import Checkpoints


@pytest.fixture
def folder(tmp_path):
    """A folder with the states of steps 4 and 8, and the best parameters, of step 4."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save_last(state_of(2), {"best_step": 0})
    checkpoints.save_best(4, state_of(4).params, {"best_step": 4})
    checkpoints.save_last(state_of(4), {"worse": 0, "best_step": 4})
    checkpoints.save_last(state_of(8), NEWEST)
    checkpoints.close()
    return tmp_path / "checkpoints"
