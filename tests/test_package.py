"""The package as it is installed: one command, shipped experiments by name, and help that fits a screen."""

import ast
import os
import re
import runpy
import sys

import pytest
from command import ROOT, one_line, run_here

import igd_jax
from configs import igd
from igd_jax import __main__ as igd_command
from igd_jax import train
from igd_jax.settings import experiments

SHIPPED = ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py") if path.stem != "common"))
COMMANDS = sorted(path.stem for path in (ROOT / "igd_jax").glob("[!_]*.py"))


@pytest.fixture
def start(monkeypatch, capsys):
    """Runs ``igd`` in this process, with recording in place of the program of a command; returns code and texts."""

    def started(*arguments: str):
        programs = []
        monkeypatch.setattr(sys, "argv", ["igd", *arguments])
        monkeypatch.setattr(runpy, "run_module", lambda module, **_: programs.append((module, sys.argv[1:])))
        try:
            igd_command.main()
            code = 0
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr(), programs

    return started


def test_one_command_starts_all_programs_with_their_options(start):
    for name in COMMANDS:
        assert start(name, "--workdir=RUN", "--help") == (0, "", "", [(f"igd_jax.{name}", ["--workdir=RUN", "--help"])])


def test_help_has_a_line_for_each_command_and_there_is_a_version(start):
    code, out, err, programs = start("--help")
    assert (code, err, programs) == (0, "", [])
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == COMMANDS
    assert max(map(len, out.splitlines())) <= 130
    assert start("--version") == (0, f"igd_jax {igd_jax.__version__}\n", "", [])


@pytest.mark.parametrize(("given", "told"), [(["trian"], "unknown command 'trian'"), ([], "no command")])
def test_any_other_command_is_bad_input(start, given, told):
    code, out, err, programs = start(*given)
    assert (code, out, programs) == (2, "", [])
    meant = "; did you mean 'train'?" if given else ""
    assert err == f"error: {told}; expected one of {', '.join(COMMANDS)}, such as: igd train --help{meant}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_fits_a_screen_and_has_three_examples(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    module = __import__(f"igd_jax.{name}", fromlist=["main"])
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", module.__doc__)
    done = run_here(module, "--help")
    assert done.code == 0, done.err
    assert len(re.findall(rf"^ *python -m igd_jax\.{name}\b", done.out, re.MULTILINE)) >= 3
    assert len(done.out.splitlines()) <= 50


def test_names_for_notebooks_are_listed():
    assert dir(igd_jax) == sorted(igd_jax.__all__)


def test_names_for_notebooks_have_their_types():
    """Type checkers read imports; a `__getattr__` that they saw would make any name one of type Any."""
    tree = ast.parse((ROOT / "igd_jax" / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {name.name: each.module.removeprefix("igd_jax.") for each in typed.body for name in each.names}
    assert found == igd_jax._MODULES
    assert not [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    assert igd_jax.Request.__name__ == "Request"


def test_help_names_the_options_of_several_processes():
    assert "--coordinator_address" in run_here(train, "--help").out


def test_the_reader_of_help_may_go():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as out:  # by lines
        done = run_here(train, "--help", out=out)
    assert (done.code, done.err) == (0, "")


def test_a_shipped_experiment_is_named_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "igd").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    assert experiments.read_config("igd:books") == igd.get_config("books")
    line = one_line(run_here(train, "--config=igd:nooks", "--workdir=run"))
    assert "configs/igd.py:nooks is unknown; expected one of books, " in line
    assert "config.data.dir is not set" in one_line(run_here(train, "--config=igd:books", "--workdir=run"))


def test_a_name_that_is_not_shipped():
    line = one_line(run_here(train, "--config=idg", "--workdir=run"))
    assert line.endswith(
        f"--config=idg: there is no such shipped experiment; expected FILE.py or {SHIPPED}; did you mean 'igd'?"
    )


def test_a_field_is_printed_with_the_value_that_is_given():
    done = run_here(train, "--config", "igd", "--help_config", "--config.train.learning_rate=1", "--workdir", "run")
    assert (done.code, done.err) == (0, "")
    assert "--config.train.learning_rate=1.0  # peak; " in done.out
    assert "no field train.lr" in one_line(run_here(train, "--help_config", "--config.train.lr=1"))


def test_every_field_of_a_config_is_printed_with_what_it_means():
    done = run_here(train, "--config=igd:games", "--help_config")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    config = igd.get_config("games")
    assert len(lines) == sum(len(config[section]) for section in config) - 1 + len(config.method.args)
    assert "--config.data.candidates=train  # items in the trie; also train (published), warm, cold, or " in done.out
    assert "--config.method.args.beta=0.2  # weight of tokens without information gain; 1 = plain SFT" in lines
    assert "--config.decode.search=jump  # beam by whole chains per call; " in done.out
    assert "of common beginnings (trees)" in done.out  # the second line of a comment
    assert "--config.eval.ks='(1,3,5,10)'  # cut-offs of " in done.out
    assert all("  # " in line for line in lines if not line.startswith("--config.method.args"))
