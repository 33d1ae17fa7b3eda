"""SIGTERM and Ctrl-C end a program with their codes: at once, or where it has saved; a second one at once, always."""

import os
import signal
import threading

import pytest

from igd_jax.core import signals
from igd_jax.core.signals import stoppable

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_program_with_its_code(number):
    with pytest.raises(SystemExit) as caught, stoppable():
        os.kill(os.getpid(), number)
    assert caught.value.code == CODES[number]


@pytest.mark.parametrize("number", CODES)
def test_a_signal_that_is_held_back_is_noted_and_a_second_one_ends_the_program_at_once(number, monkeypatch):
    ended = []
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    with stoppable() as stop:
        with stop.held_back():
            assert not stop
            os.kill(os.getpid(), number)
            assert stop.check()
            assert stop.code == CODES[number]
            assert ended == []
            os.kill(os.getpid(), number)
        assert ended == [CODES[number]]


def test_a_signal_that_no_check_saw_ends_the_program_after_the_block():
    with pytest.raises(SystemExit, match="143"), stoppable() as stop, stop.held_back():
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("seen", [False, True])
def test_at_the_end_of_the_block_a_process_hears_of_a_signal_to_another_and_waits_for_all(seen):
    asked = []

    def last(own: int) -> int:
        asked.append(own)
        return 143

    with stoppable() as stop:
        if seen:  # the program ends itself
            with stop.held_back(lambda own: 143, last):
                assert stop.check()
        else:
            with pytest.raises(SystemExit, match="143"), stop.held_back(int, last):
                assert not stop.check()
        assert stop.code == 143
    assert asked == [0]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in CODES]
    with stoppable():
        assert [signal.getsignal(number) for number in CODES] != before
    assert [signal.getsignal(number) for number in CODES] == before


def test_another_thread_hears_no_signals():
    heard = []

    def run() -> None:
        with stoppable() as stop:
            heard.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]
