"""Strict JAX for every test: no silent dtype or rank promotion, eight CPU devices, shared data or a reason to skip.

Programs run for milliseconds here and are compiled for seconds, so the compiler optimises little: a tenth of the time.
JAX_DISABLE_MOST_OPTIMIZATIONS=0 compiles as users do.
"""

import ctypes
import gc
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    quick = "--xla_cpu_parallel_codegen_split_count=1"  # parts of a program are compiled at once, for more work in all
    if version("jaxlib").startswith("0.10."):
        quick += " --xla_cpu_use_fusion_emitters=false"  # later versions have no such flag
    os.environ.setdefault("XLA_FLAGS", quick)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # for the other worker, and the next run


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules live as long as the process: the garbage collector need not look at them again and again.

    Traced programs live long, too: it runs seldom, which saves a twentieth of the time.
    """
    gc.disable()
    result = yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: else one worker does the last of them alone."""
    with_slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in with_slow)


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Compiled programs are forgotten where a worker has come to hold 4 GiB: later modules run few of them."""
    yield
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 4 << 30:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else glibc keeps what is freed


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden numbers that lies beside the project."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"needs the folder of real data and golden numbers at {path}")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with ``data`` (prepared) and ``model`` (Hugging Face), both of `tiny_run`."""
    import tiny_run  # slow, and most tests do without

    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.save_data(folder / "data")
    tiny_run.save_model(folder / "model")
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory) -> Path:
    """A Hugging Face folder of a T5 with its first weights, as small as `tiny`, and the tokenizer of its decoder."""
    import tiny_run
    from flax import nnx
    from tiny_models import T5_1_0

    from igd_jax.data.tokenizer import train_tokenizer
    from igd_jax.models.hf_save import save_model
    from igd_jax.models.t5 import T5
    from igd_jax.models.t5_config import T5Config

    folder, tokenizer = tmp_path_factory.mktemp("t5"), train_tokenizer(tiny_run.TITLES, vocab_size=300)
    config = T5Config(**vars(T5_1_0) | {"vocab_size": tokenizer.vocab_size})
    save_model(nnx.jit(lambda: T5(config, rngs=nnx.Rngs(0)))(), folder, eos=tokenizer.eos)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tiny: Path) -> Path:
    """The workdir of a finished run. Tests may add evaluations and analyses to it, and nothing else."""
    import tiny_run

    from igd_jax.core.io import Workdir
    from igd_jax.train import train

    train(tiny_run.tiny_config(tiny), Workdir(str(tiny / "run")))
    return tiny / "run"


@pytest.fixture(scope="session")
def evaluate(tiny: Path, trained: Path) -> Callable[..., tuple[list[dict], dict]]:
    """Evaluate the trained run under a name, with some fields changed; returns its predictions and metrics."""
    import tiny_run
    from evaluation_calls import read_written

    from igd_jax import evaluate as program
    from igd_jax.core.io import Workdir

    def run(name: str, changes: dict | None = None) -> tuple[list[dict], dict]:
        program.evaluate(tiny_run.tiny_config(tiny, changes), Workdir(str(trained)), name=name)
        return read_written(trained, name)

    return run


@pytest.fixture(scope="session")
def plain(evaluate) -> tuple[list[dict], dict]:
    """Predictions and metrics of the trained run, evaluated with its config as it is."""
    return evaluate("plain")


@pytest.fixture(scope="session")
def shoppers(tiny: Path, tmp_path_factory):
    """The data with the test rows dealt out among six users, latest first, two targets cold; its folder, those rows."""
    import numpy as np

    from igd_jax.data.assembling import assemble
    from igd_jax.data.prepared import load, save

    prepared, folder = load(tiny / "data"), tmp_path_factory.mktemp("shoppers") / "data"
    latest_first = prepared.splits["test"].take(np.arange(len(prepared.splits["test"]))[::-1].copy())
    rows = replace(latest_first, user=np.array([f"shopper {r % 6}" for r in range(len(latest_first))], object))
    splits = {**prepared.splits, "test": rows}
    save(assemble(item_ids=prepared.item_ids, titles=prepared.titles, splits=splits, dropped={}, notes={}), folder)
    return folder, rows


@pytest.fixture(scope="session")
def sasrec_run(tiny: Path) -> Path:
    """The workdir of a finished SASRec run on the same data. Tests may add evaluations and analyses to it only."""
    import tiny_run

    from igd_jax.core.io import Workdir
    from igd_jax.train import train

    train(tiny_run.sasrec_config(tiny), Workdir(str(tiny / "sasrec")))
    return tiny / "sasrec"


@pytest.fixture
def ask(tiny, tmp_path, monkeypatch):
    """Run an entry point on good arguments and one bad change; returns the one line of the error."""
    from command import one_line, run_here

    monkeypatch.chdir(ROOT)

    def run(
        module, *changes: str, workdir: Path = tmp_path / "run", model: Path = tiny / "model", config="igd.py"
    ) -> str:
        good = [f"--config=configs/{config}", f"--config.data.dir={tiny / 'data'}", f"--config.model.path={model}"]
        done = run_here(module, *good, "--config.mesh.data=1", f"--workdir={workdir}", *changes)
        return one_line(done)

    yield run
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def files_are_closed() -> Iterator[None]:
    """The library datasets closes a csv file when its reader is forgotten: at the end of the module, not in another."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def books(shared: Path, tmp_path_factory) -> Path:
    """Amazon Books as published, prepared on the command line; the test split is only the rows of the golden search."""
    from command import run_process

    folder, source = tmp_path_factory.mktemp("books"), shared / "data" / "amazon_books"
    (folder / "raw").mkdir()
    for name in ("train.csv", "valid.csv", "info.txt"):
        (folder / "raw" / f"Amazon_Books.{name}").symlink_to(source / f"Amazon_Books.{name}")
    (folder / "raw" / "Amazon_Books.test.csv").symlink_to(shared / "golden" / "igd_amazon_books" / "test_rows.csv")
    done = run_process("prepare", "--source=d3", f"--input={folder / 'raw'}", f"--output={folder / 'data'}")
    assert (done.code, done.err) == (0, ""), done.err
    return folder / "data"
