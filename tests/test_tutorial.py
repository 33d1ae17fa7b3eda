"""The tutorial runs as it is written, with a few steps in place of many."""

import importlib
import re
import shlex

import pytest
from command import ROOT, run_here

from igd_jax.__main__ import commands

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FEW_STEPS = [
    *("--config.train.num_steps=2", "--config.train.global_batch_size=8", "--config.train.micro_batch_size=8"),
    *("--config.train.eval_examples=8", "--config.train.show_sample=False", "--config.mesh.data=1"),
]
FEW_ROWS = ["--config.eval.max_examples=8", "--config.decode.batch_size=8", "--config.mesh.data=1"]
QUICKER = {
    "train": FEW_STEPS,
    "evaluate": [*FEW_ROWS, "--choose_examples=8"],
    "recommend": FEW_ROWS,
    "analyse": ["--max_examples=4", "--exact_examples=2"],
    "report": ["--max_examples=4"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_each_step_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = {"report"} - commands().keys()
    for block in blocks("python"):
        exec(block, {})
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    steps = [words[1:] for words in map(shlex.split, lines) if words[:1] == ["igd"]]
    assert len(steps) >= 10
    for name, *options in steps:
        if name in ("doctor", *missing):
            continue
        done = run_here(importlib.import_module(f"igd_jax.{name}"), *options, *QUICKER.get(name, []))
        assert done.code == 0, (name, done.err)
    assert (tmp_path / "runs" / "igd" / "eval" / "alpha" / "metrics.json").is_file()
