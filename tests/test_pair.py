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
from pair import SPLIT, STEPS, STOPPED_AT
from runs import train_tiny, without_speed

from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluate import evaluate


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory) -> tuple[Path, list[tuple[int, str, str]]]:
    """What two processes left in a folder, and the exit code, output and errors of each."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("data", "model"):
        shutil.copytree(tiny / name, folder / name)
    train_tiny(folder, folder / "moved", STEPS | {"train.num_steps": 1})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "JAX_NUM_CPU_DEVICES": "4",
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
def test_two_processes_tune_adapters_of_quantised_weights_as_one(pair):
    folder, _ = pair
    train_tiny(folder, folder / "split alone", STEPS | SPLIT)
    two, one = (
        [(line["step"], line["loss"]) for line in without_speed(folder / name) if "loss" in line]
        for name in ("split", "split alone")
    )
    np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.slow
def test_a_process_with_another_config_is_named_in_all(pair):
    folder, _ = pair
    expected = f"process 1 on {socket.gethostname()} has 43 as config.train.seed, but others have 42; start the same"
    assert [read_json(folder / f"told {number}.json")["odd"][: len(expected)] for number in range(2)] == [expected] * 2
    assert not (folder / "new" / "odd").exists()


@pytest.mark.slow
def test_folders_that_processes_do_not_share_are_refused(pair):
    folder, _ = pair
    for number in range(2):
        told = read_json(folder / f"told {number}.json")["unshared"]
        here = socket.gethostname()
        assert told.startswith(f"process 1 on {here} does not see what process 0 on {here} writes to {folder}/of ")
    assert not list(folder.glob("of */.seen*"))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_the_same_step(pair):
    folder, _ = pair
    codes = [read_json(folder / f"told {number}.json")["code"] for number in range(2)]
    assert codes == [128 + signal.SIGTERM] * 2
    assert without_speed(folder / "moved")[-1]["step"] == STOPPED_AT


@pytest.mark.slow
def test_two_processes_recommend_as_one_which_restores_what_they_saved(pair):
    folder, _ = pair
    evaluate(tiny_run.tiny_config(folder, STEPS), Workdir(str(folder / "moved")), name="one")
    (two, metrics), (one, expected) = (read_written(folder / "moved", name) for name in ("two", "one"))
    assert titles_of(two) == titles_of(one)
    np.testing.assert_allclose(scores_of(two), scores_of(one), rtol=1e-4)
    assert metrics == expected


@pytest.mark.slow
def test_a_run_that_moves_from_one_process_to_two_and_back_is_that_of_one(pair):
    folder, _ = pair
    train_tiny(folder, folder / "moved", STEPS)
    train_tiny(folder, folder / "one", STEPS)
    moved = [line for line in without_speed(folder / "moved") if line["step"] > 1 or "loss" in line]  # of the first end
    for ours, theirs in zip(moved, without_speed(folder / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_only_the_first_process_talks_and_a_lost_process_ends_the_others_in_one_line(pair):
    _, ((code, out, err), (killed, nothing, _)) = pair
    assert f"terminated: saving step {STOPPED_AT}" in out
    assert [line for line in nothing.splitlines() if "Gloo" not in line and "peer" not in line] == []
    assert (code, killed) == (74, -signal.SIGKILL)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: the process on {socket.gethostname()} was killed, or lost another one of its run;")
