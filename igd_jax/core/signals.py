"""SIGTERM and Ctrl-C end a program once it has saved its work; a second signal ends it at once.

Of processes that run together, a signal to one ends all, at the same point of the program.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether the program is to end, as `check` found.

    Attributes:
      code: exit code, 128 plus the number of a signal (143 or 130); 0 = go on.
    """

    def __init__(self) -> None:
        self.code = self._received = 0
        self._vote: Callable[[int], int] | None = None

    def __bool__(self) -> bool:
        return bool(self.code)

    @contextmanager
    def held_back(self, vote: Callable[[int], int] = int, last: Callable[[int], int] = int) -> Iterator[None]:
        """Inside the block, a first signal is only recorded, for a loop that checks it; if none does, the block exits.

        Args:
          vote: function from the code of this process to the largest of all processes, the same in all; maybe late.
          last: the same at the end of the block, where processes wait for each other. Without it, a process whose
            signal no vote has told would exit alone, and take the others down while they save.
        """
        self._vote = vote
        try:
            yield
            is_told, code = bool(self.code), last(self._received)
            self.code = self.code or code
        finally:
            self._vote = None
        if not is_told and (code := self.code or self._received):
            sys.exit(code)

    def check(self) -> bool:
        """Whether to end now; to be called in a block of `held_back`, at the same points by all processes."""
        assert self._vote is not None, "signals are held back where they are checked"
        self.code = self.code or self._vote(self._received)
        return bool(self)

    def receive(self, number: int, _: object = None) -> None:
        """Handle a signal."""
        is_first, self._received = not self._received, 128 + number
        if not is_first:
            os._exit(self._received)
        if self._vote is None:
            sys.exit(self._received)


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
