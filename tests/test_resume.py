"""A run that was stopped, killed or damaged goes on as if nothing had been, or says in one line why it cannot."""

import gc
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from evaluation_calls import read_written
from runs import EPOCH, STEPS, assert_same_run, interrupt_at, lines_of, train_tiny

from igd_jax import train as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluate import evaluate
from igd_jax.session.recommender import Recommender
from igd_jax.settings.config_flags import config_json
from igd_jax.train import train
from igd_jax.training.checkpoint import Checkpoints

FILES = ("config.json", "env.json", "metrics.jsonl", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")


def _copy(run: Path, folder: Path) -> Path:
    return shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("eval"))


def _versions(run: Path) -> list[tuple[int, int]]:
    return [(stat.st_ino, stat.st_mtime_ns) for stat in ((run / name).stat() for name in FILES)]


def test_a_second_start_says_it_resumes_and_trains_nothing_more(tiny, trained, tmp_path, capsys):
    run = _copy(trained, tmp_path)
    before = _versions(run)
    train_tiny(tiny, run)
    told = capsys.readouterr().out
    assert f"resuming from step {STEPS} of {STEPS}" in told
    assert f"nothing left to train: step {STEPS} was the last" in told
    assert _versions(run) == before  # not even replaced
    assert_same_run(run, trained)


def _crash() -> None:
    raise ConnectionError("the machine is gone")


def test_a_crashed_run_goes_on_from_its_checkpoint_as_if_nothing_had_been(tiny, trained, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 11, _crash)
        with pytest.raises(ConnectionError):
            train_tiny(tiny, tmp_path)
    train_tiny(tiny, tmp_path)
    assert f"resuming from step 8 of {STEPS}" in capsys.readouterr().out
    assert_same_run(tmp_path, trained)


@pytest.mark.slow
def test_a_run_that_tunes_all_weights_is_resumed_and_decoded_without_those_of_its_first_model(
    tiny, trained, plain, tmp_path, monkeypatch
):
    model = shutil.copytree(tiny / "model", tmp_path / "model")
    run, weights, changes = tmp_path / "run", model / "model.safetensors", {"model.path": str(model)}
    with monkeypatch.context() as patched:
        interrupt_at(patched, 11, _crash)
        with pytest.raises(ConnectionError):
            train_tiny(tiny, run, changes)
    weights.rename(tmp_path / "gone")
    train_tiny(tiny, run, changes)
    evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(run)), name="plain")
    assert read_written(run, "plain") == plain
    with pytest.raises(InputError, match=r"has no weights; expected model\.safetensors or shards"):
        train_tiny(tiny, run, changes, restart=True)
    (tmp_path / "gone").rename(weights)
    assert_same_run(run, trained)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_step_and_the_same_command_goes_on_from_it(
    tiny, trained, tmp_path, monkeypatch, capsys, number, code
):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 9, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as caught:
            train_tiny(tiny, tmp_path)
    assert caught.value.code == code
    assert "terminated: saving step 10; the same command resumes from it" in capsys.readouterr().out
    assert [line["step"] for line in lines_of(tmp_path) if "loss" in line] == list(range(1, 11))
    train_tiny(tiny, tmp_path)
    assert f"resuming from step 10 of {STEPS}" in capsys.readouterr().out
    assert_same_run(tmp_path, trained)


@pytest.mark.slow
@pytest.mark.parametrize("at", [EPOCH, STEPS])
def test_a_signal_during_an_evaluation_saves_and_the_evaluation_is_made_later(
    tiny, trained, tmp_path, monkeypatch, capsys, at
):
    plain, evaluations = program.micro_batches, []

    def batches(*args, step=None, **options):
        evaluations.extend([] if step is not None else [at])
        for number, batch in enumerate(plain(*args, step=step, **options)):
            if step is None and number == 1 and len(evaluations) == at // EPOCH:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(program, "micro_batches", batches)
        with pytest.raises(SystemExit, match="143"):
            train_tiny(tiny, tmp_path)
    assert f"terminated: saving step {at}" in capsys.readouterr().out
    assert lines_of(tmp_path)[-1]["step"] == at
    assert "valid_loss" not in lines_of(tmp_path)[-1]
    train_tiny(tiny, tmp_path)
    assert_same_run(tmp_path, trained)


def test_a_signal_after_the_last_step_is_answered_at_once(tiny, sasrec_run, tmp_path, monkeypatch):
    run = _copy(sasrec_run, tmp_path)
    monkeypatch.setattr(program, "export_vectors", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        train(tiny_run.sasrec_config(tiny), Workdir(str(run)))


# -------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.slow
def test_a_damaged_newest_state_is_passed_over_and_the_run_ends_the_same(tiny, trained, tmp_path, capsys):
    run = _copy(trained, tmp_path)
    data = max((run / f"checkpoints/last/{STEPS}").rglob("*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:100])
    train_tiny(tiny, run)
    told = capsys.readouterr().out
    assert f"checkpoint of step {STEPS} passed over: it is damaged" in told
    assert f"resuming from step 16 of {STEPS}" in told
    assert_same_run(run, trained)


@pytest.mark.parametrize("lost", ["checkpoints", "checkpoints/last"])
def test_a_run_whose_states_are_lost_does_not_start_from_0_unless_told(tiny, trained, tmp_path, capsys, lost):
    run = _copy(trained, tmp_path)
    shutil.rmtree(run / lost)
    before = _versions(run)
    with pytest.raises(InputError, match=rf"run was at step {STEPS}, but .* holds no checkpoint .* --restart$"):
        train_tiny(tiny, run)
    assert _versions(run) == before
    if lost == "checkpoints":
        train_tiny(tiny, run, restart=True)
        assert "resuming" not in capsys.readouterr().out
        assert_same_run(run, trained)


@pytest.mark.slow
def test_a_run_that_was_killed_before_anything_was_saved_starts_from_0(tiny, tmp_path, monkeypatch, capsys):
    changes = {"train.num_steps": 3, "train.log_every_steps": 1}
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2, _crash)
        with pytest.raises(ConnectionError):
            train_tiny(tiny, tmp_path, changes)
    train_tiny(tiny, tmp_path, changes)
    assert "note: stopped after step 2, before anything was saved; starting from step 0" in capsys.readouterr().out
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 3]


# ------------------------------------------------------------------------------------------------------------- further
def test_a_finished_run_can_be_trained_longer_and_told_more_often(tiny, trained, tmp_path, capsys):
    run, longer = _copy(trained, tmp_path), STEPS + 2
    more = {
        "train.num_steps": longer,
        "train.patience": 3,
        "train.log_every_steps": 1,
        "train.checkpoint_every_steps": 1,
        "train.eval_every_steps": 1,
        "train.eval_examples": 5,
    }
    before = lines_of(run)
    train_tiny(tiny, run, more)
    told = capsys.readouterr().out
    assert (
        f"note: {longer} steps instead of {STEPS}: from step {STEPS + 1} on the learning rate is that of the linear "
        f"schedule over {longer} steps\n"
    ) in told
    assert "note: the loss is that of 5 rows of valid instead of 13: the first evaluation from here on counts" in told
    assert lines_of(run)[: len(before)] == before
    assert [(line["step"], "loss" in line) for line in lines_of(run)[len(before) :]] == [
        *((STEPS + 1, True), (STEPS + 1, False)),
        *((longer, True), (longer, False)),
    ]
    assert read_json(run / "config.json") == config_json(tiny_run.tiny_config(tiny, more))
    train_tiny(tiny, run, more)
    told = capsys.readouterr().out
    assert f"nothing left to train: step {longer} was the last" in told
    assert "note:" not in told


def test_a_run_stopped_beyond_a_lower_number_of_steps_is_evaluated_and_done(tiny, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train_tiny(tiny, tmp_path)
    assert not (tmp_path / "checkpoints" / "best").exists()
    train_tiny(tiny, tmp_path, {"train.num_steps": 2})
    told = capsys.readouterr().out
    assert "nothing left to train: step 4 was the last" in told
    assert "at step 4" in told
    assert (tmp_path / "checkpoints" / "best" / "4").is_dir()


@pytest.mark.slow
def test_a_saved_state_is_not_held_beside_the_first_one(tiny, tmp_path, monkeypatch):
    """Memory that is enough to train is enough to go on, and that for one model to rank with it."""
    train_tiny(tiny, tmp_path, {"train.num_steps": 1})
    plain, held = Checkpoints._restore, dict[str, float]()

    def live() -> int:
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    def restore(self, path, like, arrays):
        size = sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
        held[path.parent.name] = (live() - before) / size
        return plain(self, path, like, arrays)

    monkeypatch.setattr(Checkpoints, "_restore", restore)
    before = live()
    train_tiny(tiny, tmp_path, {"train.num_steps": 2})
    before = live()
    Recommender.load(tmp_path)
    assert held.keys() == {"last", "best"}
    assert max(held.values()) < 0.5, held
