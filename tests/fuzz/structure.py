"""Seeded damage to what a file says: JSON, tables and tensors stay readable, and say something else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from tests.fuzz import values
from tests.fuzz.values import Rng, pick


def damage_json(rng: Rng, path: Path) -> str:
    """Another value, a key less, a key twice, too deep, or too many digits, somewhere in a JSON file."""
    text, told = _damaged_json(rng, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    return told


def damage_json_lines(rng: Rng, path: Path) -> str:
    """The same in one line of a file of JSON lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = int(rng.integers(len(lines)))
    lines[at], told = _damaged_json(rng, lines[at])
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
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
