"""Seeded damage to files and folders. Each mutator changes what lies at a path and says in a few words what it did.

A mutator takes the random numbers and the path; `damage` chooses the mutators that suit a file by its ending.
"""

import gzip
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from tests.fuzz import values
from tests.fuzz.structure import damage_json, damage_json_lines, damage_table, damage_tensors
from tests.fuzz.values import Rng, pick

Mutator: TypeAlias = Callable[[Rng, Path], str]


def damage(rng: Rng, path: Path) -> str:
    """Damage a file by a mutator that suits it, or a folder as a whole."""
    families = [damage_place]
    if path.is_file() and not path.is_symlink():
        families += [damage_bytes, damage_bytes, *_FAMILIES.get(path.suffix, [])]
    return pick(rng, families)(rng, path)


# -------------------------------------------------------------------------------------------------------------- options
def change_options(rng: Rng, arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> list[str]:
    """Give one or two of the options another value, or none, or twice, or misspelt, or a bare word beside them."""
    found = list(arguments)
    for _ in range(pick(rng, (1, 1, 1, 2))):
        name = pick(rng, list(options))
        value = pick(rng, options[name])
        what = pick(rng, ("changed",) * 20 + ("left out", "without value", "twice", "misspelt", "apart", "bare"))
        if what in ("changed", "left out", "apart"):
            found = [each for each in found if not each.startswith(f"--{name}=")]
        given = {"left out": [], "without value": [f"--{name}"], "apart": [f"--{name}", value], "bare": [value]}
        found += given.get(what, [f"--{name}{'x' if what == 'misspelt' else ''}={value}"])
    return found


# ---------------------------------------------------------------------------------------------------------------- bytes
def damage_bytes(rng: Rng, path: Path) -> str:
    """Flip, cut, insert, repeat, blank or leave out bytes."""
    data = path.read_bytes()
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    end = min(end, start + 200)
    changes = {
        "a bit flipped": lambda: _flipped(rng, data),
        "cut short": lambda: data[:start],
        "emptied": lambda: b"",
        "a NUL put in": lambda: data[:start] + b"\0" + data[start:],
        "random bytes put in": lambda: data[:start] + rng.bytes(20) + data[start:],
        "bytes repeated": lambda: data[:end] + data[start:],
        "bytes left out": lambda: data[:start] + data[end:],
        "bytes blanked": lambda: data[:start] + bytes(end - start) + data[end:],
        "the whole repeated": lambda: data + data,
        "random bytes alone": lambda: rng.bytes(len(data)),
    }
    what = pick(rng, list(changes))
    path.write_bytes(changes[what]())
    return f"{what} ({start} to {end} of {len(data)})"


def _flipped(rng: Rng, data: bytes) -> bytes:
    found = bytearray(data)
    if found:
        found[int(rng.integers(len(found)))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def damage_packed(rng: Rng, path: Path) -> str:
    """Damage what a gzip file holds, and pack it again."""
    path.write_bytes(gzip.decompress(path.read_bytes()))
    told = pick(rng, (damage_text, damage_json_lines, damage_bytes))(rng, path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return f"inside, {told}"


# ----------------------------------------------------------------------------------------------------------------- text
def damage_text(rng: Rng, path: Path) -> str:
    """Another encoding, a line more or less, or another word in a line."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = text.splitlines(keepends=True) or [""]
    at = int(rng.integers(len(lines)))
    line = lines[at]
    changes = {
        "in latin-1": lambda: ("é" + text).encode("latin-1", "replace"),
        "in UTF-16": lambda: text.encode("utf-16", "surrogatepass"),
        "with a BOM": lambda: b"\xef\xbb\xbf" + text.encode("utf-8", "surrogateescape"),
        "with CRLF": lambda: text.replace("\n", "\r\n"),
        "a line left out": lambda: [*lines[:at], *lines[at + 1 :]],
        "a line repeated": lambda: [*lines[: at + 1], *lines[at:]],
        "only the first line": lambda: lines[:1],
        "a quote put in": lambda: [*lines[:at], '"' + line, *lines[at + 1 :]],
        "another word": lambda: [*lines[:at], _with_another_word(rng, line), *lines[at + 1 :]],
        "another number": lambda: [*lines[:at], _with_another_number(rng, line), *lines[at + 1 :]],
        "another first line": lambda: [_with_another_word(rng, lines[0]), *lines[1:]],
        "a word everywhere": lambda: text.replace(_word(rng, line), pick(rng, values.TEXTS)),
    }
    what = pick(rng, [*changes, *["another word", "another number"] * 3])
    found = changes[what]()
    if isinstance(found, list):
        found = "".join(found)
    path.write_bytes(found if isinstance(found, bytes) else found.encode("utf-8", "surrogatepass"))
    return f"{what} (line {at + 1} of {len(lines)})"


def _word(rng: Rng, line: str) -> str:
    """A cell of a line, whatever parts them, or a word."""
    return pick(rng, [word for word in re.split(r"[,\t|:\s]+", line) if word] or ["a"])


def _with_another_word(rng: Rng, line: str) -> str:
    return line.replace(_word(rng, line), pick(rng, values.TEXTS + values.NUMBERS), 1)


def _with_another_number(rng: Rng, line: str) -> str:
    found = list(re.finditer(r"\d+", line))
    if not found:
        return _with_another_word(rng, line)
    number = pick(rng, found)
    return line[: number.start()] + pick(rng, values.NUMBERS) + line[number.end() :]


def damage_experiment(rng: Rng, path: Path) -> str:
    """An experiment file that does something else than return a config."""
    line = pick(rng, values.STATEMENTS)
    text = path.read_text(encoding="utf-8")
    changes = (("", f"{line}\n"), ("    return config", f"    {line}"), ("beta = 0.1", f"beta = {line}"))
    path.write_text(text.replace(*pick(rng, changes), 1), encoding="utf-8")
    return line


# ---------------------------------------------------------------------------------------------------------- file system
MOVED = ".moved"
"""Ending of the name that a file or folder gets when a link takes its place."""


def damage_place(rng: Rng, path: Path) -> str:
    """Something else, or nothing, where a file or folder was."""
    what = pick(
        rng, ("missing", "the other kind", "loop", "dangling", "moved", "unreadable", "pipe", "device", "empty")
    )
    old = path.with_name(path.name + MOVED)
    if what == "unreadable":
        path.chmod(0)
        return what
    was_folder = path.is_dir()
    path.rename(old)
    if what == "the other kind":
        path.write_text("{}") if was_folder else path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "moved":
        path.symlink_to(old.name)
        return what
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to(pick(rng, ("/dev/null", "/dev/zero", "/proc/self/mem")))
    elif what == "empty":
        path.mkdir() if was_folder else path.touch()
    shutil.rmtree(old) if was_folder else old.unlink()
    return what


_FAMILIES: dict[str, list[Mutator]] = {
    ".json": [damage_json] * 5 + [damage_text],
    ".jsonl": [damage_json_lines] * 3 + [damage_text] * 2,
    ".parquet": [damage_table] * 4,
    ".safetensors": [damage_tensors] * 4,
    ".gz": [damage_packed] * 4,
    ".py": [damage_experiment] * 6 + [damage_text],
    **{ending: [damage_text] * 4 for ending in (".csv", ".txt", ".data", ".item", ".dat")},
}
