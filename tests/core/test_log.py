"""Progress is told now and then, and at the end; lines and bars do not disturb each other."""

import io
import re
import threading
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest

from igd_jax.core import errors
from igd_jax.core.log import Progress, duration, heartbeat, say, with_progress


def test_progress_is_told_now_and_then_and_always_at_the_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("train", 1000, "steps", every_seconds=5.0)
    for done, seconds in ((10, 101.0), (20, 104.0), (110, 110.0), (120, 111.0), (1000, 112.0)):
        now[0] = seconds
        progress.update(done, note="loss 2.5")
    assert capsys.readouterr().out.splitlines() == [
        "train: 110/1,000 steps (10.0/s, 89 s left)  loss 2.5",
        "train: 1,000/1,000 steps (82.5/s)  loss 2.5",
    ]


def test_a_rate_is_told_from_when_it_is_known(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("recommend", 48, "users")
    for done in (2, 3, 48):
        now[0] += 6.0
        progress.update(done)
    assert capsys.readouterr().out.splitlines() == [
        "recommend: 2/48 users",
        "recommend: 3/48 users (0.083/s, 9 min left)",
        "recommend: 48/48 users (2.6/s)",
    ]


def test_a_loop_that_begins_at_its_beginning_has_a_speed_from_its_first_part_on(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("read", 1000, "bytes", done=0)
    now[0] += 10.0
    progress.update(999)
    progress.update(1000)
    assert capsys.readouterr().out.splitlines() == [
        "read: 999/1,000 bytes (99.9/s, 0 s left)",
        "read: 1,000/1,000 bytes (100.0/s)",
    ]


def test_parts_are_told_while_they_take_long_and_not_where_they_do_not(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for seconds, lines in (
        (1.0, []),
        (6.0, ["read: 2/4 words (0.33/s, 6 s left)", "read: 3/4 words (0.25/s, 4 s left)"]),
    ):
        for part in with_progress([["a", "b"], ["c"], ["d"]], "read", 4, "words"):
            now[0] += seconds
            assert part
        assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "0 s"), (119, "119 s"), (121, "2 min"), (3599, "1 h 00 min"), (423_476, "117 h 38 min")],
)
def test_times_for_people(seconds, shown):
    assert duration(float(seconds)) == shown


def test_a_block_that_cannot_say_how_far_it_is_is_told_to_be_alive(capsys):
    with heartbeat("compiling", every_seconds=0.01):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not (told := capsys.readouterr().out):
            time.sleep(0.01)
    assert told.startswith("still compiling, since 0 s\n")
    with heartbeat("compiling", every_seconds=1000.0):
        pass
    assert not any(thread.daemon and thread.name.endswith("(tell)") for thread in threading.enumerate())


def test_one_line_for_people(capsys):
    say("hello")
    assert capsys.readouterr().out == "hello\n"


def test_progress_towards_an_unknown_total_tells_how_far_it_is(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("read", None, "rows", every_seconds=5.0) as progress:
        for done, seconds in ((0, 100.0), (500, 101.0), (6000, 106.0), (6500, 107.0)):
            now[0] = seconds
            progress.update(done)
    assert capsys.readouterr().out == "read: 6,000 rows (1,000.0/s)\n"


class Terminal(io.StringIO):
    """Standard output that a person watches."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines as they stand in the end: what follows a carriage return is written over the line."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture
def wide(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")


@pytest.mark.parametrize("unknown", ["COLUMNS", "LINES"])
@pytest.mark.usefixtures("wide")
def test_a_terminal_of_unknown_size_gets_lines(monkeypatch, unknown):
    monkeypatch.setenv(unknown, "0")
    with redirect_stdout(Terminal()) as terminal:
        Progress("train", 10, "steps").update(10)
    assert terminal.getvalue().startswith("train: 10/10 steps")


@pytest.mark.usefixtures("wide")
def test_a_terminal_gets_a_bar_that_stays_when_it_is_full():
    with redirect_stdout(Terminal()) as terminal:
        progress = Progress("train", 1000, "steps")
        for done in (900, 950, 1000):
            progress.update(done, note="loss 2.5")
        say("after")
    bar, after, rest = terminal.screen()
    assert re.fullmatch(r"train: 100%\|.*\| 1000/1000 \[.* steps/s, loss 2\.5\]", bar)
    assert (after, rest) == ("after", "")


@pytest.mark.usefixtures("wide")
def test_lines_stand_above_the_bar():
    with redirect_stdout(Terminal()) as terminal:
        progress = Progress("train", 10, "steps")
        progress.update(1)
        say("step 1: valid loss 2.5")
        progress.update(10)
    line, bar, rest = terminal.screen()
    assert line == "step 1: valid loss 2.5"
    assert "10/10" in bar
    assert rest == ""


@pytest.mark.usefixtures("wide")
def test_a_bar_that_does_not_fill_is_taken_away():
    with redirect_stdout(Terminal()) as terminal:
        with Progress("read", 10, "rows") as progress:
            progress.update(7)
        say("after")
    assert "0/10" in terminal.getvalue()
    assert terminal.screen() == ["after", ""]


@pytest.mark.usefixtures("wide")
def test_an_error_is_told_on_a_clean_line():
    with redirect_stdout(Terminal()) as terminal, redirect_stderr(terminal):
        progress = Progress("read", 10, "rows")
        progress.update(7)
        with pytest.raises(SystemExit), errors.bad_flags_told():
            raise errors.InputError("no such column")
    assert terminal.screen() == ["error: no such column", ""]


@pytest.mark.usefixtures("wide")
def test_what_was_done_by_an_earlier_start_does_not_count_for_the_rate():
    with redirect_stdout(Terminal()) as terminal:
        progress = Progress("train", 1000, "steps")
        progress.update(900)
        time.sleep(0.2)
        progress.update(1000)
    rate = float(re.search(r"([0-9.]+) steps/s", terminal.screen()[0])[1])
    assert rate < 100 / 0.2
