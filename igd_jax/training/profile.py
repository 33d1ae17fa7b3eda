"""Traces of chosen steps, which TensorBoard and XProf open: ``--profile_steps=FIRST:LAST``."""

import re
from pathlib import Path
from typing import Any

import jax

from igd_jax.core.errors import InputError
from igd_jax.core.log import say


def parse_steps(text: str, *, num_steps: int) -> range | None:
    """Numbers of the steps to trace, as the log counts them; None for an empty text.

    Raises:
      InputError: the text is no ``FIRST:LAST``, or there are no such steps.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= last <= num_steps:
        raise InputError(
            f"--profile_steps is {text!r}; expected FIRST:LAST, two steps from 1 to {num_steps:,}, both included, such "
            "as 5:8; the first step also compiles"
        )
    return range(first, last + 1)


class Profiler:
    """Traces steps into a folder; steps that were trained before do not count.

    Args:
      steps: consecutive numbers of the steps; None = no trace.
      folder: where the trace is written.
      done: number of steps that were trained before.
    """

    def __init__(self, steps: range | None, folder: Path, *, done: int = 0):
        self._steps = range(max(steps.start, done + 1), steps.stop) if steps else range(0)
        self._folder, self._is_on = folder, False
        if steps and not self._steps:
            say(f"note: nothing to profile: the steps to {steps[-1]:,} were trained before")

    def before(self, step: int, state: Any) -> None:
        """Start the trace if it begins with this step, once the devices are done with earlier ones."""
        if self._steps and step == self._steps[0]:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._is_on = True

    def after(self, step: int, state: Any) -> None:
        """Write the trace if it ends with this step, once the devices are done with it."""
        if self._steps and step == self._steps[-1]:
            jax.block_until_ready(state)
            self.close()
            say(f"profile of steps {self._steps[0]:,} to {step:,}: tensorboard --logdir={self._folder}")

    def close(self) -> None:
        """End a trace that has begun."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
