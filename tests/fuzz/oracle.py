"""What may come of a case: success, or one line and a documented exit code, and nothing lost, left or changed."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from tests.command import Done
from tests.fuzz.mutators import MOVED

LONGEST = 500
"""Characters of a message."""
CODES = (2, 74, 130)
"""Exit codes of refusals: bad input, trouble of the system, interrupted. An internal error is a finding."""
SECONDS = 20.0
"""Of CPU, within which a command has to end."""

SCRATCH = (".partial", ".old", ".lock", ".tmp")
"""Endings of names that are gone when a command ends."""

Files: TypeAlias = dict[str, str]
"""What lies where in a folder: by path, the kind of file, and of a file or link what it holds."""


def seen(folder: Path) -> Files:
    """All that lies in a folder; links are not followed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            found[os.path.relpath(path, folder)] = _what(path)
    return found


def _what(path: str) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISREG(mode):
        return f"file {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return "folder" if stat.S_ISDIR(mode) else "other"


def of_the_message(done: Done) -> list[str]:
    """What is wrong with the exit code and with what was printed."""
    found = []
    if done.code not in (0, *CODES):
        found.append(f"exit code {done.code}: {done.err[:200]!a}")
    lines = done.err.splitlines()
    if done.code and (len(lines) != 1 or not lines[0].startswith("error: ")):
        found.append(f"{len(lines)} lines of error")
    if any(len(line) >= LONGEST for line in lines):
        found.append(f"a line of error with {max(map(len, lines))} characters")
    for where, text in (("output", done.out), ("error", done.err)):
        if signs := sorted(
            {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t"}
        ):
            found.append(f"{where} with the signs {signs!r}")
    return found


def of_the_files(before: Files, after: Files, *, is_success: bool, writes: Iterable[str], anywhere: bool) -> list[str]:
    """What is wrong with the files afterwards.

    Args:
      writes: paths, as in `before`, where a success may change anything.
      anywhere: whether a success may make new files in other places, too.
    """

    def is_free(path: str) -> bool:
        path = path.replace(MOVED, "")  # what is written through a link is written where it was to be
        return is_success and any(path == each or path.startswith(each + "/") for each in writes)

    def may_be_made(path: str) -> bool:
        if Path(path).suffix in SCRATCH:
            return False
        if "/run/cache/" in path or "/data.tokens/" in f"{path}/":  # a cache is of use to the next start, too
            return True
        return is_free(path) or (is_success and (anywhere or any(each.startswith(path + "/") for each in writes)))

    found = [
        f"{path} is {'changed' if path in after else 'gone'}"
        for path in before
        if after.get(path) != before[path] and not is_free(path)
    ]
    found += [f"{path} is left behind" for path in after if path not in before and not may_be_made(path)]
    return found[:3]


def of_the_result(expected: Mapping[str, str], found: Mapping[str, str], printed: str) -> list[str]:
    """Results that are others than without the damage, of which the command says nothing."""
    if "passed over: it is" in printed or "starting from step 0" in printed:
        return []
    return [f"a silent change of {name}" for name, text in expected.items() if found.get(name) != text]
