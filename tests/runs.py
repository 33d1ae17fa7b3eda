"""Runs of `tiny_run`: trained, read back, interrupted, and compared to the bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import tiny_run
from ml_collections import ConfigDict

from igd_jax import train as program
from igd_jax.core.io import Workdir
from igd_jax.session.input import micro_batches
from igd_jax.session.session import Session, set_up
from igd_jax.session.weights import initial_state, split_trainable
from igd_jax.settings.config_flags import load_config
from igd_jax.settings.settings import settings_from
from igd_jax.training.checkpoint import Checkpoints
from igd_jax.training.optimizer import make_optimizer, make_schedule
from igd_jax.training.step import Params, grouped, init_state
from igd_jax.training.train_log import SPEED, TrainLog

STEPS, EPOCH = 18, 6
"""Of the run that the fixture `trained` gives; its states are saved every four steps."""


def train_tiny(tiny: Path, workdir: Path, changes: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return program.train(tiny_run.tiny_config(tiny, changes), Workdir(str(workdir)), **options)


def lines_of(workdir: Path, *, broken: bool = False) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl, the last of which may be `broken` by a kill."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n") or not broken]


def without_speed(workdir: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in SPEED} for line in lines_of(workdir)]


def session_of(config: ConfigDict, workdir: Path) -> Session:
    return set_up(settings_from(config), Workdir(str(workdir)))


def first_gradients(config: ConfigDict, folder: Path) -> Params:
    """The sums of the gradients of the first 16 rows, over micro-batches."""
    session = session_of(config, folder)
    context = session.context(session.index)
    objective = session.method.objective(context)
    examples = session.examples(session.rows("train"))
    with jax.set_mesh(session.mesh):
        state, functions, *_ = initial_state(session, context, objective, optax.sgd(1.0))
        batches = micro_batches(session, objective.annotations, examples, np.arange(16), step=0)
        return functions.accumulate(state, grouped(batches, session.mesh, room=3)).grads


def saved(workdir: Path) -> tuple:
    """The last state and the best parameters, each with its progress."""
    session = session_of(load_config(None, Workdir(str(workdir))), workdir)
    schedule = make_schedule("constant", learning_rate=1.0, warmup_steps=0, num_steps=1)
    _, params, _ = split_trainable(session.method.make_model(session.context(session.index)))
    bfloat16 = session.settings.train.bfloat16
    like = init_state(params, make_optimizer(schedule, clip_norm=1.0, weight_decay=0.0, bfloat16=bfloat16))
    checkpoints = Checkpoints(workdir / "checkpoints")
    found = checkpoints.restore_last(like), checkpoints.restore_best(params)
    checkpoints.close()
    return found


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Equal to the bit: parameters, optimizer, progress, and every line of the metrics but the speed."""
    jax.tree.map(np.testing.assert_array_equal, saved(ours), saved(theirs))
    assert without_speed(ours) == without_speed(theirs)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do something when a step, counted from 0, has begun and is about to be logged."""
    add = TrainLog.add

    def acting(self, number, *given):
        if number == step + 1:
            act()
        add(self, number, *given)

    monkeypatch.setattr(TrainLog, "add", acting)
