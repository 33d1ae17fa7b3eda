"""A checkpoint that is damaged or lost is found out, and passed over for the one before."""

import os
import shutil

import numpy as np
import pytest
from checkpoint_calls import NEWEST, assert_same, best_of, last_of, names_in, state_of

from igd_jax.core.errors import InputError
from igd_jax.training import checkpoint
from igd_jax.training.checkpoint import Checkpoints


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


def _a_loop_of_links(step):
    shutil.rmtree(step)
    step.symlink_to(step.name)


def _another_seal(step):
    (step / "checkpoint.json").write_text("[]")


DAMAGES = [_empty, _cut, _lose_a_file, _a_pipe, _half_written, _a_file_instead, _a_loop_of_links, _another_seal]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over_for_the_one_before_with_a_line(folder, damage, capsys):
    damage(folder / "last" / "8")
    assert_same(last_of(folder), state_of(4))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint of step 8 passed over: it is ")
    assert names_in(folder / "last") == {"4"}  # it will be made again


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_is_told_and_not_used(folder, damage):
    damage(folder / "best" / "4")
    with pytest.raises(InputError, match=r"the best checkpoint, of step 4, is .*; start igd_jax.train again") as caught:
        best_of(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_best_that_is_half_written_is_passed_over_for_the_one_before(folder):
    shutil.copytree(folder / "best" / "4", folder / "best" / "6")
    _half_written(folder / "best" / "6")
    params, progress = best_of(folder)
    assert_same(params, state_of(4).params)
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
                    checkpoint.verified(step)
            file.write_bytes(good)
        checkpoint.verified(step)


def test_a_lost_best_is_made_again_from_the_state_of_the_same_step(folder, capsys):
    shutil.rmtree(folder / "last" / "8")
    _cut(folder / "best" / "4")
    assert_same(last_of(folder), state_of(4))
    (line,) = capsys.readouterr().out.splitlines()  # and none of the best
    assert line.startswith("checkpoint of step 8 passed over: it is gone (")
    assert_same(best_of(folder)[0], state_of(4).params)


def test_a_state_whose_best_is_lost_is_passed_over_for_one_that_makes_it_again(folder, capsys):
    _cut(folder / "best" / "4")
    assert_same(last_of(folder), state_of(4))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("checkpoint of step 8 passed over: it cannot be gone on from: the best, of step 4, is lost")
    assert_same(best_of(folder)[0], state_of(4).params)


def test_what_is_newer_than_the_state_that_is_used_is_removed(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.restore_last(state_of(0))
    checkpoints.save_best(10, state_of(10).params, {"best_step": 10})
    checkpoints.close()
    assert names_in(folder / "best") == {"4", "10"}  # killed before a state of step 10 was saved
    assert_same(last_of(folder), state_of(8))
    assert names_in(folder / "best") == {"4"}


def test_nothing_usable_is_nothing_but_it_is_known_how_far_the_run_was(folder, capsys):
    for step in ("4", "8"):
        _empty(folder / "last" / step)
    assert last_of(folder) is None
    assert len(capsys.readouterr().out.splitlines()) == 2
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest_step == 8
    checkpoints.clear()
    checkpoints.close()
    assert not folder.exists()


def test_the_best_is_read_while_another_process_finds_a_better_one(folder, monkeypatch):
    verified, training = checkpoint.verified, Checkpoints(folder)

    def meanwhile(path):
        monkeypatch.undo()
        progress = verified(path)
        training.restore_last(state_of(0))
        training.save_best(10, state_of(10).params, {"best_step": 10})
        training.save_last(state_of(10), {"best_step": 10})
        training.save_last(state_of(12), {"best_step": 10})
        training.close()
        assert not path.exists()
        return progress

    monkeypatch.setattr(checkpoint, "verified", meanwhile)
    params, progress = best_of(folder)
    assert_same(params, state_of(10).params)
    assert progress == {"best_step": 10}


def test_a_newest_state_that_is_gone_is_told(folder, capsys):
    shutil.rmtree(folder / "last" / "8")
    assert_same(last_of(folder), state_of(4))
    assert capsys.readouterr().out.startswith("checkpoint of step 8 passed over: it is gone (")
    assert_same(last_of(folder), state_of(4))
    assert capsys.readouterr().out == ""  # it was told


@pytest.mark.parametrize("seal", ['{"progress": {"be', '{"progress": 3}', '{"progress": {"best_step": "4"}}'])
@pytest.mark.parametrize("step", ["4", "8"])
def test_a_seal_that_cannot_be_read_stops_neither_training_nor_ranking(folder, step, seal):
    (folder / "last" / step / "checkpoint.json").write_text(seal)
    assert_same(best_of(folder)[0], state_of(4).params)
    checkpoints = Checkpoints(folder)
    state, _ = checkpoints.restore_last(state_of(0))
    checkpoints.save_last(state_of(12), NEWEST)
    checkpoints.close()
    assert names_in(folder / "last") == {str(int(state.step)), "12"} == {"4" if step == "8" else "8", "12"}
