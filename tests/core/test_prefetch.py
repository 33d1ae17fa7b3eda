"""Parts come in order, made ahead of their use by one thread that ends with its reader and passes errors on."""

import threading

import pytest

from igd_jax.core.prefetch import prefetch


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_parts_come_in_order_and_a_few_are_made_before_they_are_asked_for():
    made, enough = [], threading.Event()

    def parts():
        for number in range(6):
            made.append((number, threading.current_thread().name))
            if number == 2:
                enough.set()
            yield number

    ahead = prefetch(parts(), room=2)
    assert next(ahead) == 0
    assert enough.wait(10)  # number 2, while 0 is used and 1 waits
    assert len(made) == 3
    assert list(ahead) == [1, 2, 3, 4, 5]
    assert [number for number, _ in made] == list(range(6))
    assert all(name.startswith("prefetch") for _, name in made)
    assert not _threads()


def test_an_error_is_raised_where_the_part_would_have_come():
    def parts():
        yield 1
        raise ConnectionError("the disk is gone")

    ahead = prefetch(parts())
    assert next(ahead) == 1
    with pytest.raises(ConnectionError, match="the disk is gone"):
        next(ahead)
    assert not _threads()


def test_a_reader_that_stops_ends_the_thread():
    made = []
    ahead = prefetch(made.append(number) or number for number in range(1000))
    assert next(ahead) == 0
    ahead.close()
    assert len(made) <= 4
    assert not _threads()
