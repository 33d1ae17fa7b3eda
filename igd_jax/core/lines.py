"""Lines for people: without terminal control sequences, and without failing if the reader has gone."""

import codecs
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except newline and tab, marks that change the direction of writing, and lone surrogates."""


def visible(text: str) -> str:
    r"""The text with characters that control a terminal as JSON escapes, such as ``\u001b``."""
    return _OBEYED.sub(lambda found: _escaped(found[0]), text)


def one_line(text: str) -> str:
    """The text with its line breaks, and the white space around them, as spaces; a text on one line as it is."""
    if "\n" not in text and "\r" not in text:
        return text
    return " ".join(filter(None, map(str.strip, text.replace("\r", "\n").split("\n"))))


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _escape_unwritable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escaped(error.object[error.start : error.end]), error.end


def escape_output() -> None:
    """Escape characters that the encoding of standard output or error lacks, instead of raising."""
    codecs.register_error("igd_jax.escaped", _escape_unwritable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="igd_jax.escaped")


@contextmanager
def outliving_reader(stream: Any, failures: type[OSError] = BrokenPipeError) -> Iterator[None]:
    """Write to a stream whose reader may have gone, such as ``head`` after ten lines; further output is discarded."""
    try:
        yield
    except failures:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
