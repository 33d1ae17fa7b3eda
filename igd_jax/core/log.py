"""What a run says: lines for people on standard output, JSON lines for scripts in a file."""

import json
import time
from pathlib import Path


def say(message: str) -> None:
    """Print one line for people, at once."""
    print(message, flush=True)


class MetricsWriter:
    """Appends one JSON object per line; also to TensorBoard when ``tensorboardX`` is installed.

    A resumed run calls `truncate` first, so that each step stands in the file once.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._tensorboard = None
        if tensorboard is not None:
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                return
            self._tensorboard = SummaryWriter(str(tensorboard), flush_secs=10)

    def truncate(self, last_step: int) -> None:
        """Drop lines after `last_step`, among them one that a killed process left unfinished."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= last_step:
                    kept.append(line + "\n")
            except ValueError:
                continue
        self._path.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, **values: float) -> None:
        """Append ``{"step": step, **values}``; steps count from 1."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Wait until TensorBoard's events are written, too."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def plot_losses(metrics: Path, picture: Path) -> None:
    """Draw every loss of metrics.jsonl against the step, when ``matplotlib`` is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name in values:
            if "loss" in name:
                curves.setdefault(name, []).append((values["step"], values[name]))
    axes = (figure := Figure(layout="constrained")).add_subplot(xlabel="step", ylabel="nats per token")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="o" if name.startswith("valid") else None)
    axes.legend()
    figure.savefig(picture)


class Progress:
    """Says how far a long loop is, at most once every `every_seconds`, and what is left."""

    def __init__(self, what: str, total: int, unit: str, every_seconds: float = 5.0):
        self._what, self._total, self._unit, self._every = what, total, unit, every_seconds
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, note: str = "") -> None:
        """Tell that `done` of the total is done; prints when it is time, and always at the end."""
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if done < self._total and now - self._last < self._every:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = f", {(self._total - done) / rate:.0f} s left" if rate > 0 and done < self._total else ""
        note = f"  {note}" if note else ""
        say(f"{self._what}: {done:,}/{self._total:,} {self._unit} ({rate:,.1f}/s{left}){note}")
