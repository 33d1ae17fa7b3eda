"""What a step and a search cost on chips that are not there."""

import importlib.util
import os
import re
import subprocess
import sys

import jax
import pytest
from absl import flags
from command import ROOT, own_flags
from jax.experimental import topologies

from configs import igd, sasrec, setrec
from igd_jax import plan
from igd_jax.core.devices import GIB
from igd_jax.core.errors import InputError
from igd_jax.models.quantized import Quantized
from igd_jax.plan import line_of, savings
from igd_jax.session.ahead import abstract_backbone, topology_mesh
from igd_jax.session.program_cost import Collective, Cost
from igd_jax.settings.config_grid import changed
from igd_jax.settings.sections import MeshSettings
from igd_jax.settings.settings import settings_from

LIBTPU = ROOT / ".cache" / "libtpu"
REFUSED = Cost(23.0 * GIB, 15.75 * GIB, False, 0.0, 1e12, (), 2.0)
TALK = tuple(
    Collective(kind, size, times, frozenset({"f32"}))
    for kind, size, times in (("all-gather", 10**9, 3), ("all-gather", 10**6, 1), ("all-reduce", 10**8, 1))
)
FITS = Cost(2.0 * GIB, 16.0 * GIB, True, GIB / 2, 3e12, TALK, 3.2)


def test_a_line_says_whether_it_fits_or_by_how_much_not():
    assert line_of("x", REFUSED) == "x: 23.00 of 15.75 GiB per chip, 7.25 too many"
    assert line_of("x", FITS) == (
        "x: 2.00 of 16.00 GiB per chip fits, 0.50 of them held between steps; 3.0 TFLOP per chip and micro-batch; "
        "between chips: 4 all-gather of 3.00 GB, 1 all-reduce of 0.10 GB; compiled in 3 s"
    )


@pytest.mark.parametrize(("made_to_fit", "last"), [
    ("model.lora_rank", "it fits with --config.model.remat=full --config.mesh.fsdp=16 --config.model.dtype=bfloat16 "
                        "--config.model.lora_rank=32"),
    ("nothing", "nothing that was tried makes it fit; use more chips, or chips with more memory"),
])  # fmt: skip
def test_changes_are_tried_until_it_fits_and_named(monkeypatch, capsys, made_to_fit, last):
    config, default = igd.get_config(), igd.get_config()
    monkeypatch.setattr(plan, "plan", lambda given, _: FITS if _differs(given, default, made_to_fit) else REFUSED)
    monkeypatch.setattr(plan, "topology_mesh", lambda *_: type("Mesh", (), {"size": 16}))
    with own_flags():
        plan.define_flags()
        flags.FLAGS["topology"].value, flags.FLAGS["grid"].value = "v5e:4x4", ["train.micro_batch_size=16,32"]
        flags.FLAGS["config"].value = config
        flags.FLAGS.mark_as_parsed()
        plan.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "micro_batch_size=16", "micro_batch_size=32", "remat=full"
    ]  # fmt: skip
    assert lines[-1] == last


def _differs(config, default, field: str) -> bool:
    section, _, name = field.partition(".")
    return bool(name) and config[section][name] != default[section][name]


def test_a_backbone_of_shapes_is_quantised_as_the_settings_say():
    pytest.importorskip("qwix")
    changes = {"model.config": "pico", "model.quantize": "int8", "model.lora_rank": 2}
    model = abstract_backbone(settings_from(changed(igd.get_config(), changes), needs={"model.path"}).model)
    kernel = model.layers.mlp.up.kernel.get_value()
    assert isinstance(kernel, Quantized)
    assert isinstance(kernel.values, jax.ShapeDtypeStruct)


def test_changes_that_save_memory_add_up_and_leave_out_what_is_so_already():
    config = igd.get_config()
    config.model.remat = "full"
    found = list(savings(config, 16))
    assert found[0] == {"mesh.fsdp": 16}
    narrow = {"mesh.fsdp": 16, "model.dtype": "bfloat16"}
    assert found[-2:] == [
        narrow | {"model.lora_rank": 32},
        narrow | {"model.lora_rank": 32, "model.param_dtype": "bfloat16"},
    ]
    config.model.lora_rank = 8
    assert list(savings(config, 16))[2] == narrow | {"model.param_dtype": "bfloat16"}


def test_changes_that_the_settings_refuse_are_left_out():
    config = setrec.get_config("t5")
    config.model.config = "t5-pico"
    config.train.micro_batch_size = 64
    assert list(savings(config, 16))[-1] == {"model.remat": "full", "mesh.fsdp": 16, "train.micro_batch_size": 16}


def test_an_unknown_topology_is_bad_input(monkeypatch):
    def fails(**_):
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(topologies, "get_topology_desc", fails)
    with pytest.raises(InputError, match=r"--topology is 'v5e:no', which cannot be described here \(no such thing\);"):
        topology_mesh("v5e:no", MeshSettings(-1, 1, 1))


needs_libtpu = pytest.mark.skipif(
    not (LIBTPU.is_dir() or importlib.util.find_spec("libtpu")),
    reason="libtpu is neither in .cache/libtpu, where .ci/run installs it, nor elsewhere: pip install .[tpu]",
)


def _lines_of(program: str) -> list[str]:
    """What a program prints that compiles for TPUs."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # which libtpu refuses
    folders = [str(LIBTPU), str(ROOT / "tests"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@needs_libtpu
def test_step_and_search_compile_for_a_tpu_and_gather_a_layer_at_a_time():
    lines = _lines_of(TINY)
    assert lines[-3:-1] == ["f32", "f32"]  # sums of gradients, though products are bfloat16
    held, weights, step, search = map(float, re.findall(r"[\d.]+", lines[-1]))
    assert held < 4.5 * weights / 4  # float32 weights, two moments and sums of gradients, each over four chips
    assert 0 < step < 0.6 * weights
    assert search < 0.6 * weights


TINY = """
import jax
from benchmarks.tpu_compile import Slice, made_up_engine, settings_of
from igd_jax.session.ahead import abstract_backbone, search_cost, step_cost, topology_mesh
from igd_jax.settings.sections import MeshSettings

training = {"mesh.fsdp": 4, "model.dtype": "bfloat16"}
chips = Slice("v5e:2x2", "mini", training, 4, 1, 4)
settings = settings_of(chips, chips.training)
mesh = topology_mesh(chips.topology, settings.mesh)
assert topology_mesh("v6e:4x4", MeshSettings(-1, 8, 1)).shape == {"data": 2, "fsdp": 8, "tensor": 1}  # splits an axis
step = step_cost(settings.model, mesh, rows=4, prompt=32, target=32)
rounded = settings_of(chips, {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16"})
copies = topology_mesh(chips.topology, rounded.mesh)
print(*step_cost(rounded.model, copies, rows=4, prompt=32, target=32).reduced)
engine = made_up_engine(settings, mesh, n_items=1000, num_beams=4)
assert engine.fill == 128, "the budget is not that of a TPU with one row"
search = search_cost(engine, mesh, rows=4, prompt=32)
assert step.fits and search.fits
weights = 4 * sum(x.size for x in jax.tree.leaves(abstract_backbone(settings.model)))
print(*step.reduced)
print(step.held, weights, step.gathered, search.gathered)
"""


@pytest.mark.slow
@needs_libtpu
def test_of_targets_in_parts_a_tpu_gathers_the_head_once_and_scatters_its_gradient_once():
    assert _lines_of(PARTS)[-2:] == ["all-gather 1", "reduce-scatter 1"]


PARTS = """
import jax
import jax.numpy as jnp
from head_loss import loss_of_head
from jax.sharding import NamedSharding, PartitionSpec
from igd_jax.core.sharding import FSDP, TENSOR, by_row
from igd_jax.session.ahead import topology_mesh
from igd_jax.session.program_cost import collectives
from igd_jax.settings.sections import MeshSettings
from igd_jax.training import loss as training_loss

training_loss.targets_at_once = lambda *sizes: 1
mesh = topology_mesh("v5e:2x2", MeshSettings(-1, 4, 1))
places = NamedSharding(mesh, PartitionSpec(TENSOR, FSDP)), by_row(mesh)

def shape(*sizes, dtype=jnp.float32, place=places[1]):
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=place)

with jax.set_mesh(mesh):
    given = shape(512, 64, place=places[0]), shape(16, 16, 64, dtype=jnp.bfloat16), shape(16, 16, dtype=jnp.int32)
    gradient = jax.jit(jax.grad(loss_of_head, argnums=(0, 1)), out_shardings=places)
    program = gradient.lower(*given, shape(16, 16)).compile()
for each in sorted(collectives(program.as_text())):
    print(each.kind, each.times)
"""


def test_rows_without_room_for_a_prompt_are_refused():
    config = changed(igd.get_config(), {"data.max_length": plan.TARGET_TOKENS, "model.config": "pico"})
    with pytest.raises(
        InputError, match=r"config.data.max_length is 32, of which 32 tokens are targets here; raise it"
    ):
        plan.plan(config, "v5e:2x2")


def test_methods_whose_model_reads_items_are_refused():
    with pytest.raises(InputError, match=r"config.method.name is 'sasrec'; plan is for models that read text"):
        plan.plan(sasrec.get_config(), "v5e:2x2")
