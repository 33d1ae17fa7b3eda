"""What is saved comes back to the bit, or is found to be damaged and passed over; nothing comes from nothing."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import replicated
from igd_jax.training import checkpoint
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import TrainState, init_state

OPTIMIZER = optax.adamw(1e-3)
NEWEST = {"worse": 1, "best_loss": 2.5, "best_step": 4, "fingerprint": "x"}


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
    """A folder with the states of steps 4 and 8, and the best parameters, of step 4."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save_last(_state(2), {"best_step": 0})
    checkpoints.save_best(4, _state(4).params, {"best_step": 4})
    checkpoints.save_last(_state(4), {"worse": 0, "best_step": 4})
    checkpoints.save_last(_state(8), NEWEST)
    checkpoints.close()
    return tmp_path / "checkpoints"


def _restored(folder):
    """The last state, or None."""
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore_last(_state(0))
    checkpoints.close()
    return None if found is None else found[0]


def _best(folder):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore_best(_state(0).params)
    finally:
        checkpoints.close()


def _names(folder):
    return {path.name for path in folder.iterdir()}


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
    assert progress == NEWEST


def test_the_best_parameters_are_kept_apart_from_the_last(folder):
    checkpoints = Checkpoints(folder)
    params, progress = checkpoints.restore_best(_state(0).params)
    checkpoints.close()
    _assert_same(params, _state(4).params)
    assert progress == {"best_step": 4}


def test_the_newest_two_states_are_kept_and_the_best(folder):
    assert _names(folder) == {"last", "best", "newest.json"}
    assert _names(folder / "last") == {"4", "8"}
    assert _names(folder / "best") == {"4"}


def test_the_best_that_a_kept_state_names_is_kept_as_long_as_the_state(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(_state(0))
    checkpoints.save_best(10, _state(10).params, {"best_step": 10})
    checkpoints.save_last(_state(12), {"best_step": 10})
    checkpoints.close()
    assert (_names(folder / "last"), _names(folder / "best")) == ({"8", "12"}, {"4", "10"})
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(_state(0))
    checkpoints.save_last(_state(16), {"best_step": 10})
    checkpoints.close()
    assert (_names(folder / "last"), _names(folder / "best")) == ({"12", "16"}, {"10"})


def test_nothing_comes_from_an_empty_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore_last(_state(0)) is None
    assert checkpoints.restore_best(_state(0).params) is None
    checkpoints.close()


def test_what_is_there_is_not_saved_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    checkpoints = Checkpoints(folder)
    state, progress = checkpoints.restore_last(_state(0))
    checkpoints.save_last(state, progress)
    checkpoints.close()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# -------------------------------------------------------------------------------------------------------------- damage
def _empty(step):
    for path in list(step.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cut(step):
    largest = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _lose_a_file(step):
    min(path for path in (step / "tree").rglob("*") if path.is_file()).unlink()


def _a_pipe(step):
    file = min(path for path in (step / "tree").rglob("*") if path.is_file())
    file.unlink()
    os.mkfifo(file)


def _half_written(step):
    (step / "checkpoint.json").unlink()
    (step / "tree").rename(step / "tree.orbax-checkpoint-tmp")


def _a_file_instead(step):
    shutil.rmtree(step)
    step.write_text("not a folder")


def _another_seal(step):
    (step / "checkpoint.json").write_text("[]")


DAMAGES = [_empty, _cut, _lose_a_file, _a_pipe, _half_written, _a_file_instead, _another_seal]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over_for_the_one_before_with_a_line(folder, damage, capsys):
    damage(folder / "last" / "8")
    _assert_same(_restored(folder), _state(4))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint of step 8 passed over: it is ")
    assert _names(folder / "last") == {"4"}  # it will be made again


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_is_told_and_not_used(folder, damage):
    damage(folder / "best" / "4")
    with pytest.raises(InputError, match=r"the best checkpoint, of step 4, is .*; start igd_jax.train again") as caught:
        _best(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_best_that_is_half_written_is_passed_over_for_the_one_before(folder):
    shutil.copytree(folder / "best" / "4", folder / "best" / "6")
    _half_written(folder / "best" / "6")
    params, progress = _best(folder)
    _assert_same(params, _state(4).params)
    assert progress == {"best_step": 4}


def test_every_flipped_bit_is_found(folder, capsys):
    rng = np.random.default_rng(0)
    for step in (folder / "last" / "8", folder / "best" / "4"):
        for file in sorted(path for path in step.rglob("*") if path.is_file()):
            good = file.read_bytes()
            for bit in rng.integers(8 * len(good), size=3) if good else ():
                damaged = bytearray(good)
                damaged[bit // 8] ^= 1 << (bit % 8)
                file.write_bytes(damaged)
                with pytest.raises(checkpoint.DamagedError, match="is damaged: "):
                    checkpoint._verified(step)
            file.write_bytes(good)
        checkpoint._verified(step)


def test_a_lost_best_is_made_again_from_the_state_of_the_same_step(folder, capsys):
    shutil.rmtree(folder / "last" / "8")
    _cut(folder / "best" / "4")
    _assert_same(_restored(folder), _state(4))
    assert capsys.readouterr().out == ""
    _assert_same(_best(folder)[0], _state(4).params)


def test_a_state_whose_best_is_lost_is_passed_over_for_one_that_makes_it_again(folder, capsys):
    _cut(folder / "best" / "4")
    _assert_same(_restored(folder), _state(4))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint of step 8 passed over: it cannot be gone on from: the best, of step 4, is lost")
    _assert_same(_best(folder)[0], _state(4).params)


def test_what_is_newer_than_the_state_that_is_used_is_removed(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(_state(0))
    checkpoints.save_best(10, _state(10).params, {"best_step": 10})
    checkpoints.close()
    assert _names(folder / "best") == {"4", "10"}  # killed before a state of step 10 was saved
    _assert_same(_restored(folder), _state(8))
    assert _names(folder / "best") == {"4"}


def test_nothing_usable_is_nothing_but_it_is_known_how_far_the_run_was(folder, capsys):
    for step in ("4", "8"):
        _empty(folder / "last" / step)
    assert _restored(folder) is None
    assert len(capsys.readouterr().out.splitlines()) == 2
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest_step == 8
    checkpoints.clear()
    checkpoints.close()
    assert not folder.exists()


def test_the_best_is_read_while_another_process_finds_a_better_one(folder, monkeypatch):
    verified, training = checkpoint._verified, Checkpoints(folder)

    def meanwhile(path):
        monkeypatch.undo()
        progress = verified(path)
        training.restore_last(_state(0))
        training.save_best(10, _state(10).params, {"best_step": 10})
        training.save_last(_state(10), {"best_step": 10})
        training.save_last(_state(12), {"best_step": 10})
        training.close()
        assert not path.exists()
        return progress

    monkeypatch.setattr(checkpoint, "_verified", meanwhile)
    params, progress = _best(folder)
    _assert_same(params, _state(10).params)
    assert progress == {"best_step": 10}


def test_an_error_of_saving_is_raised_and_leaves_the_states_before(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(_state(0))
    monkeypatch.setattr(checkpoint, "write_json", full)
    checkpoints.save_best(12, _state(12).params, {"best_step": 12})
    checkpoints.save_last(_state(12), {"best_step": 12})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.close()
    monkeypatch.undo()
    _assert_same(_restored(folder), _state(8))
    assert _best(folder)[1] == {"best_step": 4}


# ------------------------------------------------------------------------------------------------------------ restoring
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
    with pytest.raises(InputError, match=r"not {'worse': 1, 'best_loss': 2.5, 'best_step': 4, 'fingerprint': 'x'}"):
        checkpoints.restore_last(_state(0).replace(params=other), check=refuse)
    with pytest.raises(InputError, match=r"not {'best_step': 4}"):
        checkpoints.restore_best(other, check=refuse)
    checkpoints.close()
