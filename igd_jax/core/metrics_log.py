"""metrics.jsonl, the output of a run for scripts: one JSON object per line and step; and the plot of its losses.

Of several processes only the first writes (see `core.process`).
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file, sync, write_text
from igd_jax.core.log import say
from igd_jax.core.process import is_first
from igd_jax.core.trackers import Tracker

LOSSES_BY_GAIN = ("loss_forced", "loss_deciding")
"""Names of the mean losses of forced and of deciding tokens; those on validation have a prefix."""


class MetricsWriter:
    """Appends one JSON object per line, and passes the values on to trackers.

    A resumed run calls `truncate` first, so that each step is in the file once. Nothing is created before the first
    line is written.

    Args:
      path: the file.
      trackers: where the values also go; see `core.trackers`.

    Raises:
      InputError: `path` exists and is not a file.
    """

    def __init__(self, path: Path, *trackers: Tracker):
        if os.path.lexists(path) and not path.is_file():
            raise InputError(f"{path} is not a file; move it away, or name another --workdir")
        self._path, self._trackers = path, trackers

    def truncate(self, last_step: int, *, last_evaluation: int | None = None) -> None:
        """Drop lines after `last_step` and an unfinished last line; other unreadable lines are dropped and counted.

        The file is replaced atomically, and only if there are lines to drop. The trackers forget the steps after
        `last_step`, too, but keep evaluations up to it.

        Args:
          last_evaluation: the last step whose ``valid_`` lines stay; None = `last_step`.
        """
        for tracker in self._trackers:
            tracker.truncate(last_step)
        if not self._path.exists() or not is_first():
            return
        lines = _lines(self._path)
        steps = [_step(line) for line in lines]
        if unreadable := sum(step is None for step in steps[:-1]):
            say(f"note: {unreadable:,} lines of {self._path} cannot be read and are dropped")
        evaluated = last_step if last_evaluation is None else last_evaluation
        kept = [
            line
            for line, step in zip(lines, steps, strict=True)
            if step is not None and step <= (evaluated if '"valid_' in line else last_step)
        ]
        write_text(self._path, "".join(f"{line}\n" for line in kept))

    def write(self, step: int, **values: float) -> None:
        """Append ``{"step": step, **values}``; steps count from 1."""
        self.write_all([(step, values)])

    def write_all(self, steps: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Append several lines at once, as each time that the file is opened a mounted bucket uploads it whole."""
        if not steps or not is_first():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, **values}) + "\n" for step, values in steps)
        for tracker in self._trackers:
            for step, values in steps:
                tracker.write(step, values)

    def sync(self) -> None:
        """Sync all lines to disk."""
        if is_first() and self._path.exists():
            sync(self._path)
            sync(self._path.parent)

    def close(self) -> None:
        """Wait until the trackers have written everything."""
        for tracker in self._trackers:
            tracker.close()


def last_step(path: Path) -> int:
    """Last step in a metrics.jsonl; 0 if there is none, or no file."""
    return max((_step(line) or 0 for line in _lines(path)), default=0) if path.is_file() else 0


def _lines(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").splitlines()


def _step(line: str) -> int | None:
    """Step of a line; None if the line is unreadable or cut short."""
    try:
        values: Any = json.loads(line)
    except (RecursionError, ValueError):
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, int) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Values of each line of a metrics.jsonl; empty if there is no such file. Unreadable lines are told."""
    lines = _lines(path) if path.is_file() else []
    readable = [json.loads(line) for line in lines if _step(line) is not None]
    if unreadable := len(lines) - len(readable):
        say(f"note: {unreadable:,} lines of {path} cannot be read and are left out")
    return readable


def unit_of_losses(names: Iterable[str]) -> str:
    """Unit of the losses of a run, by their names; of items, errors and 1 - NDCG are among them, which have none."""
    return "nats per token" if any(name.endswith(LOSSES_BY_GAIN) for name in names) else "loss"


def plot_losses(metrics: Path, picture: Path) -> None:
    """Plot every loss in metrics.jsonl against the step, if ``matplotlib`` is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    if not is_first():
        return
    curves: dict[str, list[tuple[int, float]]] = {}
    for values in read_metrics(metrics):
        for name in values:
            if "loss" in name and isinstance(values[name], float):
                curves.setdefault(name, []).append((values["step"], values[name]))
    axes = (figure := Figure(layout="constrained")).add_subplot(xlabel="step", ylabel=unit_of_losses(curves))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="o" if name.startswith("valid") else None)
    axes.legend()
    with atomic_file(picture) as partial:
        figure.savefig(partial, format=picture.suffix[1:])
