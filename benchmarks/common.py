"""Shared parts of the benchmarks: the session, the published trie, timing, memory, and the record of results."""

import math
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from absl import flags

from configs import igd
from igd_jax.core.io import Workdir, write_json
from igd_jax.data.prepared import save
from igd_jax.data.sources import d3
from igd_jax.items.index import ItemIndex
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
"""Folder of data and models beside the repository."""
AMAZON_BOOKS, QWEN_TOKENIZER = SHARED / "data" / "amazon_books", SHARED / "data" / "qwen2.5-tokenizer"
TINY_MODEL = SHARED / "models" / "tiny-qwen2-books"
LOAD_AT_START = os.getloadavg()[0]
"""Load average of the minute before the program started; near 0 on an idle machine."""


class Node:
    """Node of the trie of dictionaries; `entropy` is the sum of ``-p ln p`` over all titles below it, in nats."""

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.entropy = 0.0


def dict_trie(titles: Iterable[list[int]], counts: Sequence[int]) -> Node:
    """Build the trie as published: title by title, each adding its mass to every node on its path."""
    root, total = Node(), sum(counts)
    for tokens, count in zip(titles, counts, strict=True):
        mass = -count / total * math.log(count / total) if count else 0.0
        node = root
        node.entropy += mass
        for token in tokens:
            if token not in node.children:
                node.children[token] = Node()
            node = node.children[token]
            node.entropy += mass
    return root


def build_dict_trie(index: ItemIndex) -> Node:
    """Build the trie of dictionaries of the candidates."""
    catalog, rows = index.catalog, np.flatnonzero(index.is_candidate)
    return dict_trie((catalog.tokens[row].tolist() for row in rows.tolist()), catalog.counts[rows].tolist())


def define_flags() -> None:
    """``--data`` and ``--model``."""
    flags.DEFINE_string("data", str(AMAZON_BOOKS), "Folder of published splits (source d3).")
    flags.DEFINE_string("model", str(TINY_MODEL), "Hugging Face folder of a trained model.")


@contextmanager
def prepared_folder(source: str) -> Iterator[Path]:
    """Published splits as a prepared folder that exists inside the block."""
    with TemporaryDirectory() as folder:
        save(d3.read(Path(source)), Path(folder) / "data")
        yield Path(folder) / "data"


def make_session(data: Path, model: Path, *, tokenizer: str = "", dtype: str = "float32", **changes: Any) -> Session:
    """Set up the published recipe for books on one device: authors' prompt, candidates = train targets, beta 0.1.

    The loss is divided once per step, so that rows may stand in packs.

    Args:
      data: prepared folder.
      model: Hugging Face folder.
      tokenizer: folder of another tokenizer than the model's.
      dtype: dtype of the computation.
      changes: values for fields of `config.decode`.
    """
    config = igd.get_config("books")
    config.data.dir, config.model.path, config.mesh.data = str(data), str(model), 1
    config.loss.normalizer, config.tokenizer.path, config.model.dtype = "global", tokenizer, dtype
    config.decode.update(changes)
    return set_up(settings_from(config), Workdir(str(data.parent / "run")))


def torch_model(session: Session, *, dtype: str = "float32", device: str = "cpu") -> Any:
    """The same weights in transformers."""
    from transformers import AutoModelForCausalLM  # of seconds to import, and not needed by most
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = session.settings.model.path
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True).to(device)


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call by a clock; wall time unless another is given."""
    start = clock()
    work()
    return clock() - start


def interleaved(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Minimum time of each side in seconds over `repeats` turns, interleaved so that other load affects all sides."""
    taken = [{name: seconds(work, clock) for name, work in sides.items()} for _ in range(repeats)]
    return {name: min(turn[name] for turn in taken) for name in sides}


def added_peak_mb(prepare: Callable[..., Callable[[], Any]], *args: Any) -> int:
    """Peak memory that ``prepare(*args)()`` adds, in MB, measured in a separate process (Linux).

    `prepare` reads the inputs; only the function that it returns, which loads weights, compiles and runs, is measured.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_added_peak_mb, prepare, *args).result()


def _added_peak_mb(prepare: Callable[..., Callable[[], Any]], *args: Any) -> int:
    with redirect_stdout(StringIO()):  # the parent has printed the same
        work = prepare(*args)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident_kb("VmRSS")
    work()
    return round((resident_kb("VmHWM") - before) * 1024 / 1e6)


def resident_kb(field: str) -> int:
    """Memory of this process in KB: ``VmRSS`` (current) or ``VmHWM`` (peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def machine() -> dict[str, Any]:
    """Date, code and machine of the measurement."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    cpu = [line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or None,
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "load_at_start": round(LOAD_AT_START, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "flax", "torch", "transformers") if find_spec(name)},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def report(name: str, settings: Mapping[str, Any], sides: Mapping[str, Mapping[str, Any]], **result: Any) -> None:
    """Print a table with one column per side, and write ``results/NAME.json`` in the folder of this file."""
    print(markdown(sides))
    print(", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in result.items()))
    record = {**machine(), **settings, **sides, **result}
    write_json(ROOT / "benchmarks" / "results" / f"{name}.json", record)


def markdown(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown table with one row per figure; missing figures are blank."""
    figures = list(dict.fromkeys(figure for side in sides.values() for figure in side))
    rows: list[Sequence[Any]] = [("", *sides), ("---",) * (len(sides) + 1)]
    rows += [(figure.replace("_", " "), *(side.get(figure, "") for side in sides.values())) for figure in figures]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
