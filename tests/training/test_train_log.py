"""The first step is told at once, with what had to be compiled for it; later ones now and then."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import text_batch

from igd_jax.core.errors import InputError
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.core.types import ItemBatch
from igd_jax.training.train_log import Amount, TrainLog


@pytest.fixture
def log(tmp_path):
    return TrainLog(MetricsWriter(tmp_path / "metrics.jsonl"), optax.constant_schedule(0.5), num_steps=9, every_steps=3)


def _add(log: TrainLog, step: int, loss: float) -> None:
    log.add(step, {"loss": jnp.float32(loss)}, Amount(4, 40, 4e6))


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
    for what, batches in (("step", [short, short, long]), ("step", [long]), ("evaluation", [short, items])):
        watched += [(batch, capsys.readouterr().out.strip()) for batch in log.watch(what, batches)]
    assert [batch for batch, _ in watched] == [short, short, long, long, short, items]
    n_short, n_long = (batch.prompt.shape[1] for batch in (short, long))
    n_target = short.target.shape[1]
    assert [told for _, told in watched] == [
        f"compiling the step of 2 rows, prompts of {n_short} tokens, targets of {n_target}",
        "",
        f"compiling the step of 2 rows, prompts of {n_long} tokens, targets of {n_target}",
        "",
        f"compiling the evaluation of 2 rows, prompts of {n_short} tokens, targets of {n_target}",
        "compiling the evaluation of 3 rows of 5 items",
    ]
