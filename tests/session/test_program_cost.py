"""What is read of compiled and traced programs."""

import jax
import jax.numpy as jnp
import pytest

from igd_jax.core.devices import GIB
from igd_jax.session import program_cost
from igd_jax.session.program_cost import Collective, Cost, collectives, compiled_cost, products, together
from igd_jax.training.mesh import make_mesh

F32 = frozenset({"f32"})
PROGRAM = """
%cond (c: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(28)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%as_data (c: (s32[], f32[8])) -> pred[] {
  %i = s32[] get-tuple-element(%c), index=0
  %n = s32[] get-tuple-element(%c), index=1
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%all-reduce-scatter.1 (input: f32[8,4]) -> f32[2,4] {
  %r = f32[8,4]{1,0} all-reduce(%input), channel_id=5, to_apply=%sum
}

%body (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %piece = bf16[28,1536]{1,0:T(8,128)(2,1)} all-gather(%x), channel_id=1, dimensions={0}
  %piece.1 = bf16[28,1536]{1,0:T(8,128)(2,1)S(1)} all-gather(%x), channel_id=1, dimensions={0}
  %f = f32[2,4] fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}

%once (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = (s32[], f32[8]) while(%c), condition=%cond, body=%body
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %o = (s32[], f32[8]) while(%c), condition=%as_data, body=%once
  %b = (f32[8]{0}, f32[2,4]{1,0}) all-reduce-start(%y, %z), channel_id=3, to_apply=%sum
  %d = (f32[8]{0}, f32[2,4]{1,0}) all-reduce-done(%b)
}
"""


def test_collectives_are_counted_by_channel_and_as_often_as_their_loops_turn():
    assert sorted(collectives(PROGRAM)) == [
        Collective("all-gather", 28 * 1536 * 2, 28, frozenset({"bf16"})),
        Collective("all-reduce", 64, 1, F32),
        Collective("reduce-scatter", 128, 28, F32),
    ]


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("(f32[4]{0}, f32[16]{0}) all-gather-start(%x), channel_id=1", 64),
        ("((f32[4]{0:T(8,128)S(1)}, f32[2]{0}), (f32[16]{0}, f32[8]{0})) all-gather-start(%x, %y), channel_id=1", 96),
        ("(f32[8]{0}, f32[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1", 32),
    ],
)  # fmt: skip
def test_a_collective_that_is_started_counts_its_result_and_not_its_operand(line, size):
    (found,) = collectives(f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  %a = {line}, dimensions={{0}}\n}}\n")
    assert (found.size, found.dtypes) == (size, F32)


def test_products_count_as_often_as_their_loops_turn():
    def work(x, weights):
        x, _ = jax.lax.scan(lambda x, w: (jax.jit(jnp.matmul)(x, w), None), x, weights)
        return x @ weights[0]

    traced = jax.jit(work).trace(jnp.zeros((3, 4)), jnp.zeros((5, 4, 4)))
    assert products(traced.jaxpr) == (5 + 1) * 2 * 3 * 4 * 4


def test_a_refused_program_says_how_much_it_needs_and_other_errors_are_raised():
    class Traced:
        jaxpr = jax.make_jaxpr(lambda: 1)()

        def __init__(self, message: str):
            self.message = message

        def lower(self):
            raise jax.errors.JaxRuntimeError(self.message)

    mesh = make_mesh(data=1)
    cost, program = compiled_cost(Traced("RESOURCE_EXHAUSTED: Used 23.5G of 15.75G hbm. Exceeded"), mesh)
    assert (cost.used, cost.room, cost.fits, program) == (23.5 * GIB, 15.75 * GIB, False, None)
    with pytest.raises(jax.errors.JaxRuntimeError, match="another"):
        compiled_cost(Traced("another"), mesh)


def test_a_program_that_fits_is_weighed_against_its_chip(monkeypatch):
    mesh = make_mesh(data=1)
    monkeypatch.setattr(program_cost, "facts", lambda _: type("Facts", (), {"memory_bytes": 1000}))
    cost, program = compiled_cost(jax.jit(lambda x: x @ x).trace(jnp.zeros((4, 4))), mesh)
    assert (cost.fits, cost.room, cost.held, cost.flops) == (True, 1000, 64, 128)
    assert program(jnp.eye(4))[0, 0] == 1


def test_programs_that_run_one_after_another_need_the_most_of_them():
    small = Cost(1.0, 9.0, True, 1.0, 2.0, (Collective("all-gather", 5, 2, F32),), 1.0)
    large = Cost(2.0, 9.0, True, 0.0, 3.0, (Collective("all-reduce", 7, 1, F32),), 1.0)
    both = together([small, large])
    assert (both.used, both.held, both.flops, both.gathered, both.seconds) == (2.0, 1, 5.0, 5, 2.0)
    assert both.by_kind() == {"all-gather": (2, 10), "all-reduce": (1, 7)}
    assert (small.reduced, both.reduced) == (frozenset(), F32)
    refused = Cost(1.5, 1.0, False, 0.0, 0.0, (), 1.0)
    assert (together([large, refused]).used, together([large, refused]).fits) == (1.5, False)
