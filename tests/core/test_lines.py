"""Lines for people: nothing that a terminal would obey, and no end of the program when nobody reads."""

import contextlib
import io
import json
import os
import sys

import pytest

from igd_jax.core.lines import escape_output, outliving_reader, visible
from igd_jax.core.log import say


@pytest.mark.parametrize("text", ["Café 東京 \U0001f98a", "two\nlines\tand a tab", ""])
def test_text_stays_as_it_is(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\u001b[31mred"),
        ("over\rwritten", r"over\u000dwritten"),
        ("\x9b2J", r"\u009b2J"),
        ("turned \u202e round", r"turned \u202e round"),
        ("half \ud83e", r"half \ud83e"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_as_json_has_it(text, shown, capsys):
    assert visible(text) == shown
    assert json.loads(f'"{shown}"') == text
    say(text)
    assert capsys.readouterr().out == shown + "\n"


def test_what_the_encoding_cannot_write_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    escape_output()
    say('{"title": "Café \U0001f98a"}')
    assert raw.getvalue() == b'{"title": "Caf\\u00e9 \\ud83e\\udd8a"}\n'
    assert json.loads(raw.getvalue()) == {"title": "Café \U0001f98a"}


def test_nobody_has_to_read_what_is_said():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        say("first")
        say("second")


def test_other_failures_of_a_stream_are_told():
    with open("/dev/full", "w", encoding="utf-8") as stream:
        with pytest.raises(OSError, match="No space left"), outliving_reader(stream):
            print("lost", file=stream, flush=True)
        with outliving_reader(stream, OSError):
            stream.flush()
