"""Log of a run's steps: metrics.jsonl, progress lines, and an error at the first number that is not finite."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igd_jax.core.errors import InputError
from igd_jax.core.hosts import from_first
from igd_jax.core.log import Progress, duration, say
from igd_jax.core.memory import peak_memory, shown_bytes
from igd_jax.core.metrics_log import MetricsWriter
from igd_jax.training.compilations import Compilations

Part = TypeVar("Part")


SPEED = (
    *("examples_per_second", "tokens_per_second", "flops_per_second", "utilisation"),
    *("input_wait_seconds", "input_wait", "peak_memory_bytes"),
)
"""Names in metrics.jsonl of what depends on the machine, and not on the run alone."""
SECONDS_BETWEEN = 5.0
"""Time between reports of slow steps."""
SECONDS_TOLD = 120.0
"""A training that takes no longer is not announced."""
RATES_AT_ONCE = 4096
"""Steps whose learning rates come from one call of the schedule, which takes a millisecond."""


class Amount(NamedTuple):
    """What a step, or several, gave the model to do.

    Attributes:
      rows: number of examples.
      tokens: number of tokens without padding.
      flops: floating-point operations that the model needs for them; 0 = not known.
    """

    rows: int = 0
    tokens: int = 0
    flops: float = 0.0

    def plus(self, other: "Amount") -> "Amount":
        """The amount of both together."""
        return Amount(self.rows + other.rows, self.tokens + other.tokens, self.flops + other.flops)


class TrainLog:
    """Keeps the metrics of recent steps on the device and reads them together, so that steps do not wait for their log.

    The first two steps of a start are reported at once, and from the first one for which nothing was compiled follows
    the time that is left. If steps are slow, fewer of them wait, one at least.

    Args:
      metrics: the file.
      schedule: learning rate by number of updates.
      num_steps: total number of steps.
      every_steps: largest number of steps between reports.
      peak: operations per second of all devices together; None = not known.
      advice: function from the seconds that are left, and those of one step, to what would shorten them, or an empty
        text.
    """

    def __init__(
        self,
        metrics: MetricsWriter,
        schedule: optax.Schedule,
        *,
        num_steps: int,
        every_steps: int,
        peak: float | None = None,
        advice: Callable[[float, float], str] = lambda seconds, per_step: "",
    ):
        self._metrics, self._every, self._peak = metrics, every_steps, peak
        rates = jax.jit(lambda step: jax.vmap(schedule)(step + jnp.arange(RATES_AT_ONCE)))
        self._rates = lru_cache(maxsize=1)(lambda number: jax.device_get(rates(number * RATES_AT_ONCE)))
        self._num_steps, self._advice = num_steps, advice
        self._progress: Progress | None = None
        self._compilations, self._n_compiled = Compilations(), 0
        self._at_once, self._is_timed = 1, False
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []
        self._amount, self._waited, self._since = Amount(), 0.0, time.monotonic()

    def watch(self, what: str, parts: Iterable[Part]) -> Iterator[Part]:
        """Pass on batches or groups of them; see `Compilations.watch`."""
        return self._compilations.watch(what, parts)

    def take(self, inputs: Iterator[Part]) -> Part:
        """The next input; the time that it is waited for is recorded."""
        start = time.monotonic()
        if not self._waiting:
            self._since = start  # evaluations and checkpoints between two reports do not count
        part = next(inputs)
        self._waited += time.monotonic() - start
        return part

    def add(self, step: int, values: dict[str, jax.Array], amount: Amount) -> None:
        """Record a step; all recorded steps are written and printed when a report is due."""
        self._waiting.append((step, values))
        self._amount = self._amount.plus(amount)
        if step % self._every == 0 or len(self._waiting) >= self._at_once:
            self.flush()

    def flush(self) -> None:
        """Write the recorded steps to metrics.jsonl; raises `InputError` at the first that is not finite."""
        if not self._waiting:
            return
        waiting = jax.device_get(self._waiting)
        seconds = max(time.monotonic() - self._since, 1e-9)
        speed = self._speed(seconds, len(waiting))
        lines = []
        try:
            for step, values in waiting:
                numbers = finite_metrics(values, step)
                lines.append((step, {**numbers, "learning_rate": self._learning_rate(step), **speed}))
        finally:
            self._metrics.write_all(lines)
        every = {name: [values[name] for _, values in lines if name in values] for name in waiting[0][1]}
        mean = {name: float(np.mean(values)) for name, values in every.items() if values}
        if self._progress is None:
            say(f"step {waiting[0][0]}: {_shown(mean)}, after {duration(seconds)} with compilation")
            self._progress = Progress("train", self._num_steps, "steps", every_seconds=2.0)
        elif self._n_compiled == len(self._compilations):
            self._follow(waiting[-1][0], seconds / len(waiting))
        self._n_compiled = len(self._compilations)
        self._progress.update(waiting[-1][0], _shown(mean, speed))
        self._waiting, self._amount, self._waited = [], Amount(), 0.0

    def _learning_rate(self, step: int) -> float:
        """Learning rate of a step, the first of which is 1."""
        number, place = divmod(step - 1, RATES_AT_ONCE)
        return float(self._rates(number)[place])

    def _follow(self, step: int, per_step: float) -> None:
        """Adapt the number of steps between reports to the seconds per step; at the first call, print the time left.

        Several processes, whose clocks differ, keep the first number of the first one: a loss that is not finite ends
        all of them at the same report.
        """
        if jax.process_count() == 1 or not self._is_timed:
            self._at_once = from_first(lambda: max(1, int(SECONDS_BETWEEN / per_step)))
        left = (self._num_steps - step) * per_step
        if not self._is_timed and left > SECONDS_TOLD:
            say(f"training will take about {duration(left)}{self._advice(left, per_step)}")
        self._is_timed = True

    def _speed(self, seconds: float, n_steps: int) -> dict[str, float]:
        """Speed and memory of the recorded steps (docs/training.md), by the names in metrics.jsonl."""
        flops = self._amount.flops / seconds
        return {
            "examples_per_second": self._amount.rows / seconds,
            "tokens_per_second": self._amount.tokens / seconds,
            **({"flops_per_second": flops} if flops else {}),
            **({"utilisation": flops / self._peak} if flops and self._peak else {}),
            "input_wait_seconds": self._waited / n_steps,
            "input_wait": self._waited / seconds,
            "peak_memory_bytes": float(peak_memory()),
        }


def _shown(mean: dict[str, float], speed: Mapping[str, float] = MappingProxyType({})) -> str:
    """Metrics and speed in a line for people: first the loss and the speed, as a bar may have room for no more."""
    loss, *others = (f"{name} {mean[name]:.3f}" for name in sorted(mean, key=lambda name: (name != "loss", name)))
    if not speed:
        return ", ".join([loss, *others])
    parts = [loss, f"{speed['examples_per_second']:,.1f} examples/s", *others]
    parts.append(f"{speed['tokens_per_second']:,.0f} tokens/s")
    if "flops_per_second" in speed:
        share = f" ({speed['utilisation']:.1%} of the peak)" if "utilisation" in speed else ""
        flops = speed["flops_per_second"]
        parts.append(f"{flops / 1e12:,.1f} TFLOP/s{share}" if flops >= 1e12 else f"{flops / 1e9:,.1f} GFLOP/s{share}")
    parts += [
        f"{speed['input_wait']:.0%} waiting for input",
        f"{shown_bytes(int(speed['peak_memory_bytes']))} at the peak",
    ]
    return ", ".join(parts)


def finite_metrics(values: Mapping[str, Any], step: int) -> dict[str, float]:
    """The metrics of a step, but for means over nothing, which `step.means` makes NaN.

    Where training has diverged, the loss is NaN, too.

    Raises:
      InputError: a metric is not finite; it names the first.
    """
    numbers = {name: float(value) for name, value in values.items()}
    if all(math.isfinite(numbers.get(name, 0.0)) for name in ("loss", "grad_norm", "valid_loss")):
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} is {value} at step {step}; try a lower config.train.learning_rate, more warmup_steps, or "
                "model.dtype=float32. The last checkpoint is from before"
            )
    return numbers
