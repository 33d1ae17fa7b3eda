"""Answers to a file of requests: streamed, in order, and resumed where an earlier start was stopped.

Requests are answered in chunks of the file that begin at the same lines in every start. So batches are always the same,
and the output of an interrupted run equals that of an uninterrupted one exactly.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from igd_jax.core.errors import InputError
from igd_jax.core.io import append_lines, local_path, read_json, write_json
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.evaluation.predictions import as_json
from igd_jax.session.requests import Request, Resolved, read_request
from igd_jax.session.results import Answer

AT_ONCE = 1024
"""Number of lines per chunk, which are read, answered and written together."""
SHOWN = 10
"""Maximum number of skipped lines, and of notes, that are printed; the others are counted."""

BEGINNING = b'{"line": '
ANSWER = re.compile(re.escape(BEGINNING) + rb'(\d{1,18}), ("id": (".*"|-?\d+), )?"(?:ranked|scored)": \[.*\]\}\n')


@runtime_checkable
class Answering(Protocol):
    """What answers the requests of a file: a `Recommender`."""

    @property
    def made_from(self) -> str:
        """Text that differs for whatever may answer otherwise."""

    def resolve(self, request: Request) -> Resolved:
        """Look up what a request names; raises `InputError` if it cannot be answered."""

    def answer(self, resolved: Sequence[Resolved], *, k: int | None) -> list[Answer]:
        """Answer requests, in the given order, by lists of length k."""


Maker: TypeAlias = Callable[[], Answering]
"""Makes what answers."""


def answer_file(make_recommender: Maker, input: str | Path, output: str | Path, *, k: int | None) -> None:
    """Answer the requests of a file, one JSON object per line, and write the answers to another.

    Lines that are not valid requests are reported, counted and skipped.

    Args:
      make_recommender: function that makes the recommender; called if both files can be used.
      input: file of requests.
      output: file of answers, which is created or resumed.
      k: length of the lists; None = `config.decode.top_k`.

    Raises:
      InputError: `input` is not a file, or none of its lines can be answered; `output` exists and is not a file of
        answers to it, or holds those of another run, other settings, another k or other requests; or another process
        writes it.
    """
    source, target = local_path(str(input), option="--input"), local_path(str(output), option="--output")
    if target.exists() and not target.is_file():  # before a lock file stands beside a device
        raise InputError(f"--output={target} is not a file; name one that does not exist yet")
    with locked(target):
        _answer_rest(make_recommender, source, target, k=k)


def _answer_rest(make_recommender: Maker, source: Path, target: Path, *, k: int | None) -> None:
    """Answer the requests that have no answers yet."""
    written = _check(source, target)
    recommender = make_recommender()
    if written.last:
        _check_origin(target, source, f"{recommender.made_from} k={k}")
    if written.n_lines:
        say(f"going on after line {written.n_lines:,} of {source}")
    left_out, notes, n_answered = Told("left out", source), Told("note", source), 0
    keep: int | None = written.n_bytes
    with source.open("rb") as lines:
        digest = _digest(itertools.islice(lines, written.n_lines))
        numbered = enumerate(lines, start=written.n_lines + 1)
        while chunk := list(itertools.islice(numbered, AT_ONCE)):
            resolved = _read(chunk, recommender, left_out)
            answers = recommender.answer(list(resolved.values()), k=k)
            digest = _digest((line for _, line in chunk), digest)
            # Before the answers, so that there are none without it.
            origin = {"from": f"{recommender.made_from} k={k}", "lines": chunk[-1][0], "requests": digest.hexdigest()}
            write_json(_origin_file(target), origin)
            texts = []
            for (number, one), answer in zip(resolved.items(), answers, strict=True):
                for note in answer.notes:
                    notes.add(number, note)
                key, name = "ranked" if one.score is None else "scored", one.request.id
                named = "" if name is None else f'"id": {json.dumps(name, ensure_ascii=False)}, '
                texts.append(f'{{"line": {number}, {named}"{key}": {as_json(answer.results)}}}')
            append_lines(target, texts, keep=keep)  # an incomplete chunk is truncated only when its lines are replaced
            keep, n_answered = None, n_answered + len(texts)
            say(f"answered {n_answered:,} requests, up to line {chunk[-1][0]:,}")
    append_lines(target, [], keep=keep)
    if not (n_answered or written.last):
        for empty in (target, _origin_file(target)):
            empty.unlink(missing_ok=True)
        raise InputError(f"no line of --input={source} could be answered: the reasons are above; mend its lines")
    say(f"{n_answered:,} requests answered, {left_out.count:,} lines left out, {notes.count:,} notes; see {target}")


def _origin_file(target: Path) -> Path:
    """A hidden file beside answers that says where they come from."""
    return target.with_name(f".{target.name}.made_from")


def _check_origin(target: Path, source: Path, made_from: str) -> None:
    """Raise `InputError` if there are answers of another recommender, or to other requests than `source` begins with.

    Answers without a note of their origin are taken for those of this recommender.
    """
    if not (file := _origin_file(target)).is_file():
        return
    try:
        origin = read_json(file)
        other, n_lines, requests = origin["from"] != made_from, int(origin["lines"]), origin["requests"]
    except (InputError, KeyError, TypeError, ValueError):
        other, n_lines, requests = True, 0, ""
    if other:
        raise InputError(
            f"--output={target} holds answers of another run, of other settings or of another k, which would be mixed "
            "with these; name another file"
        )
    with source.open("rb") as lines:
        if _digest(itertools.islice(lines, n_lines)).hexdigest() != requests:
            raise InputError(
                f"--output={target} holds answers to other requests: the first {n_lines:,} lines of {source} are not "
                "those that were answered; name another file"
            )


def _digest(lines: Iterable[bytes], digest: Any = None) -> Any:
    """Hash of lines, whatever their ends, after those of `digest`."""
    digest = digest or hashlib.sha256()
    for line in lines:
        digest.update(line.rstrip(b"\r\n") + b"\n")
    return digest


class Told:
    """Reports about lines of a file: the first few are printed, all are counted."""

    def __init__(self, what: str, source: Path):
        self._what, self._source, self.count = what, source, 0

    def add(self, number: int, told: object) -> None:
        """Report something about a line."""
        self.count += 1
        if self.count <= SHOWN:
            say(f"{self._what}: {self._source} line {number}: {told}")
        elif self.count == SHOWN + 1:
            say(f"{self._what}: further lines, too; they are counted at the end")


def _read(chunk: list[tuple[int, bytes]], recommender: Answering, left_out: Told) -> dict[int, Resolved]:
    """Read the requests of some lines, by line number."""
    resolved = {}
    for number, line in chunk:
        try:
            if line.strip():
                resolved[number] = recommender.resolve(read_request(json.loads(line)))
        except json.JSONDecodeError as error:
            left_out.add(number, f"it is not valid JSON ({error.msg} at column {error.pos + 1})")
        except (InputError, RecursionError, ValueError) as error:
            left_out.add(number, error)
    return resolved


def _check(source: Path, target: Path) -> "Written":
    """Find the answers written so far; raises `InputError` if the files are not requests and answers to them."""
    if not source.is_file():
        what = "is not a file" if source.exists() else "does not exist"
        raise InputError(f"--input={source} {what}; name a file with one request per line")
    with source.open("rb") as lines:
        if not any(line.strip() for line in lines):
            raise InputError(f"--input={source} has no request; expected a JSON object per line (docs/data.md)")
    if not target.exists():
        return Written()
    if target.samefile(source):
        raise InputError(f"--output={target} is the file of requests itself; name another one")
    written = read_written(target)
    with source.open("rb") as lines:
        n_there = sum(1 for _ in itertools.islice(lines, written.last))
    if n_there < written.last:
        raise InputError(f"--output={target} answers more lines than the {n_there:,} of {source}; name another file")
    return written


@dataclass(frozen=True)
class Written:
    """Progress of a file of answers.

    Attributes:
      n_lines: number of lines in chunks that are answered completely.
      n_bytes: size of the answers to those chunks.
      last: number of the last line that has an answer.
    """

    n_lines: int = 0
    n_bytes: int = 0
    last: int = 0


def read_written(target: Path) -> Written:
    """Find the progress of a file of answers, whose last line may be cut short by a killed process.

    Raises:
      InputError: `target` is not a file of answers.
    """
    number = n_bytes = 0
    before = Written()
    with target.open("rb") as lines:
        for line in lines:
            answer = ANSWER.fullmatch(line)
            if answer is None and not line.endswith(b"\n") and line[: len(BEGINNING)] == BEGINNING[: len(line)]:
                break
            if answer is None or int(answer[1]) <= number:
                raise InputError(f"--output={target} holds something else than answers; name a file that is not there")
            number = int(answer[1])
            if (whole := (number - 1) // AT_ONCE * AT_ONCE) > before.n_lines:
                before = Written(whole, n_bytes)
            n_bytes += len(line)
    if number and number % AT_ONCE == 0:
        before = Written(number, n_bytes)
    return Written(before.n_lines, before.n_bytes, number)
