"""Traces are asked for by the numbers of steps, and steps that are done already are no fault."""

import jax
import pytest

from igd_jax.core.errors import InputError
from igd_jax.training.profile import Profiler, parse_steps


def test_steps_are_read_as_first_and_last():
    assert parse_steps("", num_steps=9) is None
    assert parse_steps("2:4", num_steps=9) == range(2, 5)
    assert parse_steps("9:9", num_steps=9) == range(9, 10)


@pytest.mark.parametrize("text", ["0:1", "3:2", "1:10", "3", "a:b", "1:2:3", "-1:2", " 1:2", "1:1e9", "1.5:2", ":"])
def test_what_names_no_steps_is_bad_input(text):
    with pytest.raises(InputError, match=r"^--profile_steps is '.*'; expected FIRST:LAST, two steps from 1 to 9, both"):
        parse_steps(text, num_steps=9)


@pytest.fixture
def traced(monkeypatch) -> list[str]:
    """What is asked of JAX."""
    calls: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(f"start {folder.name}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def _run(profiler: Profiler, calls: list[str], steps: range) -> None:
    for step in steps:
        profiler.before(step, ())
        calls.append(str(step))
        profiler.after(step, ())
    profiler.close()


@pytest.mark.parametrize(
    ("done", "steps", "expected"),
    [
        (0, range(1, 5), "1, start profile, 2, 3, stop, 4"),
        (2, range(3, 5), "start profile, 3, stop, 4"),
        (3, range(4, 6), "4, 5"),
        (0, range(1, 3), "1, start profile, 2, stop"),
    ],
    ids=["whole", "resumed within", "resumed after", "ended within"],
)
def test_a_trace_begins_and_ends_with_its_steps(tmp_path, traced, capsys, done, steps, expected):
    _run(Profiler(range(2, 4), tmp_path / "profile", done=done), traced, steps)
    assert ", ".join(traced) == expected
    told = capsys.readouterr().out
    assert ("nothing to profile: the steps to 3 were trained before" in told) == (done == 3)
    assert (f"tensorboard --logdir={tmp_path / 'profile'}" in told) == (3 in steps)
