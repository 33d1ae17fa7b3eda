"""The first step is told at once, with what had to be compiled for it; later ones now and then."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import text_batch

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.core.types import ItemBatch
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import grouped
from igd_jax.training.train_log import SPEED, Amount, TrainLog

AMOUNT = Amount(4, 40, 4e6)


@pytest.fixture
def log(tmp_path):
    return TrainLog(MetricsWriter(tmp_path / "metrics.jsonl"), optax.constant_schedule(0.5), num_steps=9, every_steps=3)


def _add(log: TrainLog, step: int, loss: float, amount: Amount = AMOUNT) -> None:
    log.add(step, {"loss": jnp.float32(loss)}, amount)


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


def test_each_shape_of_batches_is_told_once_before_it_is_compiled(log, capsys):
    short, long = text_batch([[1, 2], [3]]), text_batch([[1, 2, 3, 4], [3]])
    items = ItemBatch(np.zeros((3, 5), int), np.ones((3, 5), bool), np.zeros(3, int), np.ones(3, bool))
    watched = []
    for what, batches in (("step", [short, short, long]), ("step", [long]), ("evaluation", iter([short, items]))):
        watched += [(batch, capsys.readouterr().out.strip()) for batch in log.watch(what, batches)]
    assert [batch for batch, _ in watched] == [short, short, long, long, short, items]
    n_short, n_long = (batch.prompt.shape[1] for batch in (short, long))
    n_target = short.target.shape[1]
    assert [told for _, told in watched] == [
        f"compiling the step of 2 rows, prompts of {n_short} tokens, targets of {n_target} (1 of 2)",
        "",
        f"compiling the step of 2 rows, prompts of {n_long} tokens, targets of {n_target} (2 of 2)",
        "",
        f"compiling the evaluation of 2 rows, prompts of {n_short} tokens, targets of {n_target}",
        "compiling the evaluation of 3 rows of 5 items",
    ]
    [group] = grouped([jax.tree.map(np.asarray, long)], make_mesh(data=1), room=3)
    assert list(log.watch("groups", [group])) == [group]
    told = f"compiling the groups of 2 rows, prompts of {n_long} tokens, targets of {n_target}"
    assert capsys.readouterr().out.strip() == told


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
