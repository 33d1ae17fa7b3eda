"""Two processes of four devices each do what one does alone, and end together, whatever happens to one of them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from command import ROOT
from evaluation_calls import read_written, scores_of, titles_of
from pair import SIGNALLED_AT, STEPS
from runs import train_tiny, without_speed

from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluate import evaluate


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory) -> tuple[Path, list[tuple[int, str]]]:
    """What two processes left in a folder, and how each ended, with its errors."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("data", "model"):
        shutil.copytree(tiny / name, folder / name)
    train_tiny(folder, folder / "moved", STEPS | {"train.num_steps": 2})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "pair.py"), str(folder), address, str(number)],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    ended = [process.communicate() for process in processes]
    codes = [process.returncode for process in processes]
    return folder, [(code, out, err) for code, (out, err) in zip(codes, ended, strict=True)]


@pytest.mark.slow
def test_two_processes_train_and_recommend_as_one(pair):
    folder, _ = pair
    train_tiny(folder, folder / "one", STEPS)
    assert_close(without_speed(folder / "whole"), without_speed(folder / "one"))
    # One process restores what two have saved.
    evaluate(tiny_run.tiny_config(folder, STEPS), Workdir(str(folder / "whole")), name="one")
    (two, metrics), (one, expected) = (read_written(folder / "whole", name) for name in ("two", "one"))
    assert titles_of(two) == titles_of(one)
    np.testing.assert_allclose(scores_of(two), scores_of(one), rtol=1e-4)
    assert metrics == expected


@pytest.mark.slow
def test_a_process_with_another_config_is_named_in_all(pair):
    folder, _ = pair
    expected = f"process 1 on {socket.gethostname()} has 43 as config.train.seed, but others have 42; start the same"
    assert [read_json(folder / f"told {number}.json")["odd"][: len(expected)] for number in range(2)] == [expected] * 2
    assert not (folder / "odd").exists()


@pytest.mark.slow
def test_a_signal_to_one_ends_all_and_a_run_moves_from_one_process_to_two_and_back(pair):
    folder, _ = pair
    codes = [read_json(folder / f"told {number}.json")["code"] for number in range(2)]
    assert codes == [128 + signal.SIGTERM] * 2
    steps = [line["step"] for line in without_speed(folder / "moved") if "loss" in line]
    assert steps == list(range(1, SIGNALLED_AT + 4))
    train_tiny(folder, folder / "moved", STEPS)
    assert_close(without_speed(folder / "moved")[-2:], without_speed(folder / "whole")[-2:])


@pytest.mark.slow
def test_only_the_first_process_talks_and_a_lost_process_ends_the_others_in_one_line(pair):
    _, ((code, out, err), (killed, nothing, _)) = pair
    assert "best valid loss" in out
    assert [line for line in nothing.splitlines() if "Gloo" not in line and "peer" not in line] == []
    assert (code, killed) == (74, -signal.SIGKILL)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: the process on {socket.gethostname()} was killed, or lost another one of its run;")


def assert_close(ours: list[dict], theirs: list[dict]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-3)
