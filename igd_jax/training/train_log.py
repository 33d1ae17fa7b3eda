"""Log of a run's steps: metrics.jsonl, a line now and then, an error at the first number that is not finite."""

import math
import time

import jax
import numpy as np
import optax

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress
from igd_jax.core.metrics_log import MetricsWriter


class TrainLog:
    """Keeps the metrics of recent steps on the device and reads them in one go: no step waits for its log."""

    def __init__(self, metrics: MetricsWriter, schedule: optax.Schedule, *, num_steps: int, every_steps: int):
        self._metrics, self._schedule, self._every = metrics, schedule, every_steps
        self._progress = Progress("train", num_steps, "steps", every_seconds=2.0)
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._n_rows, self._since = 0, time.monotonic()

    def add(self, step: int, values: dict[str, jax.Array], *, n_rows: int) -> None:
        """Record a step; every `every_steps` steps, write and print what is waiting."""
        self._waiting.append((step, values))
        self._n_rows += n_rows
        if step % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Write the waiting steps to metrics.jsonl; raises `InputError` at the first that is not finite."""
        if not self._waiting:
            return
        waiting = jax.device_get(self._waiting)
        rate = self._n_rows / max(time.monotonic() - self._since, 1e-9)
        for step, values in waiting:
            numbers = {name: float(value) for name, value in values.items()}
            check_finite(numbers, step)
            numbers["learning_rate"] = float(self._schedule(step - 1))
            self._metrics.write(step, **numbers, examples_per_second=rate)
        mean = {name: float(np.mean([values[name] for _, values in waiting])) for name in waiting[0][1]}
        note = ", ".join(f"{name} {value:.3f}" for name, value in mean.items())
        self._progress.update(waiting[-1][0], f"{note}, {rate:.1f} examples/s")
        self._waiting, self._n_rows, self._since = [], 0, time.monotonic()


def check_finite(values: dict[str, float], step: int) -> None:
    """Raise `InputError` at the first metric of a step that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} is {value} at step {step}; try a lower config.train.learning_rate, more warmup_steps, or "
                "model.dtype=float32. The last checkpoint is from before"
            )
