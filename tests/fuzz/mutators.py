"""Seeded damage to files and folders. Each mutator changes what lies at a path and says in a few words what it did.

A mutator takes the random numbers and the path; `damage` chooses the mutators that suit a file by its ending.
"""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from tests.fuzz import values

Rng: TypeAlias = np.random.Generator
Mutator: TypeAlias = Callable[[Rng, Path], str]


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    """One of several, each as likely."""
    return options[int(rng.integers(len(options)))]


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


# ----------------------------------------------------------------------------------------------------------------- JSON
def damage_json(rng: Rng, path: Path) -> str:
    """Another value, a key less, a key twice, too deep, or too many digits, somewhere in a JSON file."""
    text, told = _damaged_json(rng, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    return told


def damage_json_lines(rng: Rng, path: Path) -> str:
    """The same in one line of a file of JSON lines."""
    lines = path.read_text(encoding="utf-8").split("\n")
    at = int(rng.integers(len(lines)))
    if not lines[at]:
        return damage_text(rng, path)
    lines[at], told = _damaged_json(rng, lines[at])
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"line {at + 1}: {told}"


def _damaged_json(rng: Rng, text: str) -> tuple[str, str]:
    value = {"": json.loads(text)}
    holder, key = pick(rng, list(_places(value)))
    new = pick(rng, values.JSON)
    what = pick(rng, ("another value",) * 5 + ("left out", "twice", "renamed", "too deep", "too many digits"))
    if what == "left out" and holder is not value:
        del holder[key]
    elif what == "renamed" and isinstance(holder, dict) and holder is not value:
        holder["renamed"] = holder.pop(key)
    elif what in ("too deep", "too many digits"):
        holder[key] = "PLACE"
    else:
        holder[key] = new
    raw = values.DEEP if what == "too deep" else values.DIGITS
    written = json.dumps(value[""]).replace('"PLACE"', raw)
    if what == "twice" and isinstance(key, str):
        written = written.replace(f"{json.dumps(key)}: ", f"{json.dumps(key)}: 1, {json.dumps(key)}: ", 1)
    return written, f"{what} at {key!r} ({new!r:.60})"


def _places(value: Any) -> Any:
    """Every place of a tree: the dict or list that holds it, and its key."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


# --------------------------------------------------------------------------------------------------- tables and tensors
def damage_table(rng: Rng, path: Path) -> str:
    """Another value, column, type or number of rows in a parquet file."""
    table = pq.read_table(path)
    name = pick(rng, table.column_names)
    at = table.column_names.index(name)
    column = table[name].to_pylist()
    what = pick(rng, ("another value",) * 6 + ("left out", "renamed", "as text", "no rows", "rows mixed", "rows twice"))
    told = ""
    if what == "another value":
        row = int(rng.integers(len(column)))
        column[row], told = _other_value(rng, table.schema.field(name).type)
        table = table.set_column(at, name, pa.array(column, table.schema.field(name).type))
    elif what == "left out":
        table = table.drop_columns([name])
    elif what == "renamed":
        table = table.rename_columns([("other" if each == name else each) for each in table.column_names])
    elif what == "as text":
        table = table.set_column(at, name, pa.array([str(value) for value in column]))
    elif what == "no rows":
        table = table.slice(0, 0)
    elif what == "rows mixed":
        table = table.take(rng.permutation(len(table)))
    else:
        table = pa.concat_tables([table, table])
    pq.write_table(table, path)
    return f"{what} in {name} {told}"


def _other_value(rng: Rng, kind: pa.DataType) -> tuple[Any, str]:
    if pa.types.is_list(kind):
        value, told = _other_value(rng, kind.value_type)
        choice = pick(rng, ([value], [], [value] * 3, None, [0] * 2_000))
        return choice, f"(list of {told})"
    if pa.types.is_integer(kind):
        most = 2 ** (kind.bit_width - 1)
        value = pick(rng, (-1, most - 1, -most, 23, 22, 0, 1000, None, min(10**11, most - 1), min(10**14, most - 1)))
    else:
        value = pick(rng, ("", "\x1b[31m", "a\0b", "A" * 100_000, "\n", None, "é" * 300, "\u202e"))
    return value, f"({value!r:.40})"


def damage_tensors(rng: Rng, path: Path) -> str:
    """Another number, name, shape or type of a tensor in a safetensors file, or a tensor more or less."""
    tensors = load_file(path)
    name = pick(rng, sorted(tensors))
    tensor = tensors[name].copy()
    what = pick(rng, ("number", "number", "number", "all", "left out", "renamed", "cut", "flat", "type", "more"))
    number = pick(rng, (np.nan, np.inf, -np.inf, 3e38, 0.0))
    if what == "number":
        tensor.reshape(-1)[int(rng.integers(tensor.size))] = number
    elif what == "all":
        tensor[:] = number
    elif what == "cut":
        tensor = tensor[:-1]
    elif what == "flat":
        tensor = tensor.reshape(-1)
    elif what == "type":
        number = pick(rng, (np.float16, np.float64, np.int32, np.uint8, np.bool_))
        tensor = tensor.astype(number)
    elif what == "more":
        tensors["further"] = tensor
    if what in ("left out", "renamed"):
        del tensors[name]
    if what != "left out":
        tensors["other" if what == "renamed" else name] = tensor
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
    return f"{what} of {name} ({number})"


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
