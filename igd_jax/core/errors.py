"""Errors as commands report them: one line, and an exit code that says who can fix the problem."""

import errno
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

from absl import app, flags, logging

from igd_jax.core.lines import escape_output, outliving_reader, visible
from igd_jax.core.log import close_bars
from igd_jax.core.shown import LONGEST_LINE, shortened

BAD_INPUT = 2
INTERNAL = 70
"""EX_SOFTWARE of sysexits.h."""
SYSTEM = 74
"""EX_IOERR."""
INTERRUPTED = 130
"""128 + SIGINT, as in shells."""

_SPACE = "free some space there, or name a folder on another disk"
_ALLOW = "allow it, or name another path"
_TROUBLE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "name a folder on a file system that can be written",
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or name a folder on another disk",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files",
    errno.ENOMEM: "use a machine with more memory",
    errno.EIO: "check the disk, or name a folder on another one",
}
"""Failures of the machine, and what to do about them."""
_OF_THE_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO),
}
"""Failures due to a given path."""
_BAD_VALUES = {
    r"\('Non-boolean argument to boolean flag', .*\)": "true or false",
    r"invalid literal for int\(\) with base 10: .*": "a whole number",
    r"could not convert string to float: .*": "a number",
}
"""What libraries say of the value of a flag, and what was expected."""
_NUMBER = re.compile(r"\bos[ _]error(?:[ _]code)?[ =:']*(\d+)", re.IGNORECASE)
"""System error numbers in messages of libraries written in Rust and C++."""
_ABOVE = os.path.abspath(__file__).removesuffix("igd_jax/core/errors.py")
"""Folder that holds the package."""
_LIBRARIES = re.compile(r"$|<|.*/lib(64)?/python3[^/]*/")
"""Files of code of libraries, also of Python's own, and names of code without a file."""


class InputError(Exception):
    """Unusable input. The message says what was given, what was expected, and what to do."""


class Unreachable(OSError):
    """No network, or nobody who answers there. The message says who was asked."""


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error. Failures of the machine take precedence, however libraries wrapped them."""
    causes = list(behind(error))
    if any(isinstance(each, KeyboardInterrupt) for each in causes):
        return INTERRUPTED, "interrupted"
    for each in causes:
        if (number := _number_of(each)) in _TROUBLE:
            where = f": {each.filename}" if isinstance(each, OSError) and each.filename else ""
            return SYSTEM, f"{os.strerror(number)}{where}; {_TROUBLE[number]}, and start the same command again"
        # A store says so of a quota.
        is_full = "RESOURCE_EXHAUSTED" in _said_by_library(each) and not isinstance(each, OSError)
        if isinstance(each, MemoryError) or is_full:
            told = f" ({first_line(each)})" if str(each) else ""
            return SYSTEM, f"out of memory{told}; {_less_memory()}"
    if isinstance(error, InputError):
        return BAD_INPUT, str(error)
    if isinstance(error, Unreachable):
        return SYSTEM, f"{error}; check the network and the login, and start the same command again"
    if isinstance(error, OSError) and error.errno in _OF_THE_PATH:
        return BAD_INPUT, f"{error.strerror}: {shortened(str(error.filename), 300)}; name another path"
    if isinstance(error, OSError):
        return SYSTEM, f"{type(error).__name__}: {error}; mend it, and start the same command again"
    place = place_of(error, _is_no_library)
    at = f" at {shortened(place[0].removeprefix(_ABOVE))}:{place[1]}" if place else ""
    return INTERNAL, (
        f"internal error ({type(error).__name__}: {first_line(error)}{at}): not a fault of what was given; "
        "--traceback shows all, for a report"
    )


def place_of(error: BaseException, is_own: Callable[[str], bool]) -> tuple[str, int] | None:
    """File and line of the innermost code on the way to an error whose file `is_own`; None if there is none."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno or 0))
    return next((place for place in reversed(places) if is_own(place[0])), None)


def _is_no_library(file: str) -> bool:
    """Whether a file of code is of igd_jax, or of its user."""
    return file.startswith(f"{_ABOVE}igd_jax/") or not _LIBRARIES.match(file)


def behind(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the members of groups."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [other for other in (each.__cause__, each.__context__, *parts) if other is not None]


def _number_of(error: BaseException) -> int | None:
    """System error number of an error; None if it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(_said_by_library(error))
    return int(found[1]) if found else None


def _said_by_library(error: BaseException) -> str:
    """Message of an error that is not ours: ours quote anything, and may take a second to make (`core.suggest`)."""
    return "" if isinstance(error, InputError) else str(error)


def first_line(error: BaseException) -> str:
    """What the first line of an error's message says, shortened."""
    return shortened(str(error).strip().partition("\n")[0], 200)


def _less_memory() -> str:
    if "config" not in flags.FLAGS:
        return "use a machine with more"
    return (
        "lower config.train.micro_batch_size or config.decode.batch_size, set config.model.remat=full or "
        "config.train.show_sample=False, or use a machine or device with more"
    )


def end(error: BaseException, message: str = "") -> NoReturn:
    """Print the message of an error and exit, as `report` says."""
    sys.exit(report(error, message))


def report(error: BaseException, message: str = "", *, code: int = BAD_INPUT) -> int:
    """Print the message of an error; returns the exit code. Both are as `explain` says.

    Args:
      error: the error.
      message: message to print instead, for what a library reports by an exception of its own.
      code: exit code that belongs to this message.
    """
    code, line = (code, message) if message else explain(error)
    close_bars()
    with outliving_reader(sys.stderr):
        if _shows_traceback():
            traceback.print_exception(error)
        print("error:", shortened(visible(" ".join(line.split())), LONGEST_LINE), file=sys.stderr, flush=True)
    return code


def _shows_traceback() -> bool:
    """Whether ``--traceback`` is given; also before options are parsed."""
    return "--traceback" in sys.argv[1:]


@contextmanager
def bad_flags_told() -> Iterator[None]:
    """Report bad flags and unknown config fields as bad input, whichever exceptions the libraries raise."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        inner = error.args[0] if isinstance(error.args[0], KeyError) else error
        end(error, f"the config has no field {inner.args[0]}; --help_config lists them all")
    except flags.UnrecognizedFlagError as error:
        end(error, _of_unknown_flag(error.flagname))
    except (flags.Error, TypeError, ValueError) as error:
        end(error, _of_bad_flag(str(error)))
    except (Exception, KeyboardInterrupt) as error:
        end(error)


def _of_unknown_flag(name: str) -> str:
    from igd_jax.core.suggest import did_you_mean  # which imports this module

    if "." in name and "config" in flags.FLAGS:
        return f"--{name} is not an option; fields of the config are given by --config.SECTION.FIELD=VALUE"
    known = [each for each in flags.FLAGS if "." not in each]
    fields = " or ".join(_fields_called(name))
    meant = f"; did you mean {fields}?" if fields else did_you_mean(name, known)
    return f"--{name} is not an option of this command; --help lists them{meant}"


def _fields_called(name: str) -> list[str]:
    """Options for the fields of the config that have this name, or whose names end in ``_`` and it."""
    config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    sections = {name: each for name, each in (config or {}).items() if hasattr(each, "keys")}
    fields = ((section, field) for section, fields in sections.items() for field in fields)
    return [f"--config.{section}.{field}" for section, field in fields if f"_{field}".endswith(f"_{name}")]


def _of_bad_flag(message: str) -> str:
    """A message of absl about the value of a flag, in our words if there are some."""
    if missing := re.fullmatch(r"flag --(\w+)=None: Flag --\1 must have a value other than None\.", message):
        means = (flags.FLAGS[missing[1]].help or "").partition(";")[0].rstrip(".").removeprefix("The ")
        return f"--{missing[1]} is missing; expected the {means[:1].lower()}{means[1:]}"
    for pattern, expected in _BAD_VALUES.items():
        if found := re.fullmatch(rf"flag (--[^=]+)=(.*): {pattern}", message, re.DOTALL):
            return f"{found[1]} is {found[2]!r}; expected {expected}"
    return message


def _check_encoding(argv: Sequence[str]) -> None:
    """Raise `InputError` unless all arguments are valid text, which can be written to files."""
    for word in argv:
        if re.search("[\ud800-\udfff]", word):
            raise InputError(
                f"{word!r} is not text in the encoding of this system, {sys.getfilesystemencoding()}; set PYTHONUTF8=1 "
                "or write it in UTF-8"
            )


def _parse_flags(argv: Sequence[str], *, positional: bool) -> list[str]:
    with bad_flags_told():
        _check_encoding(argv)
        if positional:
            flags.FLAGS.set_gnu_getopt()  # options may also stand after the arguments
        try:
            rest = flags.FLAGS(list(argv))
        except (SystemExit, BrokenPipeError):  # absl's --help exits with code 1, or loses its reader
            sys.exit(0)
        if len(rest) > 1 and not positional:
            raise InputError(f"unexpected argument {rest[1]!r}: options are written --name=value")
    return rest


def _quieten_libraries() -> None:
    """Silence reports of errors in library threads and of a full cache; errors that matter are raised elsewhere."""
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")


def run(main: Callable[..., None], *, positional: bool = False) -> None:
    """Run an entry point under absl: parse flags, call ``main()``, and report every error as `explain` says.

    Args:
      main: the entry point.
      positional: whether arguments that are not options are passed to ``main(arguments)``; otherwise, they are bad
        input.
    """

    def called(argv: list[str]) -> None:
        logging.set_verbosity(logging.ERROR if _shows_traceback() else logging.FATAL)  # the default logs checkpoints
        if positional:
            main(argv[1:])
        else:
            main()

    escape_output()
    if not _shows_traceback():
        _quieten_libraries()
    if "traceback" not in flags.FLAGS:
        flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error.", module_name=sys.argv[0])
    try:
        app.run(called, flags_parser=partial(_parse_flags, positional=positional))
    except SystemExit:
        raise
    except BaseException as error:  # including panics of libraries written in Rust
        end(error)
    finally:
        with outliving_reader(sys.stdout, OSError):  # `say` flushes its lines; the rest is absl's output
            print(end="", flush=True)
