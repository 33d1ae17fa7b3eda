"""Output for people: lines on standard output, and progress of long loops.

Of several processes only the first prints (see `core.process`).
"""

import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from functools import cache
from shutil import get_terminal_size
from typing import TypeVar

from tqdm import tqdm

from igd_jax.core.lines import outliving_reader, visible
from igd_jax.core.process import is_first

Part = TypeVar("Part", bound=Sized)


def say(message: str) -> None:
    """Print one line at once, above any progress bars. Never raises if the reader has gone (see `core.lines`)."""
    if not is_first():
        return
    with tqdm.external_write_mode() if _WITH_BAR else nullcontext(), outliving_reader(sys.stdout):
        print(visible(message), flush=True)


say_once = cache(say)
"""The same, unless this process has printed that line before."""


def duration(seconds: float) -> str:
    """A time for people: seconds below two minutes, then minutes, then hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min"


@contextmanager
def heartbeat(what: str, *, every_seconds: float = 30.0) -> Iterator[None]:
    """While the block runs, which cannot say how far it is, print now and then that it still does."""
    start, is_done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not is_done.wait(every_seconds):
            say(f"still {what}, since {duration(time.monotonic() - start)}")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _is_watched() -> bool:
    """Whether this process prints, to a terminal of known size; tqdm shows nothing on one without rows."""
    return is_first() and sys.stdout is not None and sys.stdout.isatty() and min(get_terminal_size((0, 0))) > 0


class Progress:
    """Reports the progress of a long loop: a bar on a terminal, elsewhere a line at most once per `every_seconds`.

    Use as a context manager if the loop may end before its total, or if the total is unknown.

    Args:
      what: name of the loop.
      total: number of units; None = unknown.
      unit: noun for the units.
      every_seconds: minimum time between lines.
      done: units done before the loop, which do not count for the speed; None = those of the first update.
    """

    def __init__(self, what: str, total: int | None, unit: str, every_seconds: float = 5.0, *, done: int | None = None):
        self._what, self._total, self._unit, self._every = visible(what), total, unit, every_seconds
        self._start = self._last = time.monotonic()
        self._first = done
        self._bar: tqdm | None = None
        if _is_watched():
            self._bar = tqdm(
                desc=self._what,
                total=total,
                unit=f" {unit}",
                unit_scale=unit == "bytes",
                miniters=1,
                dynamic_ncols=True,
                file=sys.stdout,  # as the lines
            )
            _WITH_BAR.add(self)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, done: int, note: str = "") -> None:
        """Report that `done` units are done; prints if enough time has passed, and always at the end."""
        if self._first is None:
            self._first = done  # units done by an earlier start of the program do not count for the rate
        if self._bar is not None:
            self._draw(self._bar, done, note)
            return
        now = time.monotonic()
        if done != self._total and now - self._last < self._every:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        of = "" if self._total is None else f"/{self._total:,}"
        note = f"  {note}" if note else ""
        say(f"{self._what}: {done:,}{of} {self._unit}{self._speed(done, rate)}{note}")

    def _speed(self, done: int, rate: float) -> str:
        """Units per second and the time left, in brackets; empty until something is done."""
        if rate <= 0:
            return ""
        left = ""
        if self._total and done < self._total:
            left = f", {duration((self._total - done) / rate)} left"
        return f" ({rate:,.1f}/s{left})" if rate >= 1 else f" ({rate:.2g}/s{left})"

    def _draw(self, bar: tqdm, done: int, note: str) -> None:
        bar.set_postfix_str(note, refresh=False)
        if bar.n == 0:
            bar.initial = bar.n = self._first
        bar.update(done - bar.n)
        if done == self._total:
            bar.refresh()
            self.close()

    def close(self) -> None:
        """Close the bar; it stays on the screen only if it reached its total."""
        if self._bar is not None:
            self._bar.leave = self._bar.n == self._total
            self._bar.close()
            self._bar = None
            _WITH_BAR.discard(self)


def with_progress(parts: Iterable[Part], what: str, total: int | None, unit: str) -> Iterator[Part]:
    """Pass on parts of a whole, and report progress if that takes long."""
    with Progress(what, total, unit) as progress:
        done = 0
        if total != 0:
            progress.update(done)
        for part in parts:
            yield part
            done += len(part)
            if total is None or done < total:
                progress.update(done)


_WITH_BAR: weakref.WeakSet[Progress] = weakref.WeakSet()


def close_bars() -> None:
    """Close all open bars, before other output to the terminal."""
    for progress in list(_WITH_BAR):
        progress.close()
