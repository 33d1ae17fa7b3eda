"""Damaged input of every kind ends well; the whole is ``python -m tests.fuzz --cases=10000``."""

import sys

import pytest

from tests.fuzz import __main__ as program
from tests.fuzz import fixtures
from tests.fuzz.pool import Worker, run
from tests.fuzz.targets import TARGETS


def test_20_cases_that_need_no_run(tmp_path):
    fixtures.make_without_run(tmp_path / "pristine")
    cases = [number for number in range(200) if "run" not in TARGETS[number % len(TARGETS)].needs][:20]
    ends = dict(run(cases, tmp_path, seed=0, n_workers=1))
    assert {number: end for number, end in ends.items() if end.faults} == {}
    assert {end.code for end in ends.values()} >= {0, 2}


@pytest.mark.slow
def test_100_cases(capsys):
    code = program.main(["--cases=100", "--workers=1"])
    assert code == 0, capsys.readouterr().out


def test_a_process_that_takes_too_long_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fuzz.pool.LIMIT", 0.0)
    worker = Worker(tmp_path, 0, seed=0)
    worker._command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    end = worker.answer(0)
    assert end.faults == ["hangs for 0 s"]
