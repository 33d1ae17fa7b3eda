"""Training from start to end: what it writes and says, how it resumes, and when it refuses."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from command import run_here, run_process, start
from ml_collections import ConfigDict

from igd_jax import evaluate as evaluation
from igd_jax import train as program
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.data.prepared import load
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.evaluate import evaluate
from igd_jax.models import config as model_config
from igd_jax.models.load import config_of
from igd_jax.session.config_flags import config_json, load_config
from igd_jax.session.session import Session, set_up
from igd_jax.session.settings import settings_from
from igd_jax.session.weights import split_trainable
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import init_state

STEPS, EPOCH = 18, 6
SHORT = {"train.num_steps": 2, "train.warmup_steps": 0, "train.log_every_steps": 1}
ONE_SHAPE = {"train.micro_batch_size": 16}
"""A single micro-batch per step, for models that no other test compiles."""


def _train(tiny: Path, workdir: Path, changes: dict | None = None) -> dict:
    return program.train(tiny_run.tiny_config(tiny, changes), Workdir(str(workdir)))


def _lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _without_speed(workdir: Path) -> list[dict]:
    return [{name: value for name, value in line.items() if "second" not in name} for line in _lines(workdir)]


def _session(config: ConfigDict, workdir: Path) -> Session:
    return set_up(settings_from(config), Workdir(str(workdir)))


def _saved(workdir: Path) -> tuple:
    """The last state and the best parameters, each with its progress."""
    session = _session(load_config(None, Workdir(str(workdir))), workdir)
    schedule = make_schedule("constant", learning_rate=1.0, warmup_steps=0, num_steps=1)
    _, params, _ = split_trainable(session.method.make_model(session.context(session.index)))
    like = init_state(params, make_optimizer(schedule, clip_norm=1.0, weight_decay=0.0))
    checkpoints = Checkpoints(workdir / "checkpoints")
    found = checkpoints.restore_last(like), checkpoints.restore_best(params)
    checkpoints.close()
    return found


def _assert_same_run(ours: Path, theirs: Path) -> None:
    """Equal to the bit: parameters, optimizer, progress, and every line of the metrics but the speed."""
    jax.tree.map(np.testing.assert_array_equal, _saved(ours), _saved(theirs))
    assert _without_speed(ours) == _without_speed(theirs)


# ------------------------------------------------------------------------------------------------------ start to finish
def test_the_loss_falls_and_each_step_is_logged_once(trained):
    lines = _lines(trained)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    assert set(steps[0]) == {
        *("step", "loss", "loss_forced", "loss_deciding"),
        *("grad_norm", "learning_rate", "examples_per_second"),
    }
    valid = [line for line in lines if "valid_loss" in line]
    assert [line["step"] for line in valid] == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    assert set(valid[0]) == {"step", "valid_loss", "valid_loss_forced", "valid_loss_deciding"}
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_the_learning_rate_of_each_step_is_that_of_the_schedule(trained):
    logged = [line["learning_rate"] for line in _lines(trained) if "loss" in line]
    expected = [0, 0.5e-2, *(1e-2 * (STEPS - step) / (STEPS - 2) for step in range(2, STEPS))]
    np.testing.assert_allclose(logged, expected, rtol=1e-5)


def test_the_workdir_holds_all_that_describes_the_run(tiny, trained):
    assert read_json(trained / "config.json") == config_json(tiny_run.tiny_config(tiny))
    assert read_json(trained / "env.json")["devices"] == ["cpu"] * 8
    assert load_tokenizer(trained / "tokenizer").fingerprint == load_tokenizer(tiny / "model").fingerprint
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best", "last", "newest.json"}
    ((state, progress), (_, best)) = _saved(trained)
    assert int(state.step) == STEPS
    losses = {line["step"]: line["valid_loss"] for line in _lines(trained) if "valid_loss" in line}
    assert progress["best_step"] == min(losses, key=losses.get) == best["best_step"]
    assert progress["best_loss"] == losses[progress["best_step"]]


def test_a_second_start_says_it_resumes_and_trains_nothing_more(tiny, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    _train(tiny, tmp_path / "run")
    told = capsys.readouterr().out
    assert f"resuming from step {STEPS} of {STEPS}" in told
    assert f"nothing left to train: step {STEPS} was the last" in told
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    _assert_same_run(tmp_path / "run", trained)


# ------------------------------------------------------------------------------------------------------------- resuming
def _interrupt_at(monkeypatch, step: int, act) -> None:
    """Do something when the rows of a step, counted from 0, are asked for."""
    rows_of_step = program.rows_of_step

    def rows(n_rows, *, batch_size, seed, step: int, at=step):
        if step == at:
            act()
        return rows_of_step(n_rows, batch_size=batch_size, seed=seed, step=step)

    monkeypatch.setattr(program, "rows_of_step", rows)


def _crash() -> None:
    raise ConnectionError("the machine is gone")


def test_a_crashed_run_goes_on_from_its_checkpoint_as_if_nothing_had_been(tiny, trained, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        _interrupt_at(patched, 11, _crash)
        with pytest.raises(ConnectionError):
            _train(tiny, tmp_path)
    _train(tiny, tmp_path)
    assert f"resuming from step 8 of {STEPS}" in capsys.readouterr().out
    _assert_same_run(tmp_path, trained)


def test_sigterm_saves_the_step_and_the_same_command_goes_on_from_it(tiny, trained, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        _interrupt_at(patched, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as caught:
            _train(tiny, tmp_path)
    assert caught.value.code == 143
    assert "terminated: saving step 10; the same command resumes from it" in capsys.readouterr().out
    assert [line["step"] for line in _lines(tmp_path) if "loss" in line] == list(range(1, 11))
    _train(tiny, tmp_path)
    assert f"resuming from step 10 of {STEPS}" in capsys.readouterr().out
    _assert_same_run(tmp_path, trained)


def _wait_for_a_new_checkpoint(process, folder: Path) -> None:
    """Wait until training has got further than it was, or is done."""

    def saved() -> set[str]:
        return {path.name for path in folder.glob("last/*") if path.name.isdecimal()}

    before, end = saved(), time.monotonic() + 300
    while saved() <= before and process.poll() is None:
        assert time.monotonic() < end, "no checkpoint in five minutes"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_process_leaves_a_run_that_ends_equal_to_the_bit(tiny, tmp_path):
    changes = {
        "data.dir": tiny / "data",
        "model.path": tiny / "model",
        "train.global_batch_size": 16,
        "train.micro_batch_size": 8,
        "train.learning_rate": 1e-2,
        "train.num_steps": 40,
        "train.patience": 0,
        "train.checkpoint_every_steps": 2,
    }
    command = ["--config=configs/igd.py", *(f"--config.{field}={value}" for field, value in changes.items())]
    assert run_process("train", *command, f"--workdir={tmp_path / 'whole'}").code == 0
    command.append(f"--workdir={tmp_path / 'killed'}")
    rng = np.random.default_rng()  # any moment will do, and it is another one each time
    codes = []
    for sign in (signal.SIGKILL, signal.SIGTERM):
        with start("train", *command) as process:
            _wait_for_a_new_checkpoint(process, tmp_path / "killed" / "checkpoints")
            time.sleep(rng.uniform(0, 1))
            process.send_signal(sign)
            process.communicate()
        codes.append(process.returncode)
    assert codes[0] in (-signal.SIGKILL, 0)  # 0: the end came first
    assert codes[1] in (143, 0)
    done = run_process("train", *command)
    assert (done.code, done.err) == (0, "")
    _assert_same_run(tmp_path / "killed", tmp_path / "whole")


# ------------------------------------------------------------------------------------------------------------- stopping
def test_training_stops_early_and_stays_stopped(tiny, tmp_path, capsys):
    changes = {"train.patience": 1, "train.eval_every_steps": 2, "train.learning_rate": 0.0, "train.num_steps": 8}
    progress = _train(tiny, tmp_path, changes)
    assert (progress["best_step"], progress["worse"]) == (2, 1)
    assert "stopping early: 1 evaluation(s) without a better loss" in capsys.readouterr().out
    assert _lines(tmp_path)[-1]["step"] == 4
    assert _train(tiny, tmp_path, changes) == progress
    assert "nothing left to train: step 4 was the last" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tiny, tmp_path):
    changes = {"train.learning_rate": 1e30, "train.warmup_steps": 3, "train.checkpoint_every_steps": 1}
    with pytest.raises(InputError, match=r"^\w+ is (nan|inf) at step 3; try a lower config.train.learning_rate, more "):
        _train(tiny, tmp_path, changes)
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2]
    (state, _), best = _saved(tmp_path)
    assert int(state.step) == 2
    assert best is None


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_valid_loss_that_is_not_finite_is_never_the_best(tiny, tmp_path):
    with pytest.raises(InputError, match=r"^valid_loss\w* is (nan|inf) at step 1; try a lower "):
        _train(tiny, tmp_path, SHORT | {"train.learning_rate": 1e30, "train.num_steps": 1})
    assert _saved(tmp_path) == (None, None)


# ------------------------------------------------------------------------------------------------------------- refusing
def test_a_workdir_of_another_config_is_refused_with_the_fields_that_differ(tiny, trained):
    before = (trained / "config.json").read_bytes()
    with pytest.raises(
        InputError, match=r"another config: method.args, train.learning_rate, train.seed differ; use another"
    ):
        _train(tiny, trained, {"train.seed": 1, "train.learning_rate": 1.0, "method.args.beta": 0.3})
    assert (trained / "config.json").read_bytes() == before


def test_how_to_decode_and_evaluate_and_on_how_many_devices_may_change(tiny, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    changes = {"decode.alpha": 0.0, "eval.split": "valid", "mesh.data": 8}
    _train(tiny, tmp_path / "run", changes)
    assert "nothing left to train" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "config.json")["mesh"]["data"] == 8


def test_other_candidates_are_refused_because_the_weights_of_tokens_come_from_them(tiny, trained):
    with pytest.raises(InputError, match=r"holds a run of another config: data.candidates differ"):
        _train(tiny, trained, {"data.candidates": "train"})


def test_other_data_under_the_same_name_is_refused(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    for name in ("data", "model"):
        shutil.copytree(tiny / name, tmp_path / name)
    config = read_json(trained / "config.json")
    config["data"]["dir"], config["model"]["path"] = str(tmp_path / "data"), str(tmp_path / "model")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    tiny_run.save_data(tmp_path / "data", seed=1)
    with pytest.raises(InputError, match=r"run was trained on other data or with another tokenizer than .*data gives"):
        _train(tmp_path, tmp_path / "run")
    with pytest.raises(InputError, match=r"run was trained on other data"):
        evaluate(tiny_run.tiny_config(tmp_path), Workdir(str(tmp_path / "run")), name="test")


def test_a_run_older_than_a_field_goes_on_with_the_default_of_the_field(tiny, trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    config = read_json(trained / "config.json")
    del config["model"]["lora_rank"], config["mesh"], config["eval"]["protocol"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    done = run_here(evaluation, f"--workdir={tmp_path / 'run'}", "--config.model.lora_rank=0")
    assert (done.code, done.err) == (0, ""), done.err
    assert read_json(tmp_path / "run/eval/test/config.json")["eval"]["protocol"] == "rows"
    _train(tiny, tmp_path / "run")
    assert "nothing left to train" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"holds a run of another config: model.lora_rank differ"):
        _train(tiny, tmp_path / "run", {"model.lora_rank": 4})


# ------------------------------------------------------------------------------------------------------------- variants
def test_eight_devices_train_like_one(tiny, tmp_path):
    for name, changes in (("one", {"mesh.data": 1}), ("eight", {"mesh.data": 8, **ONE_SHAPE})):
        _train(tiny, tmp_path / name, {**SHORT, **changes})
    for ours, theirs in zip(_without_speed(tmp_path / "eight"), _without_speed(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_without_a_model_folder_weights_are_random_and_the_tokenizer_is_trained(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(model_config.NAMED, "nano", config_of(tiny / "model"))
    changes = {**SHORT, **ONE_SHAPE, "model.path": "", "model.config": "nano", "tokenizer.vocab_size": 280}
    _train(tiny, tmp_path, changes)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.vocab_size == 280
    first = capsys.readouterr().out
    _train(tiny, tmp_path, changes)
    mark = f"fingerprint {tokenizer.fingerprint}"
    assert mark in first
    assert mark in capsys.readouterr().out
    other = _train(tiny, tmp_path / "other", changes | {"train.seed": 1})
    assert other["best_loss"] != _lines(tmp_path)[-1]["valid_loss"]


def test_the_published_normalizer_gives_another_loss_on_unequal_weights(tiny, tmp_path):
    for name in ("global", "micro_batch"):
        _train(tiny, tmp_path / name, {**SHORT, "loss.normalizer": name, "method.args.beta": 0.01})
    ours, theirs = (_lines(tmp_path / name)[0] for name in ("global", "micro_batch"))
    assert ours["loss_forced"] == pytest.approx(theirs["loss_forced"], rel=1e-5)
    assert ours["loss"] != pytest.approx(theirs["loss"], rel=1e-5)


def test_what_is_merged_left_out_or_cut_is_counted_and_told(tiny, tmp_path, capsys):
    sold = [item for item in tiny_run.ITEM_IDS if item not in ("sku0", "sku7")]
    (tmp_path / "candidates.txt").write_text("\n".join(sold))
    changes = {**SHORT, "data.candidates": str(tmp_path / "candidates.txt"), "data.max_length": 30}
    _train(tiny, tmp_path / "run", changes)
    told = capsys.readouterr().out
    assert "data: users 125, items 23, rows train 90, valid 13, test 22, dates 2020-09-13 to 2020-09-13" in told
    assert "21 of 23 items, 20 titles (1 items merged into a title they share), 18 of them train targets" in told
    data = load(tiny / "data")
    for split in ("train", "valid"):
        off = int(np.isin(data.splits[split].target, (0, 7)).sum())
        assert off > 0
        assert f"{off} of {tiny_run.N_ROWS[split]} {split} targets are off the trie (no candidate)" in told
    cut = [line for line in told.splitlines() if line.endswith("prompts cut: with target over 30 tokens")]
    assert [line.split(" of ")[1].split()[0] for line in cut] == ["90", "13"]
    assert "plan: 2 steps of 16 rows (6 steps per epoch of 90 rows), micro-batches of 8" in told
    assert "example target (token:weight): '" in told


def test_the_first_rows_can_stand_for_all(tiny, tmp_path):
    run = _session(tiny_run.tiny_config(tiny, {"data.max_examples": 20}), tmp_path)
    assert len(run.rows("train")) == run.counts.sum() == 20
    assert len(run.rows("valid")) == tiny_run.N_ROWS["valid"]
    np.testing.assert_array_equal(run.rows("train").target, run.prepared.splits["train"].target[:20])


def test_the_valid_loss_can_be_that_of_some_rows(tiny, tmp_path, monkeypatch):
    seen, plain = [], program.micro_batches

    def spy(session, annotations, examples, rows, *, step=None):
        if step is None:
            seen.append(examples.target[rows])
        return plain(session, annotations, examples, rows, step=step)

    monkeypatch.setattr(program, "micro_batches", spy)
    _train(tiny, tmp_path, {"train.num_steps": 1, "train.eval_examples": 5})
    valid = load(tiny / "data").splits["valid"]
    np.testing.assert_array_equal(seen, [valid.target[np.arange(5) * len(valid) // 5]])
