"""What a compiled program needs of one chip: memory by the compiler, operations, and what it says to other chips."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh

from igd_jax.core.devices import GIB, facts

_UNITS = {"G": GIB, "M": 2**20, "K": 2**10}
_REFUSED = re.compile(r"Used ([\d.]+)([GMK]) of ([\d.]+)([GMK]) hbm")
_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_CALLED = re.compile(r"(body|calls|to_apply|branch_computations|called_computations)=\{?(%[^\s,}]+(?:, %[^\s,}]+)*)")
_CONDITION = re.compile(r"condition=%([^\s,}]+)")
_COLLECTIVE = re.compile(
    r" = (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(-start)?\(.*?channel_id=(\d+)"
)
_ARRAY = re.compile(r"(bf16|f16|f32|s32|u32|s8|u8|pred)\[([\d,]*)\]")
_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1, "pred": 1}


REDUCTIONS = ("all-reduce", "reduce-scatter")
BESIDE_OPERANDS = ("all-gather", "collective-permute")
"""Collectives whose start gives a tuple: first what is sent, then what arrives, then what else it needs."""


class Collective(NamedTuple):
    """What chips say to one another at one place of a program.

    Attributes:
      kind: ``all-gather``, ``all-reduce``, ``reduce-scatter``, ``all-to-all`` or ``collective-permute``.
      size: bytes of the result on a chip; of a reduction, before it is scattered.
      times: how often it runs; a loop whose length depends on data counts once.
      dtypes: XLA's names of the dtypes of its arrays, such as ``bf16``.
    """

    kind: str
    size: int
    times: int
    dtypes: frozenset[str]


@dataclass(frozen=True)
class Cost:
    """What a program, or several of the same state, need of one chip.

    Attributes:
      used: peak of the chip's memory in bytes, by the compiler.
      room: memory of the chip in bytes; if it does not fit, what the compiler lets programs use.
      fits: whether the compiler accepted it.
      held: bytes of the arguments, within `used`; 0 if it does not fit.
      flops: floating-point operations of its products, with what is computed again.
      collectives: what it says to other chips; None if this version of JAX cannot read the program.
      seconds: time to compile.
    """

    used: float
    room: float
    fits: bool
    held: float
    flops: float
    collectives: tuple[Collective, ...] | None
    seconds: float

    @property
    def gathered(self) -> int | None:
        """Bytes that gathers can keep alive at once, at most: those of one turn of each loop, and all outside."""
        if self.collectives is None:
            return None
        return sum(each.size for each in self.collectives if each.kind == "all-gather")

    @property
    def reduced(self) -> frozenset[str]:
        """XLA's names of the dtypes in which chips add up arrays."""
        return frozenset().union(*(x.dtypes for x in self.collectives or () if x.kind in REDUCTIONS))

    def by_kind(self) -> Mapping[str, tuple[int, int]]:
        """How often each kind of collective runs, and the bytes of all of them."""
        kinds = sorted({each.kind for each in self.collectives or ()})
        of_kind = {kind: [each for each in self.collectives or () if each.kind == kind] for kind in kinds}
        return {
            kind: (sum(each.times for each in found), sum(each.times * each.size for each in found))
            for kind, found in of_kind.items()
        }


def compiled_cost(traced: Any, mesh: Mesh) -> tuple[Cost, Any]:
    """Compile a traced program for the chips of a mesh: its cost, and the program; None in its place if it is refused.

    Args:
      traced: a result of ``jax.jit(...).trace(...)``.
      mesh: the chips, all of one kind.
    """
    start, flops = time.monotonic(), products(traced.jaxpr) / mesh.size
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if (refused := _REFUSED.search(str(error))) is None:
            raise
        used, of_used, room, of_room = refused.groups()
        sizes = float(used) * _UNITS[of_used], float(room) * _UNITS[of_room]
        return Cost(*sizes, False, 0.0, flops, (), time.monotonic() - start), None
    memory, chip = compiled.memory_analysis(), facts(mesh.devices.flat[0].device_kind)
    cost = Cost(
        used=float(memory.peak_memory_in_bytes),
        room=float(chip.memory_bytes) if chip else float("nan"),
        fits=True,
        held=float(memory.argument_size_in_bytes),
        flops=flops,
        collectives=_collectives_of(compiled),
        seconds=time.monotonic() - start,
    )
    return cost, compiled


def _collectives_of(compiled: Any) -> tuple[Collective, ...] | None:
    try:
        return tuple(collectives(compiled.as_text()))
    except jax.errors.JaxRuntimeError:  # the program of a newer compiler
        return None


def together(costs: Iterable[Cost]) -> Cost:
    """Cost of programs that run one after another; of those that do not fit, the memory of the first."""
    every = list(costs)
    unread = any(cost.collectives is None for cost in every)
    most = next((cost for cost in every if not cost.fits), max(every, key=lambda cost: cost.used))
    return Cost(
        used=most.used,
        room=most.room,
        fits=most.fits,
        held=max(cost.held for cost in every),
        flops=sum(cost.flops for cost in every),
        collectives=None if unread else tuple(each for cost in every for each in cost.collectives or ()),
        seconds=sum(cost.seconds for cost in every),
    )


def products(program: Any) -> float:
    """Floating-point operations of the products of matrices in a traced program.

    A loop counts as often as it turns, or once if that depends on data.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            between = prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * prod(equation.outvars[0].aval.shape) * between
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += turns * sum(map(products, _within(equation.params.values())))
    return total


def _within(values: Iterable[Any]) -> Iterator[Any]:
    """The programs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _within(value)


def collectives(program: str) -> list[Collective]:
    """The collectives in the text of a compiled program.

    The compiler cuts a collective into pieces that run beside other work; pieces have a channel in common.
    """
    lines, entry = _computations(program)
    found: dict[str, Collective] = {}
    waiting = [(entry, 1)]
    while waiting:
        name, times = waiting.pop()
        for line in lines.get(name, ()):
            if match := _COLLECTIVE.search(line):
                shapes, kind, start, channel = match.groups()
                if start and kind in BESIDE_OPERANDS:
                    shapes = _elements(shapes)[1]
                kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind
                old = found.get(channel, Collective(kind, 0, 0, frozenset()))
                dtypes = old.dtypes.union(dtype for dtype, _ in _ARRAY.findall(shapes))
                found[channel] = Collective(kind, max(old.size, _size(shapes)), max(old.times, times), dtypes)
            condition = _CONDITION.search(line)
            turns = _turns(lines[condition[1]]) if condition else 1
            for _, called in _CALLED.findall(line):
                waiting += [(each.removeprefix("%"), times * turns) for each in called.split(", ")]
    return list(found.values())


def _computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation by its name, and the name of the one that is run."""
    lines: dict[str, list[str]] = {}
    name = entry = ""
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            entry = name if match[1] else entry
        lines.setdefault(name, []).append(line)
    return lines, entry


def _turns(condition: list[str]) -> int:
    """How often a loop turns: the number that its condition compares the counter with; 1 if that is data."""
    constants = [int(number) for line in condition for number in re.findall(r"s32\[\].* constant\((\d+)\)", line)]
    is_counter = any("direction=LT" in line for line in condition)
    return constants[0] if is_counter and len(constants) == 1 else 1


def _elements(shapes: str) -> list[str]:
    """The elements of a tuple; a tuple or a layout within it stays whole."""
    depth, found = 0, [""]
    for sign in shapes[1:-1]:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return found


def _size(shapes: str) -> int:
    """Bytes of the arrays of a result."""
    return sum(_BYTES[dtype] * prod(map(int, filter(None, dims.split(",")))) for dtype, dims in _ARRAY.findall(shapes))
