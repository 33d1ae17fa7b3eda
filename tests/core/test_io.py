"""Files are written whole or not at all; a run's folder has fixed names."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from igd_jax.core import io
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import (
    MARK,
    Workdir,
    append_lines,
    atomic_file,
    atomic_folder,
    check_name,
    is_leftover,
    owned,
    read_json,
    write_json,
    write_text,
)


def test_json_comes_back_as_it_was_written_and_can_be_read_by_eye(tmp_path):
    value = {"b": 1, "a": [1.5, None, "Löwe"]}
    write_json(tmp_path / "new" / "x.json", value)
    assert read_json(tmp_path / "new" / "x.json") == value
    assert (tmp_path / "new" / "x.json").read_text(encoding="utf-8").splitlines()[1] == '  "b": 1,'
    assert "Löwe" in (tmp_path / "new" / "x.json").read_text(encoding="utf-8")


def test_missing_and_broken_json_are_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"x\.json does not exist"):
        read_json(tmp_path / "x.json")
    for text in ('{"a": ', "[" * 100_000 + "]" * 100_000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json is not valid JSON"):
            read_json(tmp_path / "x.json")


def test_a_pipe_in_place_of_json_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"x\.json is not a file"):
        read_json(tmp_path / "x.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "x.txt", "new \ud800")  # half a surrogate pair cannot be written
    assert (tmp_path / "x.txt").read_text() == "old"


def test_a_write_that_fails_leaves_nothing_else(tmp_path):
    def fail():
        with atomic_file(tmp_path / "x.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_the_text_already_is_left_alone(tmp_path):
    write_text(tmp_path / "x.txt", "Löwe\n")
    before = (tmp_path / "x.txt").stat()
    write_text(tmp_path / "x.txt", "Löwe\n")
    assert (tmp_path / "x.txt").stat() == before


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.path.isdir(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    write_text(tmp_path / "x.txt", "x")
    assert done == [False, "named", True]


def test_what_a_killed_write_of_a_file_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    left, another = tmp_path / ".x.txt.0123abcd.partial", tmp_path / ".x.txt.bak.0123abcd.partial"
    left.write_text("half")
    another.write_text("of another file")
    with atomic_file(tmp_path / "x.txt") as partial:
        partial.write_text("first")
        write_text(tmp_path / "x.txt", "second")
        assert partial.read_text() == "first"
    assert (tmp_path / "x.txt").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"x.txt", another.name}


def test_lines_are_appended_behind_what_is_kept(tmp_path):
    path = tmp_path / "new" / "x.txt"
    append_lines(path, [])
    assert path.read_text() == ""
    append_lines(path, ["Löwe", "b"])
    append_lines(path, ["c"])
    assert path.read_text(encoding="utf-8") == "Löwe\nb\nc\n"
    append_lines(path, ["d"], keep=len("Löwe\n".encode()))
    assert path.read_text(encoding="utf-8") == "Löwe\nd\n"


def _fill(folder, text):
    with atomic_folder(folder) as partial:
        (partial / text).write_text(text)


def _names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    _fill(tmp_path / "out", "first")
    _fill(tmp_path / "out", "second")
    assert _names(tmp_path) == [MARK, "out", "second"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("had", [True, False])
def test_a_folder_that_is_not_finished_leaves_no_trace(tmp_path, error, had):
    if had:
        _fill(tmp_path / "out", "first")

    def fail():
        with atomic_folder(tmp_path / "out") as partial:
            (partial / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert _names(tmp_path) == ([MARK, "first", "out"] if had else [])


class Killed(BaseException):
    """Nothing is cleaned up after it."""


def _kill_at_rename(monkeypatch, number):
    """The process ends before a rename, counted from 1, and does nothing any more."""
    calls, replace = [], os.replace

    def count(*names):
        calls.append(names)
        if len(calls) >= number:
            monkeypatch.setattr(io.shutil, "rmtree", lambda *_, **__: None)
            raise Killed
        return replace(*names)

    monkeypatch.setattr(os, "replace", count)


def test_a_folder_whose_replacement_was_killed_is_put_back(tmp_path, monkeypatch):
    _fill(tmp_path / "out", "first")
    with monkeypatch.context() as patched:
        _kill_at_rename(patched, 3)  # after those of the mark and of the older folder
        with pytest.raises(Killed):
            _fill(tmp_path / "out", "second")
    assert not (tmp_path / "out").exists()
    with owned(tmp_path / "out"):
        assert (tmp_path / "out" / "first").is_file()
    assert _names(tmp_path) == [MARK, "first", "out"]


def test_what_a_killed_write_of_a_folder_left_is_removed(tmp_path, monkeypatch):
    _fill(tmp_path / "out", "first")
    with monkeypatch.context() as patched:
        _kill_at_rename(patched, 2)
        with pytest.raises(Killed):
            _fill(tmp_path / "out", "second")
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".out.0123abcd.partial").mkdir()  # killed at once
    (tmp_path / ".out.4567abcd.partial").mkdir()
    (tmp_path / ".out.4567abcd.partial" / "thesis.tex").write_text("mine")
    _fill(tmp_path / "out", "third")
    assert _names(tmp_path) == [MARK, ".out.4567abcd.partial", "out", "thesis.tex", "third"]


def test_a_rename_that_fails_leaves_the_older_folder(tmp_path, monkeypatch):
    _fill(tmp_path / "out", "first")
    replace = os.replace

    def fails(source, target):
        if target == tmp_path / "out" and str(source).endswith(".partial"):
            raise OSError(5, "Input/output error")
        return replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="Input/output"):
            _fill(tmp_path / "out", "second")
    assert _names(tmp_path) == [MARK, "first", "out"]


def test_neighbours_of_a_folder_are_left_alone_whatever_their_names(tmp_path):
    for name in ("out.partial", "out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    _fill(tmp_path / "out", "first")
    _fill(tmp_path / "out", "second")
    assert _names(tmp_path) == [MARK, "out", "out.old", "out.partial", "second", "thesis.tex", "thesis.tex"]


def _thesis(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")


def _ours_with_a_thesis(folder):
    _fill(folder, "first")
    (folder / "thesis.tex").write_text("mine")


def _link(folder):
    _fill(folder.with_name("elsewhere"), "first")
    folder.symlink_to(folder.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_thesis, "holds 'thesis.tex', which this program did not write"),
        (_ours_with_a_thesis, "holds 'thesis.tex', which this program did not write"),
        (lambda folder: folder.write_text("mine"), "is a file"),
        (_link, "is a symbolic link"),
    ],
)
def test_what_this_program_did_not_write_is_never_replaced(tmp_path, make, message):
    make(tmp_path / "out")
    before = _names(tmp_path)
    with pytest.raises(InputError, match=message):
        _fill(tmp_path / "out", "second")
    assert _names(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file/below/run cannot be made, as .*/file is not a folder to write to"):
        io.check_replaceable(tmp_path / "file" / "below" / "run")
    io.check_replaceable(tmp_path / "new" / "below")


def test_a_folder_has_the_permissions_of_any_new_folder(tmp_path):
    _fill(tmp_path / "out", "first")
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["test", "alpha=0.2,seed=1", "a-b_c.d", "x" * 100, "baseline.old"])
def test_a_plain_name_is_taken(name):
    check_name(name, option="--name")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".x", "...", "/home/me/thesis", "../checkpoints", "a/b", "a b", "x" * 101, "é", "a\n", "-x", "a\0"],
)
def test_a_name_that_is_no_plain_component_is_refused(name):
    with pytest.raises(InputError, match=r"--name is .*; expected the name of a folder to make"):
        check_name(name, option="--name")


@pytest.mark.parametrize("name", [".test.0123abcd.old", ".a.b.0123abcd.partial", ".a\nb.0123abcd.old"])
def test_what_a_killed_write_leaves_is_known_by_its_name(name):
    assert is_leftover(Path("eval", name))


@pytest.mark.parametrize("name", ["baseline.old", ".hidden", "a.0123abcd.old", ".a.0123abc.old", ".a.0123abcd.lock"])
def test_other_names_are_no_leftovers(name):
    assert not is_leftover(Path("eval", name))


def test_the_fingerprint_changes_with_parts_order_and_borders():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", "")]
    assert len({fingerprint(*each) for each in parts}) == len(parts)
    assert fingerprint("ab", b"c") == fingerprint(b"ab", "c") == "43ee655579de01ca"


def test_names_in_a_workdir_are_fixed_and_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = Workdir("runs/../one")
    assert workdir.path == tmp_path / "one"
    names = {
        "config": "config.json",
        "env": "env.json",
        "metrics": "metrics.jsonl",
        "tensorboard": "tb",
        "tokenizer": "tokenizer",
        "checkpoints": "checkpoints",
        "evaluations": "eval",
    }
    assert {name: getattr(workdir, name) for name in names} == {k: tmp_path / "one" / v for k, v in names.items()}
    assert workdir.eval("valid") == tmp_path / "one" / "eval" / "valid"


def test_the_environment_is_json_and_names_versions_and_devices():
    from igd_jax.core.environment import environment

    found = json.loads(json.dumps(environment()))
    assert found["packages"]["jax"]
    assert found["devices"] == ["cpu"] * 8
    assert found["backend"] == "cpu"


def test_the_commit_is_that_of_this_package_wherever_the_command_is_started(tmp_path, monkeypatch):
    from igd_jax.core import environment

    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org"]
    subprocess.run([*git, "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    here = environment.environment()["commit"]
    monkeypatch.chdir(tmp_path)
    assert environment.environment()["commit"] == here
    # A copy of the package inside another checkout, as in a virtual environment, has no commit of its own.
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    (tmp_path / "environment.py").touch()
    assert environment.environment()["commit"] is None
