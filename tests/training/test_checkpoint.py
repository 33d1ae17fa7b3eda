"""What is saved comes back to the bit; nothing comes from nothing."""

import jax
import jax.numpy as jnp
import pytest
from checkpoint_calls import NEWEST, assert_same, best_of, last_of, names_in, state_of

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import replicated
from igd_jax.training import seals
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import make_mesh


def test_the_last_state_comes_back_with_optimizer_step_and_progress(folder):
    checkpoints = Checkpoints(folder)
    state, progress = checkpoints.restore_last(state_of(0))
    checkpoints.close()
    assert_same(state, state_of(8))
    assert progress == NEWEST


def test_the_best_parameters_are_kept_apart_from_the_last(folder):
    checkpoints = Checkpoints(folder)
    params, progress = checkpoints.restore_best(state_of(0).params)
    checkpoints.close()
    assert_same(params, state_of(4).params)
    assert progress == {"best_step": 4}


def test_the_newest_two_states_are_kept_and_the_best(folder):
    assert names_in(folder) == {"last", "best", "newest.json"}
    assert names_in(folder / "last") == {"4", "8"}
    assert names_in(folder / "best") == {"4"}


def test_the_best_that_a_kept_state_names_is_kept_as_long_as_the_state(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(state_of(0))
    checkpoints.save_best(10, state_of(10).params, {"best_step": 10})
    checkpoints.save_last(state_of(12), {"best_step": 10})
    checkpoints.close()
    assert (names_in(folder / "last"), names_in(folder / "best")) == ({"8", "12"}, {"4", "10"})
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(state_of(0))
    checkpoints.save_last(state_of(16), {"best_step": 10})
    checkpoints.close()
    assert (names_in(folder / "last"), names_in(folder / "best")) == ({"12", "16"}, {"10"})


def test_nothing_comes_from_an_empty_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore_last(state_of(0)) is None
    assert checkpoints.restore_best(state_of(0).params) is None
    checkpoints.close()


def test_what_is_there_is_not_saved_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    checkpoints = Checkpoints(folder)
    state, progress = checkpoints.restore_last(state_of(0))
    checkpoints.save_last(state, progress)
    checkpoints.close()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_error_of_saving_is_raised_and_leaves_the_states_before(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(state_of(0))
    monkeypatch.setattr(seals, "write_json", full)
    checkpoints.save_best(12, state_of(12).params, {"best_step": 12})
    checkpoints.save_last(state_of(12), {"best_step": 12})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.close()
    monkeypatch.undo()
    assert_same(last_of(folder), state_of(8))
    assert best_of(folder)[1] == {"best_step": 4}


# ------------------------------------------------------------------------------------------------------------ restoring
def test_a_state_lands_on_the_devices_of_the_one_it_is_asked_for(folder):
    mesh = make_mesh(data=8)
    checkpoints = Checkpoints(folder)
    state, _ = checkpoints.restore_last(jax.device_put(state_of(0), replicated(mesh)))
    checkpoints.close()
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {replicated(mesh)}
    assert_same(state, state_of(8))


def test_what_does_not_fit_is_told_before_arrays_are_read(folder):
    def refuse(progress: dict) -> None:
        raise InputError(f"not {progress}")

    checkpoints, other = Checkpoints(folder), {"another": jnp.zeros(7)}
    with pytest.raises(InputError, match=r"not {'worse': 1, 'best_loss': 2.5, 'best_step': 4, 'fingerprint': 'x'}"):
        checkpoints.restore_last(state_of(0).replace(params=other), check=refuse)
    with pytest.raises(InputError, match=r"not {'best_step': 4}"):
        checkpoints.restore_best(other, check=refuse)
    checkpoints.close()


def test_arrays_of_another_model_are_bad_input(folder):
    like = state_of(0)
    other = like.replace(params={**like.params, "w": jnp.zeros((5, 2))})
    checkpoints = Checkpoints(folder)
    with pytest.raises(InputError, match="holds other arrays than the model of this config has; put back"):
        checkpoints.restore_last(other)
    with pytest.raises(InputError, match="holds other arrays"):
        checkpoints.restore_best(other.params)
    checkpoints.close()
