"""SIGTERM and Ctrl-C end a program once it has saved its work; a second signal ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a signal to end the program was received.

    Attributes:
      code: exit code for the received signal, 128 plus its number (143 or 130); 0 before one is received.
    """

    def __init__(self) -> None:
        self.code = 0
        self._is_held_back = False

    def __bool__(self) -> bool:
        return bool(self.code)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside the block, a first signal is only recorded, for a loop that checks it."""
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
    """Inside the block, SIGTERM and Ctrl-C exit with 143 or 130, unless `Stop.held_back`; handlers are restored."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
