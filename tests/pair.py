"""What each of two processes does in tests/test_pair.py: ``python tests/pair.py FOLDER ADDRESS NUMBER``.

FOLDER holds ``data`` and ``model`` of `tiny_run`, and ``moved``, a run of one step. One start of two processes, which
takes seconds, proves many things.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import pytest
import tiny_run
from absl import flags
from runs import interrupt_at, train_tiny

from igd_jax.core import hosts, meeting
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.process import is_first
from igd_jax.evaluate import evaluate

STEPS = {
    "train.num_steps": 5, "train.schedule": "constant", "train.warmup_steps": 0, "train.log_every_steps": 1,
    "train.eval_every_steps": 2, "eval.max_examples": 8,
}  # fmt: skip
MESH = {"mesh.data": 1, "mesh.fsdp": 8}
SPLIT = {"mesh.data": 1, "mesh.tensor": 8, "model.quantize": "int8", "model.lora_rank": 2, "train.num_steps": 2}
"""All rows in both processes, and a part of each quantised weight."""
SIGNALLED_AT, STOPPED_AT = 2, 4
"""Step, from 0, whose rows are asked for when the second process is told to end, and the one after which both do."""


def run(folder: Path) -> None:
    """Give one process another config, each another folder, both a signal; evaluate, tune adapters, and kill one."""
    config = STEPS | MESH
    with pytest.raises(InputError) as odd:
        train_tiny(folder, folder / "new" / "odd", config | ({} if is_first() else {"train.seed": 43}))

    (own := folder / f"of {jax.process_index()}").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hosts, "SEEN_SECONDS", 0.5)
        with pytest.raises(InputError) as unshared:
            train_tiny(folder, own, config)

    with pytest.MonkeyPatch.context() as patched:
        if not is_first():
            interrupt_at(patched, SIGNALLED_AT, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            train_tiny(folder, folder / "moved", config)
    evaluate(tiny_run.tiny_config(folder, config), Workdir(str(folder / "moved")), name="two")
    told = {"odd": str(odd.value), "unshared": str(unshared.value), "code": stopped.value.code}
    (folder / f"told {jax.process_index()}.json").write_text(json.dumps(told))

    train_tiny(folder, folder / "split", STEPS | SPLIT)

    hosts.wait_for_all()
    if not is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    hosts.wait_for_all()


if __name__ == "__main__":
    meeting.define_flags()
    folder, address, number = sys.argv[1:]
    flags.FLAGS([sys.argv[0], f"--coordinator_address={address}", "--num_processes=2", f"--process_id={number}"])
    with meeting.together():
        run(Path(folder))
