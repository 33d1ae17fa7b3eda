"""Whatever goes wrong ends in one line and an exit code that says whose turn it is; --traceback shows all of it."""

import errno
import json
import re
import sys
import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import app, flags
from command import run_here

from igd_jax.core import suggest
from igd_jax.core.errors import InputError, Unreachable, bad_flags_told, explain, run
from igd_jax.core.ragged import Ragged


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a main function as a program with the option --size; returns exit code and standard error."""
    app.define_help_flags()  # which absl does once per process
    before = set(flags.FLAGS)
    flags.DEFINE_integer("size", 1, "A number.")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which a command replaces
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def start(main, *arguments, **options):
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(main, **options)
        return caught.value.code, capsys.readouterr().err

    yield start
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    flags.FLAGS.set_gnu_getopt(False)


def _fail(error):
    raise error


def test_bad_input_is_one_line_and_exit_code_two(command):
    code, err = command(lambda: _fail(InputError("first\n  second\n\nthird")))
    assert (code, err) == (2, "error: first second third\n")


def test_a_good_end_is_exit_code_zero_and_silent(command):
    sizes = []
    code, err = command(lambda: sizes.append(flags.FLAGS.size), "--size=3")
    assert (code or 0, err, sizes) == (0, "", [3])


@pytest.mark.parametrize("argument", ["--syze=3", "--size=many", "left-over"])
def test_bad_options_are_told_before_anything_runs(command, argument):
    code, err = command(lambda: pytest.fail("ran"), argument)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert argument.strip("-").split("=")[0] in line


@pytest.mark.parametrize("option", ["--help", "--helpshort", "--helpfull", "-?"])
def test_help_is_a_good_end_and_goes_to_standard_output(option):
    module = types.ModuleType("program", "A program.")
    module.define_flags, module.main = lambda: None, lambda: pytest.fail("ran")
    done = run_here(module, option)
    assert (done.code, done.err) == (0, "")
    assert "--[no]traceback" in done.out


def _divide():
    return 1 / 0


def test_a_fault_of_the_program_is_told_with_its_place(command):
    code, err = command(_divide)
    assert code == 70
    assert err.startswith("error: internal error (ZeroDivisionError: division by zero at ")
    line = _divide.__code__.co_firstlineno + 1
    told = f"test_errors.py:{line}): not a fault of what was given; --traceback shows all, for a report\n"
    assert err.endswith(told)
    assert len(err.splitlines()) == 1


def _in_a_library():
    jax.eval_shape(lambda: json.loads("{"))


def test_the_place_of_a_fault_is_in_no_library():
    _, told = explain(_raised(_in_a_library))
    assert f"test_errors.py:{_in_a_library.__code__.co_firstlineno + 1}): not a fault" in told
    _, told = explain(_raised(lambda: Ragged.from_lists([[1]]).take(np.array([5]))))
    assert re.search(r" at igd_jax/core/ragged.py:\d+\): not a fault", told)


def test_the_place_of_a_fault_that_no_code_can_be_read_from():
    assert "internal error (ValueError: x): not a fault" in explain(ValueError("x"))[1]
    _, told = explain(_raised(lambda: compile("x = (", "own/method.py", "exec")))
    assert " at own/method.py:1): not a fault" in told


def test_the_whole_traceback_is_shown_on_demand(command):
    code, err = command(lambda: 1 / 0, "--traceback")
    assert code == 70
    first, *_, last = err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.startswith("error: internal error (ZeroDivisionError: division by zero at ")


def test_an_interrupt_is_told_in_a_word(command):
    assert command(lambda: _fail(KeyboardInterrupt())) == (130, "error: interrupted\n")


def test_a_long_message_loses_its_middle(command):
    code, err = command(lambda: _fail(InputError(f"the cell {'x' * 100_000} is not a number; mend it")))
    assert code == 2
    assert len(err) <= len("error: \n") + 480
    assert err.startswith("error: the cell xxx")
    assert err.endswith("xxx is not a number; mend it\n")


def test_what_a_terminal_would_obey_is_spelt_out(command):
    _, err = command(lambda: _fail(InputError("the title 'a\x1b[2Jb\x9b\u202ec' is empty")))
    assert err == "error: the title 'a\\u001b[2Jb\\u009b\\u202ec' is empty\n"


def test_an_argument_that_is_no_text_is_bad_input(command):
    code, err = command(lambda: pytest.fail("ran"), "--size=\udcc3")
    assert code == 2
    assert err.startswith("error: '--size=\\udcc3' is not text in the encoding of this system, utf-8; set PYTHONUTF8=1")


def _raised(make) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        make()
    return caught.value


def _told_as_bad_input(error: BaseException) -> None:
    try:
        raise error
    except type(error):
        raise InputError("x.safetensors is damaged; download it again") from None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full", "/data/x"), "No space left on device: /data/x; free some space there"),
        (OSError(errno.EROFS, "read-only", "/data/x"), "Read-only file system: /data/x; name a folder on"),
        (PermissionError(errno.EACCES, "no", "/data/x"), "Permission denied: /data/x; allow it, or name another path"),
        (OSError(errno.EFBIG, "big"), "File too large; raise the limit on the size of files (ulimit -f)"),
        (OSError(errno.EMFILE, "many", "/data/x"), "Too many open files: /data/x; raise the limit on open files"),
        (ValueError("OUT_OF_RANGE: Failed to write 9 bytes [os_error_code='27']"), "File too large; raise the limit"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device; free some"),
        (ExceptionGroup("threads", [OSError(errno.ENOSPC, "full")]), "No space left on device; free some space"),
        (MemoryError(), "out of memory; use a machine with more"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "out of memory (RESOURCE_EXHAUSTED: "),
        (Unreachable("gs://x: RESOURCE_EXHAUSTED, quota"), "gs://x: RESOURCE_EXHAUSTED, quota; check the network"),
        (ConnectionError("the Hub does not answer"), "ConnectionError: the Hub does not answer; mend it, and start"),
    ],
)
def test_trouble_of_the_machine_is_no_fault_of_the_input(error, message):
    code, told = explain(error)
    assert code == 74
    assert told.startswith(message)


def test_numpy_tells_how_much_memory_it_lacked():
    code, told = explain(_raised(lambda: np.empty(2**58)))
    assert code == 74
    assert told.startswith("out of memory (Unable to allocate ")


def test_trouble_of_the_machine_is_told_whatever_was_made_of_it():
    full = OSError(errno.ENOSPC, "full", "/data/x")
    code, told = explain(_raised(lambda: _told_as_bad_input(full)))
    assert (code, told[:33]) == (74, "No space left on device: /data/x;")
    assert explain(_raised(lambda: _told_as_bad_input(FileNotFoundError(errno.ENOENT, "none"))))[0] == 2


@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED", "os error 28"])
def test_bad_input_may_quote_what_libraries_say_of_the_machine(name):
    assert explain(InputError(f"'{name}' is not a title")) == (2, f"'{name}' is not a title")


def test_what_may_be_meant_is_looked_for_once(monkeypatch):
    """A look through a large catalogue takes a second."""
    asked = []
    monkeypatch.setattr(suggest, "did_you_mean", lambda given, _: asked.append(given) or "; did you mean 'y'?")
    assert explain(suggest.UnknownNameError("no 'x'", "x", ["y"])) == (2, "no 'x'; did you mean 'y'?")
    assert asked == ["x"]


def test_what_to_lower_is_told_where_a_config_says_it():
    flags.DEFINE_string("config", None, "Stands for a config.")
    try:
        _, told = explain(MemoryError())
    finally:
        delattr(flags.FLAGS, "config")
    assert "lower config.train.micro_batch_size or config.decode.batch_size, set config.model.remat=full or" in told
    assert "config.train.show_sample=False" in told


def test_a_path_that_cannot_be_is_bad_input(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    cases = {"x" * 300: "File name too long", "loop": "Too many levels of symbolic links", "file/x": "Not a directory"}
    for name, message in cases.items():
        code, told = explain(_raised(Path(tmp_path, name).read_text))
        assert (code, told.split(":")[0]) == (2, message)
        assert told.endswith("; name another path")


def test_arguments_may_stand_before_options(command):
    got = []
    command(lambda arguments: got.append((arguments, flags.FLAGS.size)), "a", "--size=2", "b", positional=True)
    assert got == [(["a", "b"], 2)]


def test_an_unknown_config_field_is_named(capsys):
    with pytest.raises(SystemExit) as caught, bad_flags_told():
        raise KeyError('"alhpa"\nDid you mean "alpha"?')
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: the config has no field "alhpa" Did you mean "alpha"?; ')
