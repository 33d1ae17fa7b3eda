"""Experiment files: those that are shipped, by name, any other by its path; and what their fields mean."""

import ast
import importlib.util
import inspect
import io
import itertools
import runpy
import shlex
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

import igd_jax
from igd_jax.core.errors import InputError, place_of
from igd_jax.core.suggest import UnknownNameError

_PACKAGE = Path(igd_jax.__file__).resolve().parent
_INSTALLED = _PACKAGE / "_shipped" / "configs"
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"
"""Folder of the shipped experiments: of an installed package (see setup.py), or of a checkout."""
DEFAULTS = str(SHIPPED / "common.py")
"""Experiment file with all fields of a config."""
_EXPECTED = "expected an experiment like those of configs/"


def shipped() -> list[str]:
    """Names of the shipped experiments."""
    return sorted(path.stem for path in SHIPPED.glob("[!_]*.py") if str(path) != DEFAULTS)


def read_config(given: str, *, option: str = "config") -> ConfigDict:
    """The config of an experiment: ``NAME`` of a shipped one, or ``FILE.py``; either may end in ``:ARGUMENT``.

    Args:
      given: name or file, and the argument.
      option: name of the option that gave it, for messages.

    Raises:
      InputError: there is no such experiment, or its file fails, exits, or does not return a config.
    """
    path, _, argument = given.partition(":")
    file = _file_of(given)
    if not file.is_file():
        what = "file" if _is_path(path) else "shipped experiment"
        told = f"--{option}={given}: there is no such {what}; expected FILE.py or {', '.join(shipped())}"
        if meant := _meant(path, file):
            raise InputError(f"{told}; did you mean --{option}={given.replace(path, meant, 1)}?")
        raise UnknownNameError(told, path, shipped())
    _make_importable()
    try:
        if (get_config := runpy.run_path(str(file)).get("get_config")) is None:
            raise InputError(f"{path} has no get_config(); {_EXPECTED}")
        if ":" in given and not inspect.signature(get_config).parameters:
            raise InputError(f"--{option}={given}: this experiment takes nothing after a colon; give --{option}={path}")
        try:
            config = get_config(*[argument] if ":" in given else [])
        except ValueError as error:
            if file.parent == SHIPPED:  # which says what it expects after the colon
                raise InputError(f"--{option}={given}: {error}") from None
            raise
        if not isinstance(config, ConfigDict):
            raise InputError(f"{path}: get_config() returns {type(config).__name__} and no ConfigDict; {_EXPECTED}")
        return config
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        place = place_of(error, lambda code: code == str(file))
        at = f" line {place[1]}" if place else ""
        raise InputError(f"{path}{at}: {type(error).__name__}: {_said(error)}; {_EXPECTED}") from error


def _said(error: BaseException) -> str:
    """What an error says; that of an unknown field has another error inside, and each would put it into quotes."""
    said: object = error
    while isinstance(said, AttributeError | KeyError) and said.args:
        said = said.args[0]
    return " ".join(str(said).split())


def _meant(path: str, file: Path) -> str:
    """The experiment that was meant by a path without its ending, or by its path in a clone; empty if neither was."""
    if Path(f"{path}.py").is_file():
        return f"{path}.py"
    return file.stem if file.stem in shipped() else ""


def _file_of(given: str) -> Path:
    """The file of an experiment, which may be missing; see `read_config`."""
    path = given.partition(":")[0]
    return Path(path) if _is_path(path) else SHIPPED / f"{path}.py"


def _is_path(path: str) -> bool:
    return "/" in path or path.endswith(".py")


def _make_importable() -> None:
    """Let experiments import `configs.common`, whatever the current folder, and nothing else from there."""
    if "configs" not in sys.modules:
        spec = importlib.util.spec_from_file_location("configs", SHIPPED / "__init__.py")
        assert spec
        sys.modules["configs"] = importlib.util.module_from_spec(spec)


def described(config: ConfigDict, *given: str) -> Iterator[str]:
    """One line per field: the option that gives its value in the config, and the comment on it in the experiments.

    Args:
      config: the config.
      given: experiments as `read_config` takes them; what a later one says takes precedence.
    """
    sources = [_file_of(each).read_text(encoding="utf-8") for each in given]
    comments = {field: comment for source in sources for field, comment in _comments(source)}
    for section, fields in config.items():
        for name, value in fields.items():
            inner = value.items() if isinstance(value, ConfigDict) else [("", value)]
            for argument, each in inner:
                field = f"config.{section}.{name}" + (f".{argument}" if argument else "")
                text = ",".join(map(str, each)) if isinstance(each, tuple) else str(each)
                comment = f"  {comments[field]}" if field in comments else ""
                yield f"--{field}={shlex.quote(f'({text})' if isinstance(each, tuple) else text)}{comment}"


def _comments(source: str) -> Iterator[tuple[str, str]]:
    """Each ``config.SECTION.FIELD`` that is set, with the comment on its lines, and on comment lines below."""
    comments, alone = dict[int, str](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign):
            last = node.end_lineno or node.lineno
            found = [comments[line] for line in range(node.lineno, last + 1) if line in comments]
            further = itertools.takewhile(alone.__contains__, itertools.count(last + 1))
            found += [comments[line].removeprefix("# ") for line in further] if found else []
            if found:
                yield ast.unparse(node.targets[0]), " ".join(found)
