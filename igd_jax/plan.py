"""What training would cost per chip of a TPU that is not there: the real step, compiled ahead of time.

    python -m igd_jax.plan --config=configs/igd.py --config.model.config=qwen2.5-1.5b --topology=v5e:4x4
        [--grid=mesh.fsdp=8,16 --grid=model.remat=dots,full] [--config.FIELD=VALUE ...]

Prints one line per combination: whether a micro-batch of `config.train.micro_batch_size` rows of
`config.data.max_length` tokens fits a chip, or by how much it does not. Without --grid, a config that does not fit is
tried again with what saves memory, one change after another, until it fits. Needs the package libtpu
(pip install igd_jax[tpu]), and no TPU.
"""

from collections.abc import Iterator

from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.session.ahead import GIB, StepCost, step_cost, topology_mesh
from igd_jax.session.config_flags import define_config_flag
from igd_jax.session.config_grid import changed, name_of, parse_axis, points
from igd_jax.session.settings import settings_from

TARGET_TOKENS = 32
"""Columns of targets within `config.data.max_length`, those of most titles."""


def plan(config: ConfigDict, topology: str) -> StepCost:
    """Compile the step of a config for a topology.

    Raises:
      InputError: the config is bad, there is no such topology, or the rows cannot be dealt over its chips.
    """
    settings = settings_from(config, needs={"model.path"})
    mesh = topology_mesh(topology, settings.mesh)
    prompt = settings.data.max_length - TARGET_TOKENS
    rows = settings.train.micro_batch_size
    return step_cost(settings.model, mesh, rows=rows, prompt=prompt, target=TARGET_TOKENS)


def line_of(name: str, cost: StepCost) -> str:
    """One line of the table."""
    if cost.room is not None:
        over = (cost.used - cost.room) / GIB
        return f"{name}: {cost.used / GIB:.3f} GiB of {cost.room / GIB:.3f} GiB per chip, {over:.3f} too many"
    talk = ", ".join(f"{number} {kind}" for kind, (number, _) in sorted(cost.collectives.items())) or "none"
    return (
        f"{name}: fits with {cost.used / GIB:.3f} GiB per chip, {cost.held / GIB:.3f} of them held between steps; "
        f"collectives: {talk}; compiled in {cost.seconds:.0f} s"
    )


def savings(config: ConfigDict, n_chips: int) -> Iterator[dict[str, object]]:
    """Changes that save memory, each with those before it: the least costly first."""
    change: dict[str, object] = {}
    rows = config.train.micro_batch_size
    for field, value in (
        ("model.remat", "full"),
        ("mesh.fsdp", n_chips),
        ("model.dtype", "bfloat16"),
        ("train.micro_batch_size", n_chips),
        ("model.lora_rank", 32),
    ):
        section, name = field.split(".")
        if config[section][name] != value and not (field.endswith("size") and rows <= n_chips):
            change = {**change, field: value}
            yield dict(change)


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("topology", None, "Chips to compile for, such as v5e:4x4.", required=True)
    flags.DEFINE_multi_string("grid", [], "FIELD=VALUE,VALUE: compile with each; repeat for more fields.")
    define_config_flag()


def main() -> None:
    """Entry point."""
    config, topology = flags.FLAGS.config, flags.FLAGS.topology
    if not config:
        raise InputError("--config is not set; start with --config=configs/igd.py")
    if flags.FLAGS.grid:
        axes = [parse_axis(text, config, option="--grid") for text in flags.FLAGS.grid]
        for point in points(axes):
            say(line_of(name_of(point), plan(changed(config, point), topology)))
        return
    cost = plan(config, topology)
    say(line_of("as given", cost))
    n_chips = topology_mesh(topology, settings_from(config, needs=()).mesh).size
    for change in () if cost.fits else savings(config, n_chips):
        cost = plan(changed(config, change), topology)
        say(line_of(name_of(change), cost))
        if cost.fits:
            break


if __name__ == "__main__":
    define_flags()
    errors.run(main)
