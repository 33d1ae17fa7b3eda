"""Answers to a file of requests: streamed, in order, and gone on with where an earlier start was stopped.

Requests are answered in chunks of the file, each from a line number that does not depend on where a start was stopped:
so the same requests share their batches, and the answers of two starts are those of one, to the last digit.
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from igd_jax.core.errors import InputError
from igd_jax.core.io import open_to_append
from igd_jax.core.log import say
from igd_jax.core.process import is_first
from igd_jax.evaluation.predictions import as_json
from igd_jax.session.recommender import Recommender
from igd_jax.session.requests import Request, read_request

AT_ONCE = 1024
"""Lines that are read, answered and written together."""
SHOWN = 10
"""Lines that are left out, and notes, that are shown; the others are counted."""

BEGINNING = b'{"line": '
ANSWER = re.compile(re.escape(BEGINNING) + rb'(\d+), ("id": ".*", )?"ranked": \[.*\]\}\n')


def answer_file(make_recommender: Callable[[], Recommender], source: Path, target: Path, *, k: int | None) -> None:
    """Answer the requests of a file, one JSON object per line, into another.

    Lines that are no requests, or cannot be answered, are named, counted and left out.

    Args:
      make_recommender: called once there is something to answer.
      k: length of the lists; None = `config.decode.top_k`.

    Raises:
      InputError: there is no such file, or `target` is no file of answers to it.
    """
    if not source.is_file():
        raise InputError(f"--input={source} does not exist; name a file with one request per line")
    if target.exists() and target.samefile(source):
        raise InputError(f"--output={target} is the file of requests itself; name another one")
    n_done = drop_unfinished(target)
    left_out, notes = Told("left out", source), Told("note", source)
    n_answered, recommender = 0, None
    with source.open("rb") as lines, open_to_append(target) as out:
        if (n_skipped := sum(1 for _ in itertools.islice(lines, n_done))) < n_done:
            raise InputError(f"--output={target} answers more lines than the {n_skipped:,} of {source}; name another")
        if n_done:
            say(f"going on after line {n_done:,} of {source}")
        numbered = enumerate(lines, start=n_done + 1)
        while chunk := list(itertools.islice(numbered, AT_ONCE)):
            recommender = recommender or make_recommender()
            requests = list(_requests(chunk, recommender, left_out))
            answers = recommender.recommend([request for _, request in requests], k=k)
            for (number, request), answer in zip(requests, answers, strict=True):
                for note in answer.notes:
                    notes.add(number, note)
                name = "" if request.id is None else f'"id": {json.dumps(request.id, ensure_ascii=False)}, '
                out.write(f'{{"line": {number}, {name}"ranked": {as_json(answer.results)}}}\n')
            _write_out(out)
            n_answered += len(requests)
            say(f"answered {n_answered:,} requests, up to line {chunk[-1][0]:,}")
    say(f"{n_answered:,} requests answered, {left_out.count:,} lines left out, {notes.count:,} notes; see {target}")


class Told:
    """What is told of lines of a file: the first few in words, and how many there were."""

    def __init__(self, what: str, source: Path):
        self._what, self._source, self.count = what, source, 0

    def add(self, number: int, told: object) -> None:
        """Tell something of a line."""
        self.count += 1
        if self.count <= SHOWN:
            say(f"{self._what}: {self._source} line {number}: {told}")
        elif self.count == SHOWN + 1:
            say(f"{self._what}: and further ones, which are counted at the end")


def _requests(
    chunk: list[tuple[int, bytes]], recommender: Recommender, left_out: Told
) -> Iterator[tuple[int, Request]]:
    for number, line in chunk:
        try:
            request = read_request(json.loads(line))
            recommender.check(request)
        except (InputError, RecursionError, ValueError) as error:
            left_out.add(number, error)
            continue
        yield number, request


def drop_unfinished(target: Path) -> int:
    """Cut off the chunk in which an earlier start was stopped, or ended; returns how many lines come before it.

    Raises:
      InputError: there is something else than a file of answers.
    """
    if not target.exists():
        return 0
    if not target.is_file():
        raise InputError(f"--output={target} is no file; name one that does not exist yet")
    number = end = chunk = kept = 0
    with target.open("rb") as lines:
        for line in lines:
            answer = ANSWER.fullmatch(line)
            if answer is None and not line.endswith(b"\n") and line[: len(BEGINNING)] == BEGINNING[: len(line)]:
                break  # a killed process wrote no further
            if answer is None or int(answer[1]) <= number:
                raise InputError(f"--output={target} holds something else than answers; name a file that is not there")
            number = int(answer[1])
            if (number - 1) // AT_ONCE > chunk:
                chunk, kept = (number - 1) // AT_ONCE, end
            end += len(line)
    if number == (chunk + 1) * AT_ONCE:
        chunk, kept = chunk + 1, end
    if is_first():
        os.truncate(target, kept)
    return chunk * AT_ONCE


def _write_out(file: IO[str]) -> None:
    file.flush()
    if is_first():
        os.fsync(file.fileno())
