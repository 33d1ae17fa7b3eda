"""Paths that cannot be, as the value of every option that takes one: one line, and nothing is written anywhere."""

import shutil

import pytest
from command import ROOT, one_line, run_here

from igd_jax import doctor, evaluate, inspect, prepare, recommend, sweep, train

LONG = "x" * 300
LOOP = "loop"
UNDER_A_FILE = "file/below"

OPTIONS = {
    "train": (train, ["--workdir", "--config", "--config.data.dir", "--config.model.path", "--config.tokenizer.path"]),
    "train on": (train, ["--config.data.candidates"]),
    "evaluate": (evaluate, ["--workdir", "--decode_as", "--config.decode.candidates", "--config.decode.collaborative"]),
    "recommend": (recommend, ["--input", "--output"]),
    "prepare": (prepare, ["--input", "--output"]),
    "inspect": (inspect, ["--data", "--tokenizer", "--candidates"]),
    "sweep": (sweep, ["--output"]),
}
CASES = [(name, option) for name, (_, options) in OPTIONS.items() for option in options]
URL_CASES = [
    *(case for case in CASES if case[1] not in ("--config", "--decode_as")),
    *(("doctor", "--workdir"), ("train", "--config.decode.collaborative")),
]


BY_URL = ("--config.data.dir", "--config.model.path", "--config.tokenizer.path", "--data", "--tokenizer")
"""Options of folders that may be of an object store, but of no other."""


@pytest.fixture
def good(tiny, tmp_path, monkeypatch) -> dict[str, dict[str, str]]:
    """Good values of the options of each command, in a folder with the bad paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / LOOP).symlink_to(LOOP)
    (tmp_path / "file").write_text('{"history": ["A"]}\n', encoding="utf-8")
    experiment = {
        "--config": str(ROOT / "configs" / "igd.py"),
        "--config.data.dir": str(tiny / "data"),
        "--config.model.path": str(tiny / "model"),
    }
    run = {**experiment, "--workdir": "run"}
    return {
        "train": run,
        "train on": run,
        "evaluate": run,
        "recommend": {**run, "--input": "file", "--output": "answers"},
        "prepare": {"--source": "csv", "--input": "file", "--output": "data"},
        "inspect": {"--data": str(tiny / "data"), "--tokenizer": str(tiny / "model"), "--title": "A"},
        "sweep": {**experiment, "--output": "runs", "--grid": "train.seed=1"},
    }


@pytest.mark.parametrize("path", [LONG, LOOP, UNDER_A_FILE], ids=["long", "loop", "under a file"])
@pytest.mark.parametrize(("name", "option"), CASES, ids=["".join(case) for case in CASES])
def test_a_path_that_cannot_be(good, tmp_path, name, option, path):
    before = sorted(tmp_path.rglob("*"))
    done = run_here(OPTIONS[name][0], *(f"{key}={value}" for key, value in (good[name] | {option: path}).items()))
    assert done.code == 2, done.err
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 487
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "option"), URL_CASES, ids=["".join(case) for case in URL_CASES])
def test_a_url_is_no_path(good, tmp_path, name, option):
    before = sorted(tmp_path.rglob("*"))
    program = doctor if name == "doctor" else OPTIONS[name][0]
    url = "ftp://host/below" if option in BY_URL else "gs://bucket/below"
    given = good.get(name, {}) | {option: url}
    line = one_line(run_here(program, *(f"{key}={value}" for key, value in given.items())))
    shown = option[2:] if option.startswith("--config.") else option
    expected = "expected a folder, by path or by a URL of gs://, s3://, file://"
    if option not in BY_URL:
        expected = (
            "which is a URL; expected a path on this machine, such as one in the folder where the bucket is mounted"
        )
    assert line.startswith(f"error: {shown} is {url!r}")
    assert line.endswith(expected)
    assert sorted(tmp_path.rglob("*")) == before


EMPTY_CASES = [
    *(("train", "--workdir"), ("evaluate", "--workdir"), ("recommend", "--workdir"), ("doctor", "--workdir")),
    *(("sweep", "--output"), ("recommend", "--output"), ("recommend", "--input")),
]


@pytest.mark.parametrize(("name", "option"), EMPTY_CASES, ids=["".join(case) for case in EMPTY_CASES])
def test_an_empty_path_is_not_the_current_folder(good, tmp_path, name, option):
    before = sorted(tmp_path.rglob("*"))
    program = doctor if name == "doctor" else OPTIONS[name][0]
    done = run_here(program, *(f"{key}={value}" for key, value in (good.get(name, {}) | {option: ""}).items()))
    assert f"{option} is empty; expected a path" in one_line(done)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "option"), [("train", "--workdir"), ("evaluate", "--workdir"), ("sweep", "--output")])
def test_prepared_data_is_no_place_for_runs(good, tiny, tmp_path, name, option):
    shutil.copytree(tiny / "data", tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    given = good[name] | {"--config.data.dir": "data", option: "data"}
    line = one_line(run_here(OPTIONS[name][0], *(f"{key}={value}" for key, value in given.items())))
    assert f"{option} is " in line
    whose = "the runs" if name == "sweep" else "the run"
    assert f"wrote (meta.json is in it); name a folder for {whose} alone" in line
    assert sorted(tmp_path.rglob("*")) == before
