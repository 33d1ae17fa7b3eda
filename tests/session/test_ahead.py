"""What a step costs on chips that are not there."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from jax.experimental import topologies

from configs import igd
from igd_jax.core.errors import InputError
from igd_jax.plan import line_of, savings
from igd_jax.session.ahead import GIB, StepCost, collectives, topology_mesh
from igd_jax.session.sections import MeshSettings

PROGRAM = """
  %a = bf16[28,1536]{1,0} all-gather(%x), dimensions={0}
  %b = (f32[8]{0}, f32[2,4]{1,0}) all-reduce-start(%y, %z), to_apply=%sum
  %c = (f32[8]{0}, f32[2,4]{1,0}) all-reduce-done(%b)
  %d = f32[16]{0} all-gather(%w)
"""


def test_collectives_are_counted_once_with_the_bytes_of_the_largest():
    assert collectives(PROGRAM) == {"all-gather": (2, 28 * 1536 * 2), "all-reduce": (1, 32)}


def test_a_line_says_whether_it_fits_or_by_how_much_not():
    assert line_of("x", StepCost(23.0 * GIB, 15.75 * GIB)) == "x: 23.000 GiB of 15.750 GiB per chip, 7.250 too many"
    fits = StepCost(2.0 * GIB, None, GIB / 2, collectives={"all-reduce": (4, 1)}, seconds=3.2)
    assert line_of("x", fits) == (
        "x: fits with 2.000 GiB per chip, 0.500 of them held between steps; collectives: 4 all-reduce; compiled in 3 s"
    )


def test_changes_that_save_memory_add_up_and_leave_out_what_is_so_already():
    config = igd.get_config()
    config.model.remat = "full"
    found = list(savings(config, 16))
    assert found[0] == {"mesh.fsdp": 16}
    assert found[-1] == {"mesh.fsdp": 16, "model.dtype": "bfloat16", "model.lora_rank": 32}


def test_an_unknown_topology_is_bad_input(monkeypatch):
    def fails(**_):
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(topologies, "get_topology_desc", fails)
    with pytest.raises(InputError, match=r"--topology is 'v5e:no', which cannot be described here \(no such thing\);"):
        topology_mesh("v5e:no", MeshSettings(-1, 1, 1))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install .[tpu]")
def test_the_step_compiles_for_a_tpu_and_a_sharded_one_holds_a_fraction():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # which libtpu refuses
    done = subprocess.run(
        [sys.executable, "-m", "igd_jax.plan", "--config=configs/igd.py", "--config.model.config=nano",
         "--config.data.max_length=64", "--config.train.micro_batch_size=4", "--topology=v5e:2x2",
         "--grid=mesh.fsdp=1,4"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, split = done.stdout.splitlines()
    assert whole.startswith("fsdp=1: fits with ")
    assert "all-gather" in split
    held = [float(re.findall(r"([\d.]+) of them held", line)[0]) for line in (whole, split)]
    assert held[1] < 0.5 * held[0]
