"""Bad input ends in one line and exit code 2, never in a traceback."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from absl import app, flags, logging

from igd_jax.core.log import close_bars


class InputError(Exception):
    """What the user gave cannot be used. The message says what was given, what was expected, what to do."""


def _fail(error: BaseException) -> None:
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:  # of an experiment file: its own message is the last line
        text = text.splitlines()[-1]
    message = " ".join(text.split())
    close_bars()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def bad_flags_told() -> Iterator[None]:
    """Bad flags, unknown config fields and broken experiments are bad input like any other: one line, exit code 2."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        inner = error.args[0] if isinstance(error.args[0], KeyError) else error
        _fail(InputError(f"the config has no field {inner.args[0]}; configs/common.py lists them all"))
    except (flags.Error, ImportError, InputError, OSError, SyntaxError, TypeError, ValueError) as error:
        _fail(error)


def _parse_flags(argv: Sequence[str], *, positional: bool) -> list[str]:
    with bad_flags_told():
        if positional:
            flags.FLAGS.set_gnu_getopt()  # options may also stand after the arguments
        rest = flags.FLAGS(list(argv))
        if len(rest) > 1 and not positional:
            raise InputError(f"unexpected argument {rest[1]!r}: options are written --name=value")
    return rest


def run(main: Callable[..., None], *, positional: bool = False) -> None:
    """Run an entry point under absl: parse flags, call ``main()``, turn `InputError` into exit code 2.

    With `positional`, what is no option goes to ``main(arguments)`` as a list; without it, that is bad input.
    """

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # libraries tell each checkpoint in many lines
        try:
            if positional:
                main(argv[1:])
            else:
                main()
        except InputError as error:
            _fail(error)

    app.run(guarded, flags_parser=partial(_parse_flags, positional=positional))
