"""What a run says to people: lines on standard output, and how far long loops are.

Of several processes only the first says anything: see `core.process`.
"""

import sys
import time
import weakref
from contextlib import nullcontext
from shutil import get_terminal_size

from tqdm import tqdm

from igd_jax.core.lines import outliving_reader, visible
from igd_jax.core.process import is_first


def say(message: str) -> None:
    """Print one line for people, at once; above the bars, where there are any. It ends nothing: see `core.lines`."""
    if not is_first():
        return
    with tqdm.external_write_mode() if _WITH_BAR else nullcontext(), outliving_reader(sys.stdout):
        print(visible(message), flush=True)


def _is_watched() -> bool:
    """Whether standard output is a terminal, and one that says how wide it is, and this process talks."""
    return is_first() and sys.stdout is not None and sys.stdout.isatty() and get_terminal_size((0, 0)).columns > 0


class Progress:
    """Says how far a long loop is: a bar on a terminal, elsewhere a line at most once every `every_seconds`.

    A loop that ends before its total, or does not know it, closes the bar itself, best as a context manager.

    Args:
      total: None where it is not known.
    """

    def __init__(self, what: str, total: int | None, unit: str, every_seconds: float = 5.0):
        self._what, self._total, self._unit, self._every = visible(what), total, unit, every_seconds
        self._start = self._last = time.monotonic()
        self._first: int | None = None
        self._bar: tqdm | None = None
        if _is_watched():
            self._bar = tqdm(
                desc=self._what,
                total=total,
                unit=f" {unit}",
                unit_scale=unit == "bytes",
                miniters=1,
                dynamic_ncols=True,
                file=sys.stdout,  # where the lines go
            )
            _WITH_BAR.add(self)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, note: str = "") -> None:
        """Tell that `done` of the total is done; prints when it is time, and always at the end."""
        if self._first is None:
            self._first = done  # what an earlier start of the program did does not count for the rate
        if self._bar is not None:
            self._draw(self._bar, done, note)
            return
        now = time.monotonic()
        if done != self._total and now - self._last < self._every:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        of = "" if self._total is None else f"/{self._total:,}"
        left = f", {(self._total - done) / rate:.0f} s left" if self._total and rate > 0 and done < self._total else ""
        note = f"  {note}" if note else ""
        say(f"{self._what}: {done:,}{of} {self._unit} ({rate:,.1f}/s{left}){note}")

    def _draw(self, bar: tqdm, done: int, note: str) -> None:
        bar.set_postfix_str(note, refresh=False)
        if bar.n == 0:
            bar.initial = bar.n = self._first
        bar.update(done - bar.n)
        if done == self._total:
            bar.refresh()
            self.close()

    def close(self) -> None:
        """End the bar: one that reached its total stays on the screen, another is taken away."""
        if self._bar is not None:
            self._bar.leave = self._bar.n == self._total
            self._bar.close()
            self._bar = None
            _WITH_BAR.discard(self)


_WITH_BAR: weakref.WeakSet[Progress] = weakref.WeakSet()


def close_bars() -> None:
    """End the bars that are still drawn, before something else is written to the terminal."""
    for progress in list(_WITH_BAR):
        progress.close()
