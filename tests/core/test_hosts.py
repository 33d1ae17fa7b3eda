"""What processes tell one another; two of them run in tests/test_pair.py."""

import json
import signal

import jax
import pytest

from igd_jax.core import hosts
from igd_jax.core.errors import InputError
from igd_jax.core.signals import stoppable
from igd_jax.training.mesh import make_mesh


def test_a_process_alone_agrees_with_itself():
    assert hosts.texts_of_all("Ä") == ["Ä"]
    assert hosts.from_first(lambda: {"a": 1}) == {"a": 1}
    hosts.check_alike(config={"train": {"seed": 1}})
    hosts.wait_for_all()


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        (
            [1, 2],
            "process 1 on h1 has 2 as config.train.seed, but others have 1; start the same command, with the same",
        ),
        ([3, 1, 1], "process 0 on h0 has 3 as config.train.seed, but others have 1"),
    ],
)
def test_the_odd_process_is_named(monkeypatch, seeds, told):
    texts = [json.dumps([f"h{number}", {"config.train.seed": seed}]) for number, seed in enumerate(seeds)]
    monkeypatch.setattr(hosts, "texts_of_all", lambda _: texts)
    with pytest.raises(InputError, match=told):
        hosts.check_alike(config={"train": {"seed": seeds[0]}})


def test_bad_input_of_the_first_is_that_of_all(monkeypatch):
    def fail() -> None:
        raise InputError("no")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "texts_of_all", lambda text: [text])
    with pytest.raises(InputError, match=r"^no$"):
        hosts.from_first(fail)


def test_a_vote_is_known_two_rounds_later():
    vote = hosts.Vote(make_mesh(data=-1))
    assert [vote(number) for number in (0, 7, 0, 0, 0)] == [0, 0, 0, 7, 0]


def test_a_signal_ends_the_loop_when_all_know_of_it():
    with stoppable() as stop, stop.held_back(hosts.Vote(make_mesh(data=-1))):
        signal.raise_signal(signal.SIGTERM)
        assert [stop.check() for _ in range(4)] == [False, False, True, True]
    assert stop.code == 128 + signal.SIGTERM
