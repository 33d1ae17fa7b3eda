"""The doctor names what is there, and what is wrong."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from command import ROOT, run_here, run_process

from igd_jax import doctor as program


def test_a_sound_machine_is_told_so(tmp_path):
    done = run_process("doctor", f"--workdir={tmp_path / 'runs'}")
    assert (done.code, done.err) == (0, "")
    first, *checks, last = done.out.splitlines()
    assert "jax 0." in first
    assert "orbax-checkpoint 0." in first
    assert [line.split(":")[0] for line in checks] == [
        *("ok     devices", "ok     accelerator", "ok     compilation cache", "ok     sharded product"),
        "ok     workdir",
    ]
    assert "1 x cpu (cpu), 1 process(es)" in checks[0]
    assert last == "all is well"
    assert list(tmp_path.iterdir()) == []


def test_all_devices_are_counted_and_tried(tmp_path):
    done = run_here(program, f"--workdir={tmp_path}")
    assert "8 x cpu" in done.out
    assert "right on 8 device(s)" in done.out


def test_what_is_wrong_is_told_and_is_the_exit_code(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")

    def broken() -> str:
        raise RuntimeError("no driver: install one")

    monkeypatch.setattr(program, "check_sharded_product", broken)
    done = run_here(program, f"--workdir={tmp_path / 'file'}")
    assert done.code == 1
    wrong = [line for line in done.out.splitlines() if line.startswith("WRONG")]
    assert wrong[0] == "WRONG  sharded product: no driver: install one"
    assert wrong[1] == f"WRONG  workdir: {tmp_path / 'file'} is not a folder: name another one by --workdir"
    assert done.out.splitlines()[-1] == "2 thing(s) to fix"


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do():
    with pytest.raises(RuntimeError, match=r"^/proc cannot be written \(.*\): mend that, or name another folder by"):
        program.check_workdir(Path("/proc/new/run"))


def test_programs_of_a_recipe_are_looked_for_and_their_absence_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.check_recipe("tpu_pod") == [
        "lacks  tpu_pod: gcloud is not in PATH: https://cloud.google.com/sdk/docs/install",
        f"ok     tpu_pod: {tmp_path / 'git'}",
    ]
    done = run_here(program, f"--workdir={tmp_path}", "--recipe=sky")
    assert done.code == 0
    assert "lacks  sky: sky is not in PATH: pip install 'skypilot[gcp]', or another cloud's name" in done.out
    assert done.out.splitlines()[-1] == "all is well here, but sky lacks 1 program(s)"


def test_every_recipe_has_its_programs():
    scripts = {path.stem for path in (ROOT / "launch").glob("*.sh") if "recipe.sh" in path.read_text()}
    assert program.RECIPES.keys() == scripts - {"recipe", "tpu"}


def test_an_nvidia_driver_that_is_too_old_is_told_apart_from_a_missing_plugin(monkeypatch):
    monkeypatch.setattr(program, "_driver", lambda: "550.54.15")
    with pytest.raises(RuntimeError, match=r"jax runs on the CPU: run pip install -e '.\[cuda\]'"):
        program.check_accelerator()
    plugin = SimpleNamespace(name="jax_cuda13_plugin", version="0.10.2")
    monkeypatch.setattr(program, "distributions", lambda: [plugin])
    with pytest.raises(RuntimeError, match=r"the NVIDIA driver is 550.54.15, but jax-cuda13-plugin needs 580 or newer"):
        program.check_accelerator()
    monkeypatch.setattr(program, "_driver", lambda: "")
    assert program.check_accelerator().endswith("the CPU is in use, though there is jax-cuda13-plugin 0.10.2")


def test_what_pip_left_behind_has_no_name(monkeypatch):
    monkeypatch.setattr(program, "distributions", lambda: [SimpleNamespace(name=None, version=None)])
    monkeypatch.setattr(program, "_driver", lambda: "")
    assert program.check_accelerator().startswith("none found")
