"""What is saved comes back to the bit, in the kind it was saved as; nothing comes from nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import replicated
from igd_jax.models.layers import Frozen
from igd_jax.training.checkpoint import Checkpoints, frozen_fingerprint, sample_leaves
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import TrainState, init_state

OPTIMIZER = optax.adamw(1e-3)


def _state(step: int) -> TrainState:
    """A state whose every leaf is its own, at `step` updates."""
    params = {"w": jnp.zeros((3, 2)), "half": jnp.zeros(4, jnp.bfloat16)}
    state = init_state(params, OPTIMIZER, {"tau": jnp.float32(0)})
    leaves, tree = jax.tree.flatten(state)
    leaves = [jnp.full_like(leaf, i + step) for i, leaf in enumerate(leaves)]
    state = jax.tree.unflatten(tree, leaves)
    return TrainState(state.params, state.opt_state, state.loss_state, jnp.int32(step))


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


def test_what_does_not_fit_is_told_before_arrays_are_read(folder):
    def refuse(progress: dict) -> None:
        raise InputError(f"not {progress}")

    checkpoints, other = Checkpoints(folder), {"another": jnp.zeros(7)}
    with pytest.raises(InputError, match=r"not {'worse': 1, 'best_loss': 2.5, 'fingerprint': 'x'}"):
        checkpoints.restore_last(_state(0).replace(params=other), check=refuse)
    with pytest.raises(InputError, match=r"not {'best_step': 4}"):
        checkpoints.restore_best(other, check=refuse)
    checkpoints.close()


# --------------------------------------------------------------------------------------------------------- fingerprints
def test_sample_leaves_are_all_of_a_small_array_and_some_of_a_large_one_in_its_own_dtype():
    large = jnp.arange(1_000_000, dtype=jnp.bfloat16).reshape(1000, 10, 100)
    small, some = sample_leaves([jnp.arange(5), large])
    assert small == np.arange(5, dtype=np.int32).tobytes()
    assert some == np.asarray(large).reshape(-1)[:: 1_000_000 // 64].tobytes()
    assert 2 * 64 <= len(some) < 2 * 128


def _mark(*arrays: np.ndarray, **metadata: str) -> str:
    return frozen_fingerprint(nnx.State({str(i): Frozen(jnp.asarray(x), **metadata) for i, x in enumerate(arrays)}))


def test_the_fingerprint_of_frozen_variables_changes_with_numbers_dtype_and_order():
    a, b = np.arange(300, dtype=np.float32).reshape(3, 100), np.ones(4, np.int32)
    marks = [_mark(a, b), _mark(b, a), _mark(a), _mark(), _mark(a * 1.0001, b), _mark(a.astype(np.float16), b)]
    assert len(set(marks)) == len(marks)
    assert _mark(a, b) == marks[0]


def test_what_was_computed_counts_as_what_it_was_made_from():
    a = np.ones(5, np.float32)
    assert _mark(a, made_from="x") == _mark(a + 1e-6, made_from="x") != _mark(a, made_from="y")
    assert _mark(a, made_from="") == _mark(a)
