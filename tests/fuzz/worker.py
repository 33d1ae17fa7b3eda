"""A process that runs cases: it reads their numbers and writes how each ended, both one per line.

    python -m tests.fuzz.worker FOLDER NUMBER SEED

FOLDER/pristine holds the valid inputs, which the worker that finds none makes.
"""

import dataclasses
import json
import os
import resource
import sys
import warnings
from pathlib import Path

os.environ |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import jax

from tests.command import ROOT
from tests.fuzz import fixtures
from tests.fuzz.cases import Cases

MEMORY = 6 << 30
"""Bytes that a case may ask for beyond what the process has taken: who asks for more gets an error."""


def serve(folder: Path, number: int, seed: int) -> None:
    """Answer until the standard input ends."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    pristine = folder / "pristine"
    if not pristine.is_dir():
        making = pristine.with_suffix(".making")
        fixtures.make(making)
        making.rename(pristine)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    cases = Cases(pristine, folder / f"worker{number}" / "case", seed=seed)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(cases.run(int(line)))), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
