"""Benchmarks of parts, each a process of its own with a limit in time, whose results are kept if later ones fail."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from absl import flags

from benchmarks import common
from igd_jax.core.errors import InputError
from igd_jax.core.io import write_json
from igd_jax.core.log import say


@dataclass(frozen=True)
class Part:
    """A part of a benchmark.

    Attributes:
      measure: function that makes the figures, by name.
      limit: seconds after which the process is stopped.
    """

    measure: Callable[[], Mapping[str, Any]]
    limit: int


def define_flags(parts: Mapping[str, Part], *, output: Path) -> None:
    """``--only``, ``--output``, and the flag by which a part is started."""
    flags.DEFINE_multi_string("only", [], f"Parts to run, all if there is none: {', '.join(parts)}.")
    flags.DEFINE_string("output", str(output), "File of the results; parts that are there and not run are kept.")
    flags.DEFINE_string("part", "", "The one part to run in this process, into --output.")


def run(module: str, parts: Mapping[str, Part], *, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run the parts of ``--only``, or the one of ``--part`` in this process, and write ``--output`` after each.

    Args:
      module: module whose entry point calls this.
      parts: all parts by name, in the order in which they are run.
      arguments: further arguments of the processes.

    Returns:
      All figures by the names of their parts; ``failed`` is the reason for which a part has none.

    Raises:
      InputError: there is no such part.
    """
    values, output = flags.FLAGS, Path(flags.FLAGS.output)
    if values.part:
        result = dict(parts[values.part].measure())
        write_json(output, result)
        return result
    if unknown := sorted(set(values.only) - set(parts)):
        raise InputError(f"--only names {unknown[0]!r}; expected one of {', '.join(parts)}")
    # A file from before there were parts has none, and is replaced.
    found = json.loads(output.read_text()).get("parts", {}) if output.is_file() else {}
    for name in values.only or parts:
        say(f"{name}: at most {parts[name].limit} s")
        found[name] = _in_a_process(module, name, parts[name].limit, arguments)
        in_order = {each: found[each] for each in parts if each in found}
        write_json(output, {**common.machine(), "parts": in_order})
        say(f"{name}: {json.dumps(found[name])}")
    return found


def _in_a_process(module: str, name: str, limit: int, arguments: Sequence[str]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-m", module, f"--part={name}", f"--output={file}", *arguments]
        try:
            done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"it took more than {limit} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return {"failed": lines[-1] if lines else f"exit code {done.returncode}"}
        machine = common.machine()
        return {**json.loads(file.read_text()), "date": machine["date"], "commit": machine["commit"]}
