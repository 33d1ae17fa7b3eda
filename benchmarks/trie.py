"""Trie benchmark: trie and information gain of a million titles, our arrays against a trie of dictionaries, in one run.

    python -m benchmarks.trie [--titles=1000000] [--data=FOLDER] [--tokenizer=HF_FOLDER]

Both sides start from token ids and must give the same gains. The other side follows the published code: titles are
inserted one by one, and each adds its mass to every node on its path (docs/methods/igd.md, IGD weights). The titles are
random walks along pairs of tokens of real ones, those of Amazon Books with the Qwen tokenizer, or of the synthetic
source if those folders are missing.

Memory is measured in a separate process. For the build, it is the memory added to that of the token rows; for the index
with its annotations, the memory of all data of the items that training holds on the host: token rows, catalogue, trie,
gain and the per-token arrays, in addition to that of the process before it reads them.

Then a step of the search over these titles, a tenth and a hundredth of them, against other ways
(`benchmarks.trie_steps`), and the time to compile the search.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import jax
import numpy as np
from absl import flags
from jaxtyping import Int

from benchmarks import common, trie_steps
from benchmarks.common import Node
from benchmarks.tpu_compile import N_ITEMS, PROMPT, made_up_engine
from configs import igd
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.ragged import Ragged
from igd_jax.data.sources import synthetic
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from igd_jax.decoding.device_trie import device_trie
from igd_jax.decoding.rebalancing import rebalanced
from igd_jax.decoding.restriction import restricted
from igd_jax.items.catalog import sort_rows
from igd_jax.items.index import ItemIndex, build_index, walk_rows
from igd_jax.models.load import config_of
from igd_jax.session.ahead import search_cost
from igd_jax.settings.settings import settings_from
from igd_jax.training.mesh import mesh_over

_LONGEST = 100  # tokens of a drawn title
_GOES_ON = 0.2  # probability that a title continues where a real one ends: about 17 tokens per title on Amazon Books
_ROUNDS, _OURS_PER_ROUND = 2, 3
_CHECKED = 2000
_BACKBONE = "qwen2.5-1.5b"  # whose search is compiled


def source_titles(data: Path, tokenizer: Path) -> tuple[str, Tokenizer, list[str]]:
    """Source of the drawn titles: name, tokenizer and titles."""
    path = data / "Amazon_Books.info.txt"
    if path.is_file() and tokenizer.is_dir():
        titles = [line.rsplit("\t", 1)[0] for line in path.read_text(encoding="utf-8").splitlines()]
        return "Amazon Books, Qwen2.5 tokenizer", load_tokenizer(tokenizer), titles
    titles = list(synthetic.read(n_items=5000, n_users=5000, n_events=50_000).titles)
    return "synthetic source, its own tokenizer", train_tokenizer(titles, vocab_size=4096), titles


def draw_titles(real: Ragged, n_titles: int, rng: np.random.Generator) -> Ragged:
    """Draw distinct titles that begin like real ones, and whose pairs of adjacent tokens occur in real ones."""
    by_token = np.argsort(real.ids[:-1], kind="stable")
    known, following = real.ids[:-1][by_token], real.ids[1:][by_token]
    first, newline, eos = real.ids[real.start[:-1]], real.ids[-2], real.ids[-1]
    here = rng.choice(first, 2 * n_titles)  # twice as many, as some titles will be equal
    alive, columns = np.ones(len(here), bool), []
    for _ in range(_LONGEST - 2):
        columns.append(np.where(alive, here, -1))
        low, high = np.searchsorted(known, here, "left"), np.searchsorted(known, here, "right")
        here = following[low + (rng.random(len(here)) * (high - low)).astype(np.int64)]
        ends = (here == newline) | (here == eos)
        alive &= ~ends | (rng.random(len(here)) < _GOES_ON)
        here = np.where(ends, rng.choice(first, len(here)), here)
    table = np.stack([*columns, np.full(len(here), newline), np.full(len(here), eos)], axis=1)
    rows = Ragged(table[table >= 0], np.append(0, np.cumsum((table >= 0).sum(axis=1))))
    order, _, is_new = sort_rows(rows)
    distinct = np.sort(order[is_new])[:n_titles]
    if len(distinct) < n_titles:
        raise InputError(f"only {len(distinct):,} titles came out distinct; ask for fewer with --titles")
    return rows.take(distinct)


def build_ours(rows: Ragged, counts: Int[np.ndarray, " items"]) -> ItemIndex:
    """Build our side; the words of the titles are not needed."""
    return build_index([""] * len(rows), rows, counts, candidates=np.ones(len(rows), bool))


def read_rows(path: str) -> tuple[Ragged, Int[np.ndarray, " items"]]:
    """Read the token rows and counts that `peak_mb` saved."""
    saved = np.load(path, allow_pickle=False)
    return Ragged(saved["ids"], saved["start"]), saved["counts"]


def prepare_build(path: str) -> Callable[[], Any]:
    """For `common.added_peak_mb`: reads rows and counts; the result builds from them."""
    rows, counts = read_rows(path)
    return lambda: build_ours(rows, counts)


def prepare_all(path: str) -> Callable[[], Any]:
    """For `common.added_peak_mb`: the result reads, builds, walks all titles and weights their tokens."""

    def work() -> None:
        walk = build_ours(*read_rows(path)).walk()
        np.where(walk.forced, np.float32(0.1), np.float32(1))

    return work


def peak_mb(rows: Ragged, counts: Int[np.ndarray, " items"], prepare: Callable[..., Callable[[], Any]]) -> int:
    """Peak memory that our side adds, in MB."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.npz")
        np.savez(path, ids=rows.ids, start=rows.start, counts=counts)
        return common.added_peak_mb(prepare, path)


def cpu_seconds(build: Callable[..., Any], *inputs: Any) -> tuple[float, Any]:
    """Processor time of a build and its result. Both sides use one thread, so other load has little effect."""
    start = time.process_time()
    built = build(*inputs)
    return time.process_time() - start, built


def dict_gain(root: Node, tokens: list[int]) -> list[float]:
    """Gain of each token of a title, in nats."""
    gain, node = [], root
    for token in tokens:
        gain.append(node.entropy - node.children[token].entropy)
        node = node.children[token]
    return gain


def check(rows: Ragged, index: ItemIndex, root: Node) -> float:
    """The largest relative difference of gains over the given titles.

    Raises:
      InputError: the difference is above 1e-6, or the sides disagree on which tokens have no gain.
    """
    ours = walk_rows(index.trie, index.gain, rows)
    theirs = np.concatenate([dict_gain(root, rows[row].tolist()) for row in range(len(rows))])
    if ((theirs == 0) != ours.forced).any() or not np.allclose(ours.gain, theirs, rtol=1e-6, atol=0):
        raise InputError("the two sides differ in their gains: one of them is wrong")
    return float((np.abs(ours.gain - theirs) / np.where(ours.forced, 1, theirs)).max())


def steps_of(rows: Ragged) -> dict[str, dict[str, Any]]:
    """Figures of steps by number of titles, with random logits."""
    shape = (trie_steps.ROWS, trie_steps.BEAMS, trie_steps.VOCABULARY)
    logits, found = jax.random.normal(jax.random.key(0), shape), {}
    for n_titles in sorted({max(len(rows) // part, 1) for part in (100, 10, 1)}):
        index = build_ours(rows.take(np.arange(n_titles)), np.ones(n_titles, np.int64))
        found[str(n_titles)] = trie_steps.compare(index.trie, logits)
        print(f"A step over {n_titles:,} titles\n\n{common.markdown(found[str(n_titles)])}\n")
    return found


def compile_figures() -> dict[str, Any]:
    """Seconds to trace and compile the search on this machine: reading prompts, a call of the model, growing once.

    Weights are shapes. The cache of compiled programs must be off.
    """
    config = igd.get_config()
    config.model.config, config.decode.batch_size = _BACKBONE, trie_steps.ROWS
    settings = settings_from(config, needs={"model.path"})
    mesh = mesh_over(jax.devices()[:1], fsdp=1, tensor=1)
    engine = made_up_engine(settings, mesh, n_items=N_ITEMS, num_beams=trie_steps.BEAMS)
    start, spent = time.perf_counter(), time.process_time()
    search_cost(engine, mesh, rows=trie_steps.ROWS, prompt=PROMPT)
    return {
        "backbone": _BACKBONE,
        "layers": cast(Any, config_of(_BACKBONE)).num_layers,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - spent, 1),
    }


def main() -> None:
    """Draw titles, build both ways in turns, compare, report."""
    values, rng = flags.FLAGS, np.random.default_rng(0)
    source, tokenizer, titles = source_titles(Path(values.data), Path(values.tokenizer))
    rows = draw_titles(tokenizer.encode_titles(titles), values.titles, rng)
    counts = rng.zipf(1.5, len(rows)).clip(max=10_000) - 1
    lists, count_list = [rows[row].tolist() for row in range(len(rows))], counts.tolist()

    build_mb, all_mb = (peak_mb(rows, counts, prepare) for prepare in (prepare_build, prepare_all))
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        root = None  # only one trie of dictionaries at a time, as it takes gigabytes
        for _ in range(_OURS_PER_ROUND):
            spent, index = cpu_seconds(build_ours, rows, counts)
            ours.append(spent)
        spent, root = cpu_seconds(common.dict_trie, lists, count_list)
        theirs.append(spent)

    sample = rng.choice(len(rows), min(_CHECKED, len(rows)), replace=False)
    difference = check(rows.take(sample), index, root)
    root = None
    steps = steps_of(rows)
    jax.config.update("jax_enable_compilation_cache", False)
    compiled = compile_figures()
    score = restricted(index.trie, rebalanced(index.gain, alpha=0.2, temperature=1.0))
    on_device = sum(leaf.nbytes for leaf in jax.tree.leaves((device_trie(index.trie), score)))
    common.report(
        "trie",
        {
            "numpy": np.__version__,
            "source": source,
            "titles": len(index.catalog),
            "tokens": len(rows.ids),
            "nodes": len(index.trie.token),
        },
        {
            "igd_jax": {
                "cpu_seconds": round(min(ours), 3),
                "added_peak_mb": build_mb,
                "index_and_annotations_peak_mb": all_mb,
                "device_mb_per_100k_titles": round(on_device / len(index.catalog) / 10, 2),
            },
            "dictionaries": {"cpu_seconds": round(min(theirs), 1)},
        },
        ratio=round(min(theirs) / min(ours), 1),
        titles_compared=len(sample),
        largest_relative_gain_difference=difference,
        steps=steps,
        compiling_the_search=compiled,
    )


if __name__ == "__main__":
    flags.DEFINE_integer("titles", 1_000_000, "Distinct titles to build from.", lower_bound=1)
    flags.DEFINE_string("data", str(common.AMAZON_BOOKS), "Holds Amazon_Books.info.txt.")
    flags.DEFINE_string("tokenizer", str(common.QWEN_TOKENIZER), "Hugging Face folder of a tokenizer.")
    run_main(main)
