"""Every figure of `benchmarks.gpu` is made at toy size; parts that fail or take too long are told, the rest kept."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from command import own_flags

pytest.importorskip("torch")

from benchmarks import gpu, parts
from benchmarks.parts import Part
from igd_jax.core.errors import InputError


@pytest.mark.slow
def test_every_part_makes_its_figures_at_toy_size(tiny: Path):
    made = gpu.parts_of(gpu.TOY, gpu.Inputs(tiny / "data", tiny / "model", tiny / "model"))
    found = {name: part.measure() for name, part in made.items()}
    json.dumps(found)
    ours, theirs = found["training"], found["training of torch"]["4 rows per micro-batch"]
    assert ours["examples_per_second"] > 0 < theirs["examples_per_second"]
    assert ours["useful_TFLOP_per_second"] > 0
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4)
    for n_users in gpu.TOY.users:
        speed = found[f"search, {n_users} at a time"]
        assert speed["igd_jax"]["users_per_second"] > 0
        assert speed["transformers"]["lists_in_another_order"] == 0
    assert found["search, 1 at a time"]["igd_jax"]["latency_ms_median"] > 0
    assert found["equality with a CPU"]["same_lists"] == "22 of 22"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the parts ``good``, ``slow`` and ``bad``, in no process at all."""
    output = tmp_path / "out.json"
    made = {name: Part(dict, 7) for name in ("good", "slow", "bad")}

    def process(command, *, timeout, **_):
        name, file = (command[at].partition("=")[2] for at in (3, 4))
        if name == "slow":
            raise subprocess.TimeoutExpired(command, timeout)
        if name == "good":
            Path(file).write_text(json.dumps({"speed": 3}))
        return subprocess.CompletedProcess(command, int(name == "bad"), "", "noise\nout of memory\n")

    monkeypatch.setattr(parts.subprocess, "run", process)
    monkeypatch.setattr(parts.common, "machine", lambda: {"date": "today", "commit": "c0ffee"})

    def call(*only: str):
        with own_flags():
            parts.define_flags(made, output=output)
            flags.FLAGS["only"].value = list(only)
            flags.FLAGS.mark_as_parsed()
            return parts.run("module", made), json.loads(output.read_text())

    return call


def test_results_of_parts_are_kept_and_reasons_told(run):
    found, written = run("bad", "slow")
    assert found == written["parts"]
    assert found["slow"] == {"failed": "it took more than 7 s"}
    assert found["bad"] == {"failed": "out of memory"}
    found, written = run("good")
    assert list(written["parts"]) == ["good", "slow", "bad"]
    assert written["parts"]["good"] == {"speed": 3, "date": "today", "commit": "c0ffee"}


def test_a_part_that_is_not_there_is_bad_input(run):
    with pytest.raises(InputError, match="--only names 'fast'; expected one of good, slow, bad"):
        run("fast")
