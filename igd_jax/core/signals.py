"""SIGTERM and Ctrl-C end a program where it has saved what it did; a second one ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether the program was told to end.

    Attributes:
      code: exit code for the signal that came, 128 and its number: 143 or 130; 0 before one came.
    """

    def __init__(self) -> None:
        self.code = 0
        self._is_held_back = False

    def __bool__(self) -> bool:
        return bool(self.code)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside, a first signal is only noted, for a loop that looks."""
        self._is_held_back = True
        try:
            yield
        finally:
            self._is_held_back = False

    def receive(self, number: int, _: object = None) -> None:
        """Handle a signal."""
        is_first, self.code = not self.code, 128 + number
        if not is_first:
            os._exit(self.code)
        if not self._is_held_back:
            sys.exit(self.code)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, SIGTERM and Ctrl-C exit with 143 or 130, unless `Stop.held_back`; outside, they do what they did."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # where Python handles no signals
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
