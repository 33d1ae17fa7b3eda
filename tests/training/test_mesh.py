"""Meshes of three axes, over two of which rows are dealt evenly."""

import dataclasses

import jax
import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.sharding import AXES, by_row, divisible, replicated, row_shards
from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import make_item_batch, make_text_batch
from igd_jax.data.examples import item_examples, make_examples
from igd_jax.training.mesh import check_divides, local_rows, make_mesh, put_batch


@pytest.mark.parametrize(("asked", "size"), [(-1, 8), (1, 1), (4, 4), (8, 8)])
def test_the_mesh_has_the_devices_asked_for(asked, size):
    mesh = make_mesh(data=asked)
    assert mesh.size == size
    assert mesh.axis_names == AXES


@pytest.mark.parametrize(("fsdp", "tensor", "shape"), [(8, 1, (1, 8, 1)), (2, 2, (2, 2, 2)), (4, 2, (1, 4, 2))])
def test_copies_of_the_model_take_what_its_shards_leave(fsdp, tensor, shape):
    mesh = make_mesh(data=-1, fsdp=fsdp, tensor=tensor)
    assert mesh.devices.shape == shape
    assert row_shards(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"data": 9},
            r"config.mesh is data 9 x fsdp 1 x tensor 1, but there are 8 devices; give --config.mesh.data=-1",
        ),
        (
            {"data": 2, "fsdp": 8},
            r"data 2 x fsdp 8 x tensor 1, but there are 8 devices; give --config.mesh.data=-1",
        ),
        ({"data": -1, "fsdp": 3}, r"data -1 x fsdp 3 x tensor 1, but there are 8 devices, which 3 do not divide"),
        ({"data": -1, "fsdp": 16}, r"fsdp 16 x tensor 1, but there are 8 devices, which 16 do not divide"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_bad_input(asked, told):
    with pytest.raises(InputError, match=told):
        make_mesh(**asked)


def test_rows_are_dealt_out_and_parameters_are_whole():
    mesh = make_mesh(data=4)
    rows = jax.device_put(np.arange(16).reshape(8, 2), by_row(mesh))
    assert [shard.data.shape for shard in rows.addressable_shards] == [(2, 2)] * 4
    whole = jax.device_put(np.arange(16), replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(16,)] * 4


def lie(batch: TextBatch | ItemBatch) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of what lies on each device, by field."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    fields |= fields.pop("annotations", {})
    return {
        name: [shard.data.shape for shard in array.addressable_shards]
        for name, array in fields.items()
        if array is not None
    }


def test_of_a_text_batch_each_device_has_its_rows_and_all_of_what_rows_share():
    prompts, items = Ragged.from_lists([[1, 2, 3], [1, 2, 4, 5], [1, 2, 6]]), Ragged.from_lists([[7, 0], [8, 9, 0]])
    examples = make_examples(prompts, room=np.full(3, 9), target=np.array([1, 0, 1], np.int32))
    made = make_text_batch(examples, np.arange(3), items, {"weight": np.ones(5, np.float32)}, size=4)
    made = made.replace(allowed=np.ones((4, 2), bool), collaborative=np.ones((4, 3), np.float32))
    mesh = make_mesh(data=2)
    batch = put_batch(made, mesh)
    width = made.prompt.shape[1]
    of_rows = {"prompt": width, "prompt_mask": width, "target": 16, "target_mask": 16, "place": 16, "before": 16}
    of_rows |= {"weight": 16, "collaborative": 3, "allowed": 2}
    shared = {"shared_prefix": [(2,), (2,)], "first": [(4,), (4,)]}
    assert lie(batch) == {name: [(2, n), (2, n)] for name, n in of_rows.items()} | shared
    jax.tree.map(np.testing.assert_array_equal, batch, made)
    assert batch.shared_prefix.tolist() == [1, 2]


def test_parts_of_a_batch_that_are_made_apart_make_it_up():
    prompts, items = Ragged.from_lists([[1, 2, 3], [1, 2, 4, 5], [1, 2, 6]]), Ragged.from_lists([[7, 0], [8, 9, 0]])
    examples = make_examples(prompts, room=np.full(3, 9), target=np.array([1, 0, 1], np.int32))
    rows, seed, per_token = np.arange(3), np.array([5, 6, 7], np.int32), {"weight": np.arange(5, dtype=np.float32)}
    of_items = item_examples(Ragged.from_lists([[3], [4, 5], [6]]), np.array([1, 2, 0]))
    order = np.argsort([0, 2, 1, 3, 4, 5, 6, 7])
    for make in (
        lambda **part: make_text_batch(examples, rows, items, per_token, size=8, seed=seed, **part),
        lambda **part: make_item_batch(of_items, rows, size=8, seed=seed, **part),
    ):
        whole = make()
        parts = [make(own=own) for own in (np.array([0, 2]), np.array([1, 3, 4]), np.array([5, 6, 7]))]
        if isinstance(whole, TextBatch):
            assert all((part.first == whole.first).all() for part in parts)
            whole, *parts = (batch.replace(shared_prefix=None, first=None) for batch in (whole, *parts))
        jax.tree.map(lambda x, *xs: np.testing.assert_array_equal(np.concatenate(xs)[order], x), whole, *parts)


def test_a_process_alone_holds_all_rows():
    assert local_rows(16, make_mesh(data=2, fsdp=2, tensor=2)).tolist() == list(range(16))


def test_of_an_item_batch_each_device_has_its_rows():
    made = make_item_batch(item_examples(Ragged.from_lists([[3], [4, 5]]), np.array([1, 2])), np.arange(2), size=4)
    batch = put_batch(made, make_mesh(data=4))
    of_rows = {"history": (1, 5), "history_mask": (1, 5), "target": (1,), "is_real": (1,), "rows_per_read": (1,)}
    assert lie(batch) == {name: [shape] * 4 for name, shape in of_rows.items()}
    jax.tree.map(np.testing.assert_array_equal, batch, made)


def test_rows_that_cannot_be_dealt_out_are_bad_input():
    mesh = make_mesh(data=8)
    check_divides("config.decode.batch_size", 16, mesh)
    with pytest.raises(InputError, match=r"config.decode.batch_size is 12, which 8 devices do not divide"):
        check_divides("config.decode.batch_size", 12, mesh)
    assert [divisible(size, mesh) for size in (1, 8, 12, 16)] == [8, 8, 16, 16]
    check_divides("config.decode.batch_size", 12, make_mesh(data=-1, tensor=2))
