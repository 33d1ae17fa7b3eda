"""Whether a process is alone, how it waits for others, and what it says in the end; two run in tests/test_pair.py."""

import socket
import subprocess
import sys
import threading

import pytest
from absl import flags
from command import ROOT

from igd_jax.core import meeting
from igd_jax.core.errors import InputError, Unreachable

CLUSTER_VARIABLES = (
    *("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "TPU_ML_PLATFORM", "TPU_SKIP_MDS_QUERY"),
    *("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "SLURM_GPUS_ON_NODE", "SLURM_STEP_TASKS_PER_NODE"),
)


@pytest.fixture
def options(monkeypatch):
    """What is found out from some environment and some flags."""

    def find(environment: dict[str, str], *given: str):
        for name in CLUSTER_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        own = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", own)
        for name, kind in (("coordinator_address", str), ("num_processes", int), ("process_id", int)):
            define = flags.DEFINE_string if kind is str else flags.DEFINE_integer
            define(name, None, "", flag_values=own)
        own(["train", *given])
        return meeting._options()

    return find


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "slurm"),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_ML_PLATFORM": "JAX"}, "gcetpu"),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, None),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "true", "TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
    ids=str,
)
def test_a_cluster_is_one_that_starts_several_processes(options, environment, method):
    assert options(environment) == (None if method is None else {"cluster_detection_method": method})


def test_a_slurm_step_has_a_task_per_gpu(options):
    step = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_GPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}
    assert options(step) == {"cluster_detection_method": "slurm"}
    few = step | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    with pytest.raises(InputError, match=r"Slurm starts 1 task\(s\) and gives 8 GPUs per host, .*--ntasks-per-node=8"):
        options(few)


def test_flags_take_precedence_over_the_cluster(options):
    inside = {"SLURM_STEP_NUM_TASKS": "4"}
    assert options(inside, "--num_processes=1") is None
    given = ("--coordinator_address=a:1234", "--num_processes=2", "--process_id=1")
    assert options(inside, *given) == {"coordinator_address": "a:1234", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["--num_processes=2", "--process_id=0"],
            "--coordinator_address is not set; give --coordinator_address, --num",
        ),
        (
            ["--coordinator_address=a", "--num_processes=2", "--process_id=0"],
            "--coordinator_address is 'a'; expected H",
        ),
        (
            ["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"],
            "--process_id is 2, but --num_processes",
        ),
    ],
)
def test_flags_that_do_not_fit_are_bad_input(options, given, told):
    with pytest.raises(InputError, match=told):
        options({}, *given)


def test_a_port_that_something_listens_to_is_bad_input(options):
    with socket.create_server(("", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"--coordinator_address is {address}, whose port cannot be opened on .*"):
            options({}, f"--coordinator_address={address}", "--num_processes=2", "--process_id=0")
        assert options({}, f"--coordinator_address={address}", "--num_processes=2", "--process_id=1")


def test_a_process_that_waits_long_says_for_whom(monkeypatch, capfd):
    monkeypatch.setattr(meeting, "LATE_SECONDS", 0.0)
    with meeting._told_if_late({"coordinator_address": "a:1", "num_processes": 2}):
        threading.Event().wait(0.2)
    assert "waits for all 2 processes at a:1, 5 minutes at most" in capfd.readouterr().err
    monkeypatch.setattr(meeting, "LATE_SECONDS", 60.0)
    with meeting._told_if_late({"cluster_detection_method": "slurm"}):
        pass
    assert capfd.readouterr().err == ""


# -------------------------------------------------------------------------------------------------------------- parting
def _after(first: Exception, error: Exception) -> Exception:
    error.__context__ = first
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:1"), 74, b"ended\n"),
        (RuntimeError("NCCL operation failed: No space left on device"), 74, b"ended\n"),
        (InputError("config.data.dir is 'Gloo'; expected a folder"), 2, b"ended\n"),
        (Unreachable("gs://x cannot be read now: UNAVAILABLE"), 74, b"ended\n"),
        (_after(OSError("UNAVAILABLE"), InputError("gs://x cannot be read")), 2, b"ended\n"),
        (SystemExit(143), 143, b"ended\n"),
    ],
)
def test_an_error_is_told_once_and_a_lost_process_with_what_the_library_says(
    monkeypatch, capsys, tmp_path, error, code, says
):
    ended = []

    def end(code: int) -> None:
        ended.append(code)
        raise KeyboardInterrupt  # nothing comes after it

    monkeypatch.setattr(meeting.os, "_exit", end)
    monkeypatch.setattr(meeting, "GRACE_SECONDS", 0.0)
    with (tmp_path / "last words").open("wb") as last_words, pytest.raises(KeyboardInterrupt):
        meeting._leave(error, last_words)
    assert (ended, (tmp_path / "last words").read_bytes()) == ([code], says)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (not isinstance(error, SystemExit))
    if code == 74 and not isinstance(error, Unreachable):
        assert "lost another one of its run; start the same command in all of them again" in lines[0]
        assert lines[0].endswith(f"({error})")


LIVE = """
import os, sys
from igd_jax.core.meeting import _last_words
with _last_words("start the same command in all of them again"):
    os.kill(os.getpid(), int(sys.argv[1])) if len(sys.argv) > 1 else None
"""


@pytest.mark.parametrize(
    ("arguments", "n_lines"),
    [
        pytest.param(["9"], 1, id="killed"),
        pytest.param(["6"], 1, id="aborted", marks=pytest.mark.slow),
        pytest.param([], 0, id="ended", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_killed_has_last_words(arguments, n_lines):
    done = subprocess.run([sys.executable, "-c", LIVE, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert bool(done.returncode) == bool(n_lines)
    lines = done.stderr.splitlines()
    assert len(lines) == n_lines
    assert all("start the same command in all of them again" in line for line in lines)
