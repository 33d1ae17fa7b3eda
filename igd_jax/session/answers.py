"""Answers to a file of requests: streamed, in order, and gone on with where an earlier start was stopped."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.evaluation.predictions import as_json
from igd_jax.session.recommender import Recommender
from igd_jax.session.requests import Request, read_request

AT_ONCE = 1024
"""Requests that are read, answered and written together."""
SHOWN = 10
"""Bad lines that are named; the others are counted."""


def answer_file(make_recommender: Callable[[], Recommender], source: Path, target: Path, *, k: int | None) -> None:
    """Answer the requests of a file, one JSON object per line, into another.

    Lines that are no requests, or cannot be answered, are named, counted and left out.

    Args:
      make_recommender: called once there is something to answer.
      k: length of the lists; None = `config.decode.top_k`.

    Raises:
      InputError: there is no such file, or `target` is no file of answers.
    """
    if not source.is_file():
        raise InputError(f"--input={source} does not exist; name a file with one request per line")
    n_done = drop_unfinished(target)
    if n_done:
        say(f"going on after line {n_done:,} of {source}")
    bad, n_answered, recommender = BadLines(source), 0, None
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as lines, target.open("a", encoding="utf-8") as out:
        numbered = itertools.islice(enumerate(lines, start=1), n_done, None)
        while chunk := list(itertools.islice(numbered, AT_ONCE)):
            recommender = recommender or make_recommender()
            requests = list(_requests(chunk, recommender, bad))
            answers = recommender.recommend([request for _, request in requests], k=k)
            for (number, request), answer in zip(requests, answers, strict=True):
                name = "" if request.id is None else f'"id": {json.dumps(request.id, ensure_ascii=False)}, '
                out.write(f'{{"line": {number}, {name}"ranked": {as_json(answer.results)}}}\n')
            _write_out(out)
            n_answered += len(requests)
            say(f"answered {n_answered:,} requests, up to line {chunk[-1][0]:,}")
    say(f"{n_answered:,} requests answered, {bad.count:,} lines left out; written to {target}")


class BadLines:
    """Names the first lines that cannot be answered, and counts them all."""

    def __init__(self, source: Path):
        self._source, self.count = source, 0

    def add(self, number: int, error: Exception) -> None:
        """Note one."""
        self.count += 1
        if self.count <= SHOWN:
            say(f"left out: {self._source} line {number}: {error}")
        elif self.count == SHOWN + 1:
            say("left out: further lines, which are counted at the end")


def _requests(chunk: list[tuple[int, bytes]], recommender: Recommender, bad: BadLines) -> Iterator[tuple[int, Request]]:
    for number, line in chunk:
        try:
            request = read_request(json.loads(line))
            recommender.check(request)
        except (InputError, ValueError) as error:
            bad.add(number, error)
            continue
        yield number, request


def drop_unfinished(target: Path) -> int:
    """Cut off a last line that a killed process left unfinished; returns the input line of the last whole answer.

    Raises:
      InputError: the file holds something else than answers.
    """
    if not target.exists():
        return 0
    content = target.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    last = whole[:-1].rpartition(b"\n")[2]
    try:
        number = int(json.loads(last)["line"]) if last else 0
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--output={target} holds no answers; name a file that does not exist yet") from None
    if len(whole) < len(content):
        os.truncate(target, len(whole))
    return number


def _write_out(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
