"""One process writes; another is told which one; a dead one is in nobody's way."""

import os
from pathlib import Path

import pytest
from holder import holding

from igd_jax.core import locks
from igd_jax.core.errors import InputError
from igd_jax.core.locks import locked


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``out``."""
    with holding(tmp_path / "out") as process:
        yield process


def test_another_process_is_refused_with_the_holder_in_one_line_until_it_is_dead(tmp_path, holder):
    host = os.uname().nodename
    with (
        pytest.raises(InputError, match=rf"out is being written by process {holder.pid} on {host}; wait for its end"),
        locked(tmp_path / "out"),
    ):
        pass
    with locked(tmp_path / "another"):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / ".out.lock").exists()  # a killed process removes nothing
    with locked(tmp_path / "out"):
        assert (tmp_path / ".out.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_with_its_holder_and_the_folders_made_for_it(tmp_path):
    with locked(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b" / ".out.lock").is_file()
        with locked(tmp_path / "a" / "b" / "out"):  # by the same process: nothing more
            pass
        assert (tmp_path / "a" / "b" / ".out.lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_an_error_and_not_tried_for_ever():
    with pytest.raises(FileNotFoundError), locked(Path("/proc/self/out")):
        pass


def test_what_stands_in_a_folder_made_for_a_lock_stays(tmp_path):
    with locked(tmp_path / "a" / "out"):
        (tmp_path / "a" / "out").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_one_folder_under_two_names_has_one_lock(tmp_path, holder):
    (tmp_path / "alias").symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match="is being written by process"), locked(tmp_path / "alias"):
        pass


def test_a_lock_that_its_holder_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    flock, file = locks.fcntl.flock, tmp_path / ".out.lock"

    def removed(descriptor, how):
        monkeypatch.undo()
        flock(descriptor, how)
        file.unlink()

    monkeypatch.setattr(locks.fcntl, "flock", removed)
    with locked(tmp_path / "out"):
        assert file.is_file()


def test_a_file_system_without_locks_is_told_once(tmp_path, monkeypatch, capsys):
    def unknown(*_):
        raise OSError(locks.errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", unknown)
    for _ in range(2):
        with locked(tmp_path / "out"):
            pass
    assert (
        capsys.readouterr().out == f"note: {tmp_path} is on a file system without locks; start one command at a time\n"
    )
