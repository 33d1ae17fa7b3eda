"""Values that nobody means: what the mutators put in the place of good ones."""

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator

NUMBERS = (
    *("-1", "0", "nan", "inf", "-inf", "-0.0", "1e-320", "1e308", "1e999", "0x10", "1_000", "1.5", "-2147483649"),
    *("2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "1" + "0" * 400),
)
TEXTS = (
    *("", " ", "None", "null", "true", "[]", "{}", "()", "[[[", '"', "'", ",", "a,b", "\\", "#", "%s", "{0}", "--"),
    *("é", "\u202edrawkcab", "\U0001f3b2", "\ud800", "\udcff", "\ufeff", "\u2028", "\x85", "\t", "\r\n", "\x1b[31mred"),
    *("\x07", "\x9b2J", "9999-12-31", "10000-01-01", "0000-00-00", "A" * 100_000, "word " * 5_000),
)
PATHS = (
    *(
        "",
        ".",
        "..",
        "nowhere",
        "../nowhere",
        "victim",
        "../victim",
        "victim/thesis.tex",
        "/dev/null",
        "/proc/self/mem",
    ),
    *(
        "a" * 255,
        "a" * 256,
        "a/" * 3_000,
        "loop",
        "é",
        "\udcff",
        "\x1b[31m",
        "a\nb",
        " ",
        "-",
        "-x",
        "a:b",
        "ftp://a/b",
    ),
    *("~", "*", "{}", "%s", "CON", "data/meta.json", "model/config.json", "run/eval", "pipe"),
)
"""`targets` puts a symlink loop, a pipe and a folder with somebody's work, the victim, into every case."""

JSON = (
    *(None, True, False, -1, 0, 1.5, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf")),
    *("", "nan", "a\x00b", "\ud800", "\x1b[31m", "../victim", "A" * 100_000, [], {}, [[]], [None], {"a": None}),
    *("loop", "a" * 256, {"": 0}, [0, "a"], {"content": 1}),
)
DEEP = "[" * 100_000 + "]" * 100_000
"""Deeper than a reader that calls itself can go."""
DIGITS = "9" * (2 * sys.get_int_max_str_digits())
"""More digits than Python reads."""
STATEMENTS = (
    *("raise ValueError('two\\nlines')", "raise KeyError('x')", "raise RuntimeError", "raise SystemExit(3)", "1 / 0"),
    *("import sys; sys.exit()", "import nowhere", "return 3", "return None", "return {}", "get_config = 3", "del x"),
    *("raise KeyboardInterrupt", "raise StopIteration", "assert False, 'A' * 100000", "return {'a': 1}", "if"),
    *("x = [x for x in [1]] * 3", "float('nan')", "2 ** 70", "'text'", "None", "(1, 2)", "{}", "[]", "{'a': {}}"),
)
"""Lines of Python for experiment files, which are the user's own code."""


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    """One of several, each as likely."""
    return options[int(rng.integers(len(options)))]
