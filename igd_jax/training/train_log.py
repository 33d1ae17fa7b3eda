"""Log of a run's steps: metrics.jsonl, progress lines, and an error at the first number that is not finite."""

import math
import time
from collections.abc import Iterable, Iterator

import jax
import numpy as np
import optax

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress, say
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.core.types import ItemBatch, TextBatch


class TrainLog:
    """Keeps the metrics of recent steps on the device and reads them together, so that steps do not wait for their log.

    Only the first step of a start is reported at once.
    """

    def __init__(self, metrics: MetricsWriter, schedule: optax.Schedule, *, num_steps: int, every_steps: int):
        self._metrics, self._schedule, self._every = metrics, schedule, every_steps
        self._num_steps = num_steps
        self._progress: Progress | None = None
        self._compiled = set[tuple[str, ...]]()
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._n_rows, self._since = 0, time.monotonic()

    def watch(self, what: str, batches: Iterable[TextBatch | ItemBatch]) -> Iterator[TextBatch | ItemBatch]:
        """Pass on batches; prints a line before a batch whose shape has to be compiled first.

        Args:
          what: noun for the program that is compiled for them.
          batches: the batches.
        """
        for batch in batches:
            shape = (what, *(str(leaf.shape) for leaf in jax.tree.leaves(batch)))
            if shape not in self._compiled:
                self._compiled.add(shape)
                say(f"compiling the {what} of {_size(batch)}")
            yield batch

    def add(self, step: int, values: dict[str, jax.Array], *, n_rows: int) -> None:
        """Record a step; after the first one and every `every_steps` steps, write and print all recorded steps."""
        self._waiting.append((step, values))
        self._n_rows += n_rows
        if step % self._every == 0 or self._progress is None:
            self.flush()

    def flush(self) -> None:
        """Write the recorded steps to metrics.jsonl; raises `InputError` at the first that is not finite."""
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
        if self._progress is None:
            say(f"step {waiting[0][0]}: {note}, after {time.monotonic() - self._since:.1f} s with compilation")
            self._progress = Progress("train", self._num_steps, "steps", every_seconds=2.0)
        self._progress.update(waiting[-1][0], f"{note}, {rate:.1f} examples/s")
        self._waiting, self._n_rows, self._since = [], 0, time.monotonic()


def _size(batch: TextBatch | ItemBatch) -> str:
    """Description of the rows and columns of a batch."""
    if isinstance(batch, ItemBatch):
        return f"{len(batch.history)} rows of {batch.history.shape[1]} items"
    n_rows, width = batch.prompt.shape
    return f"{n_rows} rows, prompts of {len(batch.shared_prefix) + width} tokens, targets of {batch.target.shape[1]}"


def check_finite(values: dict[str, float], step: int) -> None:
    """Raise `InputError` at the first metric of a step that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} is {value} at step {step}; try a lower config.train.learning_rate, more warmup_steps, or "
                "model.dtype=float32. The last checkpoint is from before"
            )
