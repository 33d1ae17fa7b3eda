"""What is saved comes back to the bit, in the kind it was saved as; nothing comes from nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.sharding import make_mesh, replicated
from igd_jax.training.step import TrainState, init_state

OPTIMIZER = optax.adamw(1e-3)


def _state(step: int) -> TrainState:
    """A state whose every leaf is its own, at `step` updates."""
    params = {"w": jnp.zeros((3, 2)), "half": jnp.zeros(4, jnp.bfloat16)}
    state = init_state(params, OPTIMIZER, {"tau": jnp.float32(0)})
    leaves, tree = jax.tree.flatten(state)
    leaves = [jnp.full_like(leaf, i + step) for i, leaf in enumerate(leaves)]
    state = jax.tree.unflatten(tree, leaves)
    return TrainState(state.params, state.opt_state, state.memory, jnp.int32(step))


@pytest.fixture
def folder(tmp_path):
    """A folder with the last state of step 8 and the best parameters of step 4."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save_best(4, _state(4).params, {"best_step": 4})
    checkpoints.save_last(_state(4), {"worse": 0})
    checkpoints.save_last(_state(8), {"worse": 1, "best_loss": 2.5, "fingerprint": "x"})
    checkpoints.close()
    return tmp_path / "checkpoints"


def _assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_last_state_comes_back_with_optimizer_step_and_progress(folder):
    checkpoints = Checkpoints(folder)
    state, progress = checkpoints.restore_last(_state(0))
    checkpoints.close()
    _assert_same(state, _state(8))
    assert progress == {"worse": 1, "best_loss": 2.5, "fingerprint": "x"}


def test_the_best_parameters_are_kept_apart_from_the_last(folder):
    checkpoints = Checkpoints(folder)
    params, progress = checkpoints.restore_best(_state(0).params)
    checkpoints.close()
    _assert_same(params, _state(4).params)
    assert progress == {"best_step": 4}


def test_only_the_newest_of_a_kind_is_kept(folder):
    assert {path.name for path in (folder / "last").iterdir()} == {"8"}
    assert {path.name for path in (folder / "best").iterdir()} == {"4"}


def test_nothing_comes_from_an_empty_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore_last(_state(0)) is None
    assert checkpoints.restore_best(_state(0).params) is None
    checkpoints.close()


def test_saving_a_step_again_is_no_error(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save_last(_state(8), {"worse": 1})
    checkpoints.save_best(4, _state(4).params, {"best_step": 4})
    checkpoints.close()
    assert {path.name for path in (folder / "last").iterdir()} == {"8"}


def test_what_a_killed_process_left_half_written_is_passed_over(folder):
    half = folder / "last" / "12.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "half").write_text("half")
    checkpoints = Checkpoints(folder)
    state, _ = checkpoints.restore_last(_state(0))
    checkpoints.close()
    assert int(state.step) == 8


def test_a_state_lands_on_the_devices_of_the_one_it_is_asked_for(folder):
    mesh = make_mesh(data=8)
    checkpoints = Checkpoints(folder)
    state, _ = checkpoints.restore_last(jax.device_put(_state(0), replicated(mesh)))
    checkpoints.close()
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {replicated(mesh)}
    _assert_same(state, _state(8))
