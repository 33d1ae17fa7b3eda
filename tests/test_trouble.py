"""Trouble of the machine, and readers that go: one line and the documented code, and what is written stays whole."""

import contextlib
import os
import subprocess
import sys

import pytest
from command import ROOT, run_here

from igd_jax import doctor, evaluate, inspect, recommend
from igd_jax.session.answers import read_written

TITLE = "Red Fox (poster)"


@pytest.fixture
def without_reader():
    """Run an entry point whose standard output has lost its reader; returns how it ended."""

    def run(module, *arguments: str):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as stream:
            return run_here(module, *arguments, out=stream)

    return run


def test_an_evaluation_is_written_whoever_reads(trained, without_reader):
    done = without_reader(evaluate, f"--workdir={trained}", "--name=unread")
    assert (done.code, done.err) == (0, "")
    names = {path.name for path in (trained / "eval" / "unread").iterdir()}
    assert {"metrics.json", "predictions.jsonl", "config.json", "env.json"} <= names


def test_an_evaluation_is_written_before_it_is_told(trained, monkeypatch):
    told = []
    monkeypatch.setattr(
        evaluate, "evaluation_table", lambda *_, **_k: told.append((trained / "eval" / "first").is_dir())
    )
    with contextlib.suppress(TypeError):  # no table, nothing to print
        run_here(evaluate, f"--workdir={trained}", "--name=first")
    assert told == [True]


def test_answers_are_written_whoever_reads(trained, tmp_path, without_reader):
    (tmp_path / "asked.jsonl").write_text(f'{{"history": ["{TITLE}"]}}\n' * 3)
    files = [f"--input={tmp_path / 'asked.jsonl'}", f"--output={tmp_path / 'answers.jsonl'}"]
    done = without_reader(recommend, f"--workdir={trained}", *files)
    assert (done.code, done.err) == (0, "")
    assert read_written(tmp_path / "answers.jsonl").last == 3


@pytest.mark.parametrize("module", [doctor, inspect])
def test_commands_that_only_tell_end_well_when_nobody_reads(module, tiny, without_reader):
    arguments = {
        doctor: [f"--workdir={tiny}"],
        inspect: [f"--data={tiny / 'data'}", f"--tokenizer={tiny / 'model'}", f"--title={TITLE}"],
    }
    done = without_reader(module, *arguments[module])
    assert (done.code, done.err) == (0, "")


@pytest.mark.slow
def test_a_limit_on_files_ends_training_in_one_line(tiny, tmp_path):
    """In a process of its own: checkpoints are written in threads, which have their own way to tell of errors."""
    command = [
        *(sys.executable, "-m", "igd_jax.train", "--config=configs/sasrec.py", f"--config.data.dir={tiny / 'data'}"),
        *(f"--config.tokenizer.path={tiny / 'model'}", f"--workdir={tmp_path / 'run'}", "--config.mesh.data=1"),
        "--config.train.num_steps=1",
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "limited", *command]
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: File too large")
    assert "; raise the limit on the size of files (ulimit -f)" in line


def test_any_title_can_be_printed_under_any_locale(tiny):
    command = [
        *(sys.executable, "-m", "igd_jax.inspect", f"--data={tiny / 'data'}", f"--tokenizer={tiny / 'model'}"),
        *("--title=é", "--json"),
    ]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        r"error: '--title=\udcc3\udca9' is not text in the encoding of this system, ascii; set"
    )
