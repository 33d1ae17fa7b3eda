"""Trie and information gain of a million titles: our arrays against a trie of dictionaries, in one run.

    python benchmarks/trie.py [--titles=1000000] [--real=FOLDER]

Both sides start from token ids. The dictionary side is the published way (spec/performance.md 3c): titles go in one by
one, and each adds its ``-p ln p`` to every node on its path. Titles are drawn from a token chain over real titles, the
Amazon Books of `--real` with the Qwen tokenizer, or over those of the synthetic source where that folder is missing.
"""

import math
import multiprocessing
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float, Int

from igd_jax.core.errors import InputError, run
from igd_jax.core.io import write_json
from igd_jax.data.sources import synthetic
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.decoding.constraint import device_trie
from igd_jax.items.catalog import Catalog, Ragged, build_catalog, sort_rows
from igd_jax.items.info_gain import EdgeGain, edge_gain
from igd_jax.items.trie import Trie, build_trie

ROOT = Path(__file__).resolve().parents[1]
_TITLES = flags.DEFINE_integer("titles", 1_000_000, "distinct titles to build from", lower_bound=1)
_REAL = flags.DEFINE_string("real", str(ROOT.parent / "shared" / "data"), "holds amazon_books/ and qwen2.5-tokenizer/")

_GOES_ON = 0.25  # chance that a drawn title that ends goes on with another: about 17 tokens a title on Amazon Books
_OURS_A_ROUND, _ROUNDS = 3, 2
_CHECKED = 2000


class Node:
    """One node of the trie of dictionaries; `entropy` is the mass H below it, in nats."""

    def __init__(self) -> None:
        self.children: dict[int, Node] = {}
        self.entropy = 0.0


def build_dict_trie(titles: list[list[int]], counts: list[int]) -> Node:
    """Insert title by title."""
    root, total = Node(), sum(counts)
    for tokens, count in zip(titles, counts, strict=True):
        p = count / total
        mass = -p * math.log(p) if count else 0.0
        node = root
        node.entropy += mass
        for token in tokens:
            if token not in node.children:
                node.children[token] = Node()
            node = node.children[token]
            node.entropy += mass
    return root


def dict_gain(root: Node, tokens: list[int]) -> list[float]:
    """Gain of each token of one title, nats."""
    gain, node = [], root
    for token in tokens:
        child = node.children[token]
        gain.append(node.entropy - child.entropy)
        node = child
    return gain


def build_arrays(rows: Ragged, counts: Int[np.ndarray, " N"]) -> tuple[Catalog, Trie, EdgeGain]:
    """Our side."""
    catalog = build_catalog(rows, counts)
    trie = build_trie(catalog)
    return catalog, trie, edge_gain(trie, catalog.counts)


def source_titles(folder: Path) -> tuple[str, Tokenizer, list[str]]:
    """Where the chain learns: name, tokenizer, titles."""
    path = folder / "amazon_books" / "Amazon_Books.info.txt"
    if path.is_file():
        titles = [line.rsplit("\t", 1)[0] for line in path.read_text(encoding="utf-8").splitlines()]
        return "Amazon Books, Qwen2.5 tokenizer", load_tokenizer(folder / "qwen2.5-tokenizer"), titles
    titles = synthetic.read(n_items=5000, n_users=5000, n_events=50_000).titles
    return "synthetic source, its own tokenizer", train_tokenizer(titles, vocab_size=4096), titles


def draw_titles(real: Ragged, n_titles: int, rng: np.random.Generator) -> Ragged:
    """Distinct titles, each a walk along pairs of neighbouring tokens of the real ones."""
    token = real.ids[:-1].astype(np.int64)
    by_token = np.argsort(token, kind="stable")
    known, following = token[by_token], real.ids[1:][by_token]
    first, newline, eos = real.ids[real.start[:-1]], real.ids[-2], real.ids[-1]
    here = rng.choice(first, 2 * n_titles)
    columns, alive = [], np.ones(len(here), bool)
    for _ in range(100):
        columns.append(np.where(alive, here, -1))
        low, high = np.searchsorted(known, here, "left"), np.searchsorted(known, here, "right")
        here = following[low + (rng.random(len(here)) * (high - low)).astype(np.int64)]
        ends = (here == newline) | (here == eos)
        goes_on = ends & (rng.random(len(here)) < _GOES_ON)
        here = np.where(ends, rng.choice(first, len(here)), here)
        alive &= ~ends | goes_on
    columns += [np.full(len(here), newline), np.full(len(here), eos)]
    table = np.stack(columns, axis=1)
    rows = Ragged(
        table[table >= 0].astype(np.int32), np.append(0, np.cumsum((table >= 0).sum(axis=1))).astype(np.int64)
    )
    order, _, is_new = sort_rows(rows)
    distinct = np.sort(order[is_new])[:n_titles]
    if len(distinct) < n_titles:
        raise InputError(f"the chain gave only {len(distinct):,} distinct titles; ask for fewer with --titles")
    return rows.take(distinct)


def seconds(build: Callable[..., Any], *inputs: Any) -> tuple[float, Any]:
    """Wall time of one build, and what it built."""
    start = time.perf_counter()
    built = build(*inputs)
    return time.perf_counter() - start, built


def _resident(field: str) -> int:
    """Bytes of this process by /proc/self/status: ``VmRSS`` now, ``VmHWM`` at most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def added_peak(path: str) -> int:
    """In a fresh process: bytes by which building from a saved input lifts the most memory ever resident."""
    saved = np.load(path, allow_pickle=False)
    rows, counts = Ragged(saved["ids"], saved["start"]), saved["counts"]
    before = _resident("VmHWM")
    build_arrays(rows, counts)
    return _resident("VmHWM") - before


def peak_in_fresh_process(rows: Ragged, counts: Int[np.ndarray, " N"]) -> int:
    """`added_peak` of our side, bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "input.npz")
        np.savez(path, ids=rows.ids, start=rows.start, counts=counts)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(added_peak, path).result()


def check(rows: Ragged, trie: Trie, gain: EdgeGain, root: Node, sample: Int[np.ndarray, " r"]) -> float:
    """Largest relative difference of gains; raises `InputError` unless both sides agree."""
    chosen = rows.take(sample)
    mask = np.arange(chosen.lengths.max()) < chosen.lengths[:, None]
    _, edge = trie.walk(chosen.pad(mask.shape[1]), mask)
    ours, forced = (table[mask] for table in gain.along(edge, mask))
    theirs: Float[np.ndarray, " total"] = np.concatenate(
        [dict_gain(root, chosen[r].tolist()) for r in range(len(chosen))]
    )
    if ((theirs == 0) != forced).any() or not np.allclose(ours, theirs, rtol=1e-6, atol=0):
        raise InputError("the two sides disagree: a bug in one of them")
    return float((np.abs(ours - theirs)[~forced] / theirs[~forced]).max())


def machine() -> dict[str, Any]:
    """What the figures were measured with."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main() -> None:
    rng = np.random.default_rng(0)
    name, tokenizer, titles = source_titles(Path(_REAL.value))
    rows = draw_titles(tokenizer.encode_titles(titles), _TITLES.value, rng)
    counts = rng.zipf(1.5, len(rows)).clip(max=10_000) - 1
    lists, count_list = [rows[r].tolist() for r in range(len(rows))], counts.tolist()

    peak = peak_in_fresh_process(rows, counts)
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        root = None  # one trie of dictionaries at a time: it takes gigabytes
        for _ in range(_OURS_A_ROUND):
            spent, (catalog, trie, gain) = seconds(build_arrays, rows, counts)
            ours.append(spent)
        spent, root = seconds(build_dict_trie, lists, count_list)
        theirs.append(spent)
    worst = check(rows, trie, gain, root, rng.choice(len(rows), min(_CHECKED, len(rows)), replace=False))
    on_device = device_trie(trie, gain, max_length=int(catalog.tokens.lengths.max())).nbytes
    figures = {
        "source": name,
        "titles": len(catalog),
        "tokens": len(rows.ids),
        "nodes": len(trie.token),
        "dictionaries_seconds": round(min(theirs), 2),
        "arrays_seconds": round(min(ours), 3),
        "ratio": round(min(theirs) / min(ours), 1),
        "arrays_peak_mb": round(peak / 1e6),
        "device_mb_per_100k_titles": round(on_device / len(catalog) / 10, 2),
        "worst_relative_gain_difference": worst,
    }
    print("| " + " | ".join(figures) + " |\n" + "|---" * len(figures) + "|")
    print("| " + " | ".join(map(str, figures.values())) + " |")
    write_json(ROOT / "benchmarks" / "results" / "trie.json", {**machine(), **figures})


if __name__ == "__main__":
    run(main)
