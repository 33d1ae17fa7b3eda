"""The first steps are told at once, and what is left; later ones now and then, slow ones each."""

import json
import time

import jax
import jax.numpy as jnp
import optax
import pytest
from batches import text_batch

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.training import train_log
from igd_jax.training.train_log import SPEED, Amount, TrainLog

AMOUNT = Amount(4, 40, 4e6)


@pytest.fixture
def log(tmp_path):
    return TrainLog(MetricsWriter(tmp_path / "metrics.jsonl"), optax.constant_schedule(0.5), num_steps=9, every_steps=3)


def _add(log: TrainLog, step: int, loss: float, amount: Amount = AMOUNT) -> None:
    log.add(step, {"loss": jnp.float32(loss)}, amount)


def test_learning_rates_of_many_steps_come_from_one_trace_of_the_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(train_log, "RATES_AT_ONCE", 3)
    calls = []

    def schedule(step: jax.Array) -> jax.Array:
        calls.append(step)
        return optax.linear_schedule(1.0, 0.0, 4)(step)

    log = TrainLog(MetricsWriter(tmp_path / "metrics.jsonl"), schedule, num_steps=4, every_steps=1)
    for step in range(1, 5):
        _add(log, step, loss=1.0)
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [line["learning_rate"] for line in lines] == [1.0, 0.75, 0.5, 0.25]
    assert len(calls) == 1


def test_the_first_step_of_a_start_is_told_and_written_at_once_and_then_every_so_many(log, tmp_path, capsys):
    written = []
    for step in range(5, 10):
        _add(log, step, loss=step)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        written.append([json.loads(line)["step"] for line in lines])
    assert written == [[5], [5, 6], [5, 6], [5, 6], [5, 6, 7, 8, 9]]
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("step 5: loss 5.000, after 0 s")
    assert first.endswith(" with compilation")
    assert [line.split(" (")[0] for line in others] == ["train: 9/9 steps"]


def test_a_first_step_that_is_not_finite_is_told_at_once(log):
    with pytest.raises(InputError, match="loss is nan at step 1"):
        _add(log, 1, float("nan"))


def test_a_mean_over_nothing_is_neither_written_nor_part_of_another(log, tmp_path, capsys):
    for step, deciding in ((7, 2.0), (8, float("nan")), (9, 4.0)):
        log.add(step, {"loss": jnp.float32(1.0), "loss_deciding": jnp.float32(deciding)}, AMOUNT)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("loss_deciding") for line in lines] == [2.0, None, 4.0]
    assert "loss_deciding 4.000" in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(InputError, match="loss_deciding is inf at step 12"):
        log.add(12, {"loss": jnp.float32(1.0), "loss_deciding": jnp.float32("inf")}, AMOUNT)


def test_slow_steps_are_told_one_by_one_and_what_is_left_once_nothing_is_compiled(tmp_path, monkeypatch, capsys):
    now, path = [0.0], tmp_path / "metrics.jsonl"
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    asked = []

    def advice(seconds: float, per_step: float) -> str:
        asked.append((seconds, per_step))
        return "; do less"

    schedule = optax.constant_schedule(0.5)
    log = TrainLog(MetricsWriter(path), schedule, num_steps=900, every_steps=10, advice=advice)
    written = []
    for step, seconds in enumerate((50.0, 40.0, 10.0, 10.0, 1.0, 1.0, 1.0, 1.0), start=1):
        assert log.take(iter(["input"])) == "input"
        if step < 3:
            list(log.watch("step", [text_batch([[1] * step])]))
        now[0] += seconds
        _add(log, step, loss=2.0)
        written.append(len(path.read_text().splitlines()))
    assert written == [1, 2, 3, 4, 5, 5, 5, 5]
    assert asked == [(8970.0, 10.0)]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("training will")]
    assert told == ["training will take about 2 h 30 min; do less"]


def test_several_processes_report_after_the_same_steps_whatever_their_clocks_say(tmp_path, monkeypatch):
    now, path, agreed = [0.0], tmp_path / "metrics.jsonl", iter([3])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("igd_jax.training.train_log.from_first", lambda _: next(agreed))  # asked once
    log = TrainLog(MetricsWriter(path), optax.constant_schedule(0.5), num_steps=900, every_steps=100)
    written = []
    for step in range(1, 9):
        log.take(iter(["input"]))
        now[0] += 1.0
        _add(log, step, loss=2.0)
        written.append(len(path.read_text().splitlines()))
    assert written == [1, 2, 2, 2, 5, 5, 5, 8]


def test_speed_and_memory_are_of_the_steps_since_the_last_report_and_of_nothing_between(tmp_path, monkeypatch, capsys):
    now, path = [100.0], tmp_path / "metrics.jsonl"
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    schedule = optax.constant_schedule(0.5)
    log = TrainLog(MetricsWriter(path), schedule, num_steps=20_000, every_steps=2, peak=4e12)

    def inputs():
        for _ in range(4):
            now[0] += 0.5  # the input is waited for
            yield "input"

    ready = inputs()
    for step in range(1, 4):
        now[0] += 100.0 if step == 2 else 0.0  # an evaluation
        assert log.take(ready) == "input"
        now[0] += 1.5
        _add(log, step, loss=2.0, amount=Amount(4, 40, 4e12))
    log.flush()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    speeds = [{name: value for name, value in line.items() if name in SPEED} for line in lines]
    assert all(speed.pop("peak_memory_bytes") > 1e7 for speed in speeds)
    expected = {
        "examples_per_second": 2.0, "tokens_per_second": 20.0, "flops_per_second": 2e12, "utilisation": 0.5,
        "input_wait_seconds": 0.5, "input_wait": 0.25,
    }  # fmt: skip
    assert speeds == [expected] * 3
    told = capsys.readouterr().out.splitlines()[-1]
    assert " min left)  loss 2.000, 2.0 examples/s, 20 tokens/s, 2.0 TFLOP/s (50.0% of the peak), 25% waiting" in told


def test_operations_and_utilisation_are_left_out_where_they_are_not_known(log, tmp_path):
    _add(log, 1, loss=2.0, amount=Amount(4, 40))
    [line] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert not {"flops_per_second", "utilisation"} & line.keys()
