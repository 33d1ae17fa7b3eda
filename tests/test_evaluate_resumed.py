"""An evaluation that is interrupted goes on where it was, with the same result to the byte."""

import os
import re
import signal

import numpy as np
import pytest
from command import run_here
from evaluation_calls import N_TEST

from igd_jax import evaluate as program
from igd_jax.core.fingerprint import version_of
from igd_jax.core.io import append_lines
from igd_jax.core.types import Recommendations
from igd_jax.session import ranker, unfinished

FILES = ("predictions.jsonl", "metrics.json", "config.json")


@pytest.fixture
def run(trained, monkeypatch):
    """Evaluate the run in parts of a batch of 8 users, `act` after so many parts; returns how that ended."""
    monkeypatch.setattr(ranker, "BATCHES_PER_PART", 1)

    def evaluate(name: str, *options: str, after: int = 0, act=lambda: None):
        n_kept = 0

        def appending(*given, **options):
            nonlocal n_kept
            append_lines(*given, **options)
            if (n_kept := n_kept + 1) == after:
                act()

        monkeypatch.setattr(unfinished, "append_lines", appending)
        return run_here(program, f"--workdir={trained}", f"--name={name}", *options), n_kept

    return evaluate


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_same_command_goes_on_and_gives_the_same_bytes(run, trained):
    done, n_parts = run("whole")
    assert (done.code, n_parts) == (0, -(-N_TEST // 8))
    assert re.search(r"compiling the search of 8 rows, prompts of \d+ tokens\n", done.out)

    done, _ = run("stopped", after=1, act=_terminate)
    assert done.code == 143
    assert f"terminated: 8 of {N_TEST} users are kept; the same command goes on from there" in done.out
    assert not (trained / "eval" / "stopped").exists()
    (kept,) = (trained / "cache" / "unfinished" / "stopped").iterdir()
    with kept.open("a") as file:
        # The lists of these users once more, as another process beside it leaves them; a bad disk, and a kill.
        file.write(kept.read_text() + '{"users": [1]}\n{"users": [1')

    done, n_parts = run("stopped")
    assert (done.code, n_parts) == (0, -(-N_TEST // 8) - 1)
    assert f"going on after 8 of {N_TEST} users" in done.out
    for file in FILES:
        whole, resumed = (trained / "eval" / name / file for name in ("whole", "stopped"))
        assert whole.read_bytes() == resumed.read_bytes(), file
    assert not kept.parent.exists()


def test_another_config_begins_anew_and_choices_go_on_too(run, trained):
    choose = ("--choose=decode.alpha=0,0.1", "--choose_examples=8")
    assert run("chosen", *choose, after=3, act=_terminate)[0].code == 143  # two values on valid, and a part of test
    folder = trained / "cache" / "unfinished" / "chosen"
    assert len(list(folder.iterdir())) == 3
    other, n_parts = run("chosen", "--config.decode.alpha=0.4", after=1, act=_terminate)
    assert (other.code, n_parts) == (143, 1)
    assert "going on" not in other.out
    done, n_parts = run("chosen", *choose)
    assert (done.code, n_parts) == (0, -(-N_TEST // 8) - 1)
    assert not folder.exists()


@pytest.mark.parametrize("file", ["model.safetensors", "folder"])
def test_files_are_told_apart_by_size_and_time(tmp_path, file):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.safetensors"
    given = str(path if file == path.name else path.parent)
    told = [version_of(given)]
    for content in ("ab", "abc"):
        path.write_text(content)
        told.append(version_of(given))
    assert len(set(told)) == 3
    assert version_of("") == version_of(str(tmp_path / "none"))


def test_what_is_kept_comes_at_once_so_that_it_does_not_count_as_speed(tmp_path):
    parts = [np.array([0, 1]), np.array([2]), np.array([3])]

    def rank(part):
        for user in part.tolist():
            rows, scores = np.array([[user]], np.int32), np.array([[-user]], np.float32)
            yield np.array([user]), Recommendations(rows, scores)

    stopped = unfinished.Unfinished(tmp_path, ["x"]).ranked(parts, rank)
    assert [next(stopped)[0].tolist() for _ in range(4)] == [[0], [1], [2], [3]]
    stopped.close()
    (users, lists), (last, _) = unfinished.Unfinished(tmp_path, ["x"]).ranked(parts, rank)
    assert (users.tolist(), lists.scores.tolist(), last.tolist()) == ([0, 1, 2], [[0], [-1], [-2]], [3])
