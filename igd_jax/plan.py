"""What training would cost per chip of a TPU that is not there: a step of padded rows, compiled ahead of time.

    python -m igd_jax.plan --config=igd --config.model.config=qwen2.5-1.5b --topology=v5e:4x4
    python -m igd_jax.plan --config=igd --config.model.path=HF_DIR --topology=v5e:4x4 --config.mesh.fsdp=16
    python -m igd_jax.plan --config=igd --topology=v5e:4x4 --grid=mesh.fsdp=8,16 --grid=model.remat=dots,full

Prints one line per combination: whether a step with a micro-batch of `config.train.micro_batch_size` rows of
`config.data.max_length` tokens fits a chip, or by how much it does not (docs/plan.md). If none fits, the first is tried
again with what saves memory, one change after another, until it fits. Needs the package libtpu
(pip install libtpu), and no TPU.
"""

from collections.abc import Iterator

from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.devices import GIB
from igd_jax.core.errors import InputError
from igd_jax.core.log import duration, say
from igd_jax.methods import load_method
from igd_jax.session.ahead import step_cost, topology_mesh
from igd_jax.session.program_cost import Cost
from igd_jax.settings.config_flags import define_config_flag, required_config
from igd_jax.settings.config_grid import changed, name_of, parse_axis, points
from igd_jax.settings.settings import settings_from

TARGET_TOKENS = 32
"""Columns of targets within `config.data.max_length`, those of most titles."""


def plan(config: ConfigDict, topology: str) -> Cost:
    """Compile the step of a config for a topology.

    Raises:
      InputError: the config is bad, there is no such topology, or the rows cannot be dealt over its chips.
    """
    settings = settings_from(config, needs={"model.path"})
    if load_method(settings.method.name, settings.method.args).inputs != "text":
        raise InputError(f"config.method.name is {settings.method.name!r}; plan is for models that read text")
    if settings.data.max_length <= TARGET_TOKENS:
        raise InputError(
            f"config.data.max_length is {settings.data.max_length}, of which {TARGET_TOKENS} tokens are targets here; "
            f"raise it above {TARGET_TOKENS}"
        )
    return step_cost(
        settings.model,
        topology_mesh(topology, settings.mesh),
        rows=settings.train.micro_batch_size,
        prompt=settings.data.max_length - TARGET_TOKENS,
        target=TARGET_TOKENS,
        bfloat16=settings.train.bfloat16,
    )


def line_of(name: str, cost: Cost) -> str:
    """One line of the table."""
    memory = f"{name}: {cost.used / GIB:.2f} of {cost.room / GIB:.2f} GiB per chip"
    if not cost.fits:
        return f"{memory}, {(cost.used - cost.room) / GIB:.2f} too many"
    talk = ", ".join(f"{times} {kind} of {size / 1e9:.2f} GB" for kind, (times, size) in cost.by_kind().items())
    told = "not readable with this version of JAX" if cost.collectives is None else talk or "nothing"
    return (
        f"{memory} fits, {cost.held / GIB:.2f} of them held between steps; {cost.flops / 1e12:.1f} TFLOP per chip and "
        f"micro-batch; between chips: {told}; compiled in {duration(cost.seconds)}"
    )


def savings(config: ConfigDict, n_chips: int) -> Iterator[dict[str, object]]:
    """Changes that save memory, each with those before it: the least costly first."""
    change: dict[str, object] = {}
    n_shards, rows = n_chips // config.mesh.tensor, config.train.micro_batch_size
    for field, value in (
        ("model.remat", "full"),
        ("mesh.fsdp", n_shards),
        ("model.dtype", "bfloat16"),
        ("model.param_dtype", "bfloat16"),
        ("train.micro_batch_size", min(rows, n_shards)),
        ("model.lora_rank", 32),
        ("model.param_dtype", "bfloat16"),
    ):
        (section, name), so_far = field.split("."), changed(config, change)
        if field == "model.param_dtype" and not so_far.model.lora_rank:
            continue  # trained weights of bfloat16 have others of float32 beside them
        if so_far[section][name] != value:
            copies = {"mesh.data": -1} if field == "mesh.fsdp" and config.mesh.data != -1 else {}
            more = {**change, **copies, field: value}
            if _is_possible(changed(config, more)):
                yield dict(change := more)


def _is_possible(config: ConfigDict) -> bool:
    """Whether the settings take it: a T5, for one, has no adapters."""
    try:
        settings_from(config, needs=())
    except InputError:
        return False
    return True


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("topology", None, "Chips to compile for, such as v5e:4x4.", required=True)
    flags.DEFINE_multi_string("grid", [], "FIELD=VALUE,VALUE: compile with each; repeat for more fields.")
    define_config_flag()


def main() -> None:
    """Entry point."""
    config, topology = required_config(), flags.FLAGS.topology
    grid = list(points([parse_axis(text, config, option="--grid") for text in flags.FLAGS.grid]))
    costs = [_told(config, point, topology) for point in grid]
    if any(cost.fits for cost in costs):
        return
    first, n_chips = changed(config, grid[0]), topology_mesh(topology, settings_from(config, needs=()).mesh).size
    for change in savings(first, n_chips):
        if _told(first, change, topology).fits:
            options = " ".join(f"--config.{field}={value}" for field, value in change.items())
            say(f"it fits with {options}")
            return
    say("nothing that was tried makes it fit; use more chips, or chips with more memory")


def _told(config: ConfigDict, point: dict[str, object], topology: str) -> Cost:
    cost = plan(changed(config, point), topology)
    say(line_of(name_of(point) or "as given", cost))
    return cost


if __name__ == "__main__":
    define_flags()
    errors.run(main)
