"""Entry points as a user starts them: in a process of their own, or, many times faster, in this one."""

import contextlib
import inspect
import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TextIO
from unittest import mock

from absl import app, flags

from igd_jax.core import errors

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int | None
    out: str
    err: str


@contextlib.contextmanager
def own_flags() -> Iterator[None]:
    """Forget the flags that are defined inside the block: all programs of a test process share them."""
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def run_here(module: ModuleType, *arguments: str, out: TextIO | None = None) -> Done:
    """Run an entry point in this process, with flags of its own, as if typed on the command line.

    Args:
      out: where standard output goes; None = into the result.
    """
    app.define_help_flags()  # which absl does once per process
    printed, err = io.StringIO(), io.StringIO()
    code: int | str | None = None
    with (
        mock.patch.object(sys, "argv", [module.__name__, *arguments]),
        mock.patch.object(sys, "unraisablehook"),  # which a command replaces
        mock.patch.object(threading, "excepthook"),
        contextlib.redirect_stdout(out or printed),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        own_flags(),
    ):
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)  # ml_collections
        try:
            module.define_flags()
            errors.run(module.main, positional=bool(inspect.signature(module.main).parameters))
        except SystemExit as exit:
            code = exit.code
    return Done(code or 0, printed.getvalue(), err.getvalue())


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``python -m igd_jax.MODULE`` in the project's root, on one CPU device."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", f"igd_jax.{module}", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_process(module: str, *arguments: str) -> Done:
    """Run it to its end."""
    with start(module, *arguments) as process:
        out, err = process.communicate()
    return Done(process.returncode, out, err)


def one_line(done: Done) -> str:
    """The one line of a command that ended because of bad input."""
    assert done.code == 2, done.out
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= len("error: ") + 480
    return line
