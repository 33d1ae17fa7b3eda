"""The doctor names what is there, and what is wrong."""

from command import run_here, run_process

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
    assert wrong[1].startswith("WRONG  workdir: ")
    assert done.out.splitlines()[-1] == "2 thing(s) to fix"
