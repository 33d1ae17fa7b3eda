"""What training and searching need of a TPU that is not there: the real programs, compiled ahead of time.

    python -m benchmarks.tpu_compile [--only="train qwen2.5-1.5b v5e-8"] [--only=...]

Needs the package libtpu (pip install libtpu), and no TPU; minutes per part. Training is the gradient of a
micro-batch with sequences of 512 tokens and the update; searching is a batch of users with a catalogue of a million
made-up titles: reading the prompts and a call of the model. Memory is what the compiler says of a chip. Operations are
those of products, with what is computed again, on a chip. A part fails if a program does not fit a chip, or if gathers
may keep as much alive at once as half of the weights.
"""

import dataclasses
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from benchmarks import common, parts
from configs import igd
from igd_jax.core.devices import GIB
from igd_jax.core.errors import InputError
from igd_jax.core.errors import run as run_main
from igd_jax.core.ragged import Ragged
from igd_jax.decoding.engine import Engine
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.base import search_engine
from igd_jax.models.load import config_of
from igd_jax.session.ahead import abstract_backbone, search_cost, step_cost, topology_mesh
from igd_jax.session.program_cost import Cost
from igd_jax.session.ranker import decode_options
from igd_jax.settings.config_grid import changed
from igd_jax.settings.settings import Settings, settings_from

PROMPT, TARGET = 480, 32
N_ITEMS, LONGEST = 1_000_000, 24
MODULE = "benchmarks.tpu_compile"


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips, and what is put on them.

    Attributes:
      topology: name of the topology.
      model: name of the model.
      training: fields of the config that differ from the default when training.
      rows: rows of a micro-batch, over all chips.
      tensor: chips that share the products of a search; the others have users of their own.
      users: users at a time, over all chips.
    """

    topology: str
    model: str
    training: dict[str, Any]
    rows: int
    tensor: int
    users: int


_FULL = {"model.dtype": "bfloat16", "model.remat": "dots"}
_ADAPTERS = {**_FULL, "model.param_dtype": "bfloat16", "model.lora_rank": 32}
SLICES = {
    "qwen2.5-1.5b v5e-8": Slice("v5e:2x4", "qwen2.5-1.5b", {**_FULL, "mesh.fsdp": 8}, 32, 2, 32),
    "qwen2.5-1.5b v5e-16": Slice("v5e:4x4", "qwen2.5-1.5b", {**_FULL, "mesh.fsdp": 16}, 64, 2, 64),
    "qwen2.5-7b-lora v5e-16": Slice("v5e:4x4", "qwen2.5-7b", {**_ADAPTERS, "mesh.fsdp": 16}, 64, 4, 32),
    "llama3-8b v5e-64": Slice("v5e:8x8", "llama3-8b", {**_FULL, "model.remat": "full", "mesh.fsdp": 64}, 128, 8, 64),
    "llama3-8b v6e-16": Slice("v6e:4x4", "llama3-8b", {**_FULL, "model.remat": "full", "mesh.fsdp": 16}, 32, 4, 32),
}
BEAMS = (10, 20, 50)


def train(chips: Slice) -> dict[str, Any]:
    """Figures of a train step."""
    settings = settings_of(chips, chips.training)
    mesh = topology_mesh(chips.topology, settings.mesh)
    cost = step_cost(settings.model, mesh, rows=chips.rows, prompt=PROMPT, target=TARGET)
    return {**_described(settings), "rows": chips.rows, **figures(cost, settings)}


def search(chips: Slice, num_beams: int) -> dict[str, Any]:
    """Figures of a search over `N_ITEMS`."""
    settings = settings_of(
        chips, {"model.dtype": "bfloat16", "model.param_dtype": "bfloat16", "mesh.tensor": chips.tensor}
    )
    mesh = topology_mesh(chips.topology, settings.mesh)
    engine = made_up_engine(settings, mesh, n_items=N_ITEMS, num_beams=num_beams)
    cost = search_cost(engine, mesh, rows=chips.users, prompt=PROMPT)
    how = {"engine": type(engine).__name__, "tokens_per_user_and_call": getattr(engine, "n_tokens", 1)}
    return {**_described(settings), "users": chips.users, "beams": num_beams, **how, **figures(cost, settings)}


def made_up_engine(settings: Settings, mesh: Mesh, *, n_items: int, num_beams: int) -> Engine:
    """The search of IGD over made-up items, with shapes in the place of weights."""
    index = made_up_index(n_items, vocab_size=config_of(settings.model.config).vocab_size)
    decode = dataclasses.replace(settings.decode, num_beams=num_beams, top_k=min(10, num_beams))
    context = cast(Any, SimpleNamespace(index=index, mesh=mesh))  # a search reads nothing else of a context
    return search_engine(context, cast(Any, abstract_backbone(settings.model)), decode_options(decode, index))


def made_up_index(n_items: int, *, vocab_size: int) -> ItemIndex:
    """Items with random titles of 4 to `LONGEST` tokens; few tokens are common, as in text."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, LONGEST + 1, n_items)
    start = np.append(0, np.cumsum(lengths))
    ids = (rng.zipf(1.2, start[-1]) % (vocab_size - 1)).astype(np.int32)
    ids[start[1:] - 1] = vocab_size - 1
    return build_index(
        [""] * n_items, Ragged(ids, start), np.ones(n_items, np.int64), candidates=np.ones(n_items, bool)
    )


def figures(cost: Cost, settings: Settings) -> dict[str, Any]:
    """Figures of a cost.

    Raises:
      InputError: a program does not fit, or gathers may keep alive half of the weights or more.
    """
    if not cost.fits:
        raise InputError(f"{cost.used / GIB:.2f} GiB per chip are needed and there are {cost.room / GIB:.2f}")
    weights = sum(x.size for x in jax.tree.leaves(abstract_backbone(settings.model)))
    gathered = None if cost.gathered is None else cost.gathered / (weights * np.dtype(settings.model.dtype).itemsize)
    if gathered is not None and gathered >= 0.5:
        raise InputError(f"gathers may keep {gathered:.0%} of the weights alive at once; split or scan them")
    talk = {f"{kind}_MB": round(size / 1e6) for kind, (_, size) in cost.by_kind().items()}
    return {
        "GiB_per_chip": round(cost.used / GIB, 2),
        "of_GiB": round(cost.room / GIB, 2),
        "GiB_of_arguments": round(cost.held / GIB, 2),
        "TFLOP_per_chip": round(cost.flops / 1e12, 2),
        **{f"{kind}_number": number for kind, (number, _) in cost.by_kind().items()},
        **talk,
        "reduced_in": ", ".join(sorted(cost.reduced)),
        "gathered_at_once_of_weights": "not readable" if gathered is None else round(gathered, 3),
        "compile_seconds": round(cost.seconds),
        "jax": jax.__version__,
    }


def settings_of(chips: Slice, changes: dict[str, Any]) -> Settings:
    """Settings of a model and its rows on chips, with some fields of the config changed."""
    config = igd.get_config()
    config.model.config, config.decode.batch_size = chips.model, chips.users
    config.train.micro_batch_size = config.train.global_batch_size = chips.rows
    return settings_from(changed(config, changes), needs={"model.path"})


def _described(settings: Settings) -> dict[str, Any]:
    mesh, model = settings.mesh, settings.model
    return {
        "mesh": f"data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}",
        "weights": model.param_dtype + (f", adapters of rank {model.lora_rank}" if model.lora_rank else ""),
        "remat": model.remat,
    }


PARTS = {
    **{f"train {name}": parts.Part(partial(train, chips), 1800) for name, chips in SLICES.items()},
    **{
        f"search {name} {beams} beams": parts.Part(partial(search, chips, beams), 1800)
        for name, chips in SLICES.items()
        for beams in (BEAMS if name == next(iter(SLICES)) else BEAMS[:1])
    },
}


def main() -> None:
    """Entry point."""
    found = parts.run(MODULE, PARTS)
    if not flags.FLAGS.part:
        for kind in ("train ", "search "):
            columns = {
                name.removeprefix(kind): found[name] for name in PARTS if name.startswith(kind) and name in found
            }
            print(f"{kind.title()}\n\n{common.markdown(columns)}\n")


if __name__ == "__main__":
    parts.define_flags(PARTS, output=common.ROOT / "benchmarks" / "results" / "tpu_compile.json")
    run_main(main)
