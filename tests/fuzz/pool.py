"""Workers that may die: cases run in processes of their own, and one that dies or takes too long is a finding."""

import json
import queue
import selectors
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.command import ROOT
from tests.fuzz.cases import NATIVE, TOLD, Ended
from tests.fuzz.targets import TARGETS

LIMIT = 60.0
"""Seconds after which a case hangs, on a machine that may be busy with other things."""
MOST_CASES = 1000
"""Cases of a process before it is replaced, so that none grows without bound."""


class Worker:
    """A process that runs one case after the other, and the next process after it dies."""

    def __init__(self, folder: Path, number: int, *, seed: int):
        self._command = [sys.executable, "-m", "tests.fuzz.worker", str(folder), str(number), str(seed)]
        self._folder = folder / f"worker{number}"
        self._folder.mkdir()
        self._process: subprocess.Popen[str] | None = None
        self._n_left = 0

    def start(self) -> subprocess.Popen[str]:
        """The process, a new one where there is none; returns once it is ready."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._n_left = MOST_CASES
            assert self._process.stdout is not None
            if self._process.stdout.readline() != "ready\n":
                raise RuntimeError("a worker does not start; see above")
        return self._process

    def answer(self, case: int) -> Ended:
        """How a case ends."""
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        print(case, file=process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            is_there = bool(selector.select(LIMIT))
        line = process.stdout.readline() if is_there else ""
        self._n_left -= 1
        code = process.wait() if is_there and not line else None
        if not line or not self._n_left:
            self.stop()
        if line:
            return Ended(**json.loads(line))
        if code == 1:
            raise RuntimeError(f"case {case} cannot be run; see above")
        native, told = (self._read(name) for name in (NATIVE, TOLD))
        fault = f"the process dies with code {code} ({native[:300]!r})" if is_there else f"hangs for {LIMIT:.0f} s"
        return Ended(TARGETS[case % len(TARGETS)].name, told, None, "", [fault], 0.0)

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def run(cases: Iterable[int], folder: Path, *, seed: int, n_workers: int) -> Iterator[tuple[int, Ended]]:
    """Run cases in some processes; gives each case's number with its end, in order."""
    workers = [Worker(folder, number, seed=seed) for number in range(n_workers)]
    free: queue.Queue[Worker] = queue.Queue()
    try:
        workers[0].start()  # it makes the inputs, which the others find
        for worker in workers:
            free.put(worker)

        def one(case: int) -> tuple[int, Ended]:
            worker = free.get()
            try:
                return case, worker.answer(case)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(n_workers) as threads:
            yield from threads.map(one, cases)
    finally:
        for worker in workers:
            worker.stop()
