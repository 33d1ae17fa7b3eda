"""Bad input ends in one line and exit code 2; a fault of the program keeps its traceback."""

import contextlib
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from igd_jax.core.errors import InputError, bad_flags_told, run


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a main function as a program with the option --size; returns exit code and standard error."""
    before = set(flags.FLAGS)
    flags.DEFINE_integer("size", 1, "A number.")

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


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    with contextlib.redirect_stderr(None), pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    flags.FLAGS.unparse_flags()


def test_arguments_may_stand_before_options(command):
    got = []
    command(lambda arguments: got.append((arguments, flags.FLAGS.size)), "a", "--size=2", "b", positional=True)
    assert got == [(["a", "b"], 2)]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections
def test_the_message_of_an_experiment_file_is_kept_without_its_traceback(command, tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("def get_config():\n    raise ValueError('no such thing; expected another')\n")
    config_flags.DEFINE_config_file("config")
    code, err = command(lambda: pytest.fail("ran"), f"--config={path}")
    assert (code, err) == (2, "error: ValueError: no such thing; expected another\n")


def test_an_unknown_config_field_is_named(capsys):
    with pytest.raises(SystemExit) as caught, bad_flags_told():
        raise KeyError('"alhpa"\nDid you mean "alpha"?')
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: the config has no field "alhpa" Did you mean "alpha"?; ')
