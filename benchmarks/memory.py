"""Memory and time until the first step of training: millions of rows, a million items, one very long title.

    python -m benchmarks.memory [--rows=5000000] [--items=1000000] [--long_title=316] [--tokenizer=HF_FOLDER]

Titles are made of words of real ones (see benchmarks.trie), histories of 1 to 10 items follow a Zipf law, and 80% of
the rows are for training. Each figure is measured in a separate process. The memory of the model, programs and devices
is the peak of the same training on a thousand rows of a thousand items; "memory over the model" is what all rows and
items add to it. Times are from the start of training to the loss of its first step, compilation included, without
caches, and are to be compared with the time of tokenising all titles once, each as a whole.
"""

import io
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import common
from benchmarks.trie import source_titles
from configs import igd
from igd_jax.core.errors import run as run_main
from igd_jax.core.io import Workdir
from igd_jax.core.ragged import Ragged, starts_of
from igd_jax.data.assembling import assemble
from igd_jax.data.prepared import SPLITS, Rows, load, save
from igd_jax.data.tokenizer import Tokenizer, load_tokenizer
from igd_jax.train import train

_SMALL = 1000  # rows and items of the training that measures the model's memory
_LONGEST_HISTORY = 10
_ROWS_PER_USER = 5
_AT_ONCE = 1 << 14


def draw_titles(
    real: list[str], n_items: int, long_title: int, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[str]:
    """Titles of 3 to 11 words of real ones; the first is extended to `long_title` tokens."""
    words = np.array(sorted({word for title in real for word in title.split()}), object)
    lengths = rng.integers(3, 12, n_items)
    drawn, start = words[rng.integers(0, len(words), lengths.sum())].tolist(), starts_of(lengths).tolist()
    titles = [" ".join(drawn[begin:end]) for begin, end in pairwise(start)]
    while len(tokenizer.encode_titles(titles[:1])[0]) < long_title:
        titles[0] += f" {rng.choice(words)}"
    return titles


def draw_rows(n_rows: int, n_items: int, rng: np.random.Generator) -> Rows:
    """Histories and targets, in time order."""
    start = starts_of(rng.integers(1, _LONGEST_HISTORY + 1, n_rows))
    items = rng.permutation(n_items).astype(np.int32)[rng.zipf(1.3, start[-1] + n_rows) % n_items]
    users = np.array([f"A{number:013X}" for number in range(max(n_rows // _ROWS_PER_USER, 1))], object)
    return Rows(
        user=users[rng.integers(0, len(users), n_rows)],
        history=Ragged(items[: start[-1]], start),
        target=items[start[-1] :],
        timestamp=1_500_000_000 + np.arange(n_rows, dtype=np.int64),
    )


def make_data(folder: Path, titles: list[str], n_rows: int, rng: np.random.Generator) -> None:
    """Write a prepared folder with the given titles."""
    rows = draw_rows(n_rows, len(titles), rng)
    cuts = np.split(np.arange(n_rows), [n_rows * 8 // 10, n_rows * 9 // 10])
    splits = {split: rows.take(cut) for split, cut in zip(SPLITS, cuts, strict=True)}
    ids = [f"B{number:09d}" for number in range(len(titles))]
    save(assemble(item_ids=ids, titles=titles, splits=splits, dropped={}, notes={}), folder)


class Lines(io.StringIO):
    """Standard output that records the time of each line and passes lines on to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, str]] = [(time.monotonic(), "")]

    def write(self, text: str) -> int:
        if text.strip():
            self.times.append((time.monotonic(), text))
            print(f"  {self.times[-1][0] - self.times[0][0]:6.1f} s  {text[:150]}", file=sys.stderr)
        return len(text)


def first_step(data: str, tokenizer: str, workdir: str) -> dict[str, float]:
    """Train for one step: time until its loss is printed, longest time without a line before that, and peak memory."""
    config = igd.get_config()
    config.data.dir, config.tokenizer.path, config.model.config = data, tokenizer, "pico"
    config.mesh.data, config.train.num_steps, config.train.warmup_steps = 1, 1, 0
    config.train.global_batch_size, config.train.eval_examples = 16, 16
    jax.config.update("jax_compilation_cache_dir", f"{workdir}-programs")  # a new, empty cache
    with redirect_stdout(Lines()) as out:
        train(config, Workdir(workdir))
    end = next(when for when, line in out.times if line.startswith("step 1:"))
    times = [when for when, _ in out.times if when <= end]
    return {
        "seconds_to_the_first_step": round(end - times[0], 1),
        "longest_silence_seconds": round(float(np.diff(times).max()), 1),
        "peak_gib": round(common.resident_kb("VmHWM") / 2**20, 2),
    }


def tokenise_once(data: str, tokenizer: str) -> dict[str, float]:
    """Time of tokenising all titles once, each as a whole, in chunks of thousands."""
    lines, backend = [f"{title}\n" for title in load(Path(data)).titles], load_tokenizer(Path(tokenizer))

    def work() -> None:
        for begin in range(0, len(lines), _AT_ONCE):
            backend.encode(lines[begin : begin + _AT_ONCE])

    return {"seconds_to_tokenise_all_titles_once": round(common.seconds(work), 1)}


def in_a_process(work: Callable[..., dict[str, float]], *arguments: str) -> dict[str, float]:
    """Result of `work` in a separate process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def compare(
    data: Path, tokenizer: Path, *, n_rows: int, n_items: int, long_title: int, scratch: Path
) -> dict[str, Any]:
    """The columns of the table."""
    rng = np.random.default_rng(0)
    name, backend, real = source_titles(data, tokenizer)
    titles = draw_titles(real, n_items, long_title, backend, rng)
    backend.save(scratch / "tokenizer")
    sides: dict[str, Any] = {"source": name}
    for side, some, n in (("small", titles[:_SMALL], _SMALL), ("all", titles, n_rows)):
        make_data(scratch / side, some, n, rng)
    words = str(scratch / "tokenizer")
    sides["small"] = in_a_process(first_step, str(scratch / "small"), words, str(scratch / "run-small"))
    sides["all"] = in_a_process(tokenise_once, str(scratch / "all"), words)
    sides["all"] |= in_a_process(first_step, str(scratch / "all"), words, str(scratch / "run-all"))
    sides["all"]["gib_over_the_model"] = round(sides["all"]["peak_gib"] - sides["small"]["peak_gib"], 2)
    return sides


def main() -> None:
    """Draw, train, report."""
    given = flags.FLAGS
    with TemporaryDirectory() as folder:
        sides = compare(
            Path(given.data),
            Path(given.tokenizer),
            n_rows=given.rows,
            n_items=given.items,
            long_title=given.long_title,
            scratch=Path(folder),
        )
    every = sides["all"]
    common.report(
        "memory",
        {"source": sides["source"], "rows": given.rows, "items": given.items, "long_title_tokens": given.long_title},
        {"thousand_rows": sides["small"], "all_rows": every},
        first_step_per_tokenising_once=round(
            every["seconds_to_the_first_step"] / every["seconds_to_tokenise_all_titles_once"], 2
        ),
    )


if __name__ == "__main__":
    flags.DEFINE_integer("rows", 5_000_000, "Rows, all splits together.", lower_bound=_SMALL)
    flags.DEFINE_integer("items", 1_000_000, "Items.", lower_bound=_SMALL)
    flags.DEFINE_integer("long_title", 316, "Tokens of one title.", lower_bound=1)
    flags.DEFINE_string("data", str(common.AMAZON_BOOKS), "Holds Amazon_Books.info.txt.")
    flags.DEFINE_string("tokenizer", str(common.QWEN_TOKENIZER), "Hugging Face folder of a tokenizer.")
    run_main(main)
